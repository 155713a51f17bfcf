"""What variants of operations cost on a network and a machine, and which of them take the least time."""
