"""Integers mod 2^64 as tensors, fixed point, and uniform streams. Knows nothing of parties."""
