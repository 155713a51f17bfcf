"""Reads graphs: what crosses, and what it costs."""
