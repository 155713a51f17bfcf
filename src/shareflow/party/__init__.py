"""Who computes, and the only way a value changes party. Knows nothing of shares."""
