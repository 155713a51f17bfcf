"""Operations, the tables that say how shares carry them out, and the protocols made of these."""

# Before its siblings: the modules of its operators need the tensor's classes, and its operators need those modules.
from shareflow.protocol import tensor as tensor
