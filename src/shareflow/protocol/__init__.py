"""Operations, the tables that say how shares carry them out, and the protocols made of these."""
