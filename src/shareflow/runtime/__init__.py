"""Builds and runs programs. Knows parties and graphs, and nothing of shares."""
