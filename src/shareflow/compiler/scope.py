"""Names of scopes in graphs."""

from __future__ import annotations


def scope_name(name: str) -> str:
    """A layer's name as TensorFlow's scope: such names have no other characters than these."""
    return "".join(c if c.isalnum() or c in "_.-/" else "_" for c in name).strip("/").lstrip("_.-") or "layer"
