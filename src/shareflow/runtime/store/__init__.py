"""What a computing party keeps on disk: encrypted, durable, and given out once. See docs/store.md."""

from __future__ import annotations

from shareflow.runtime.store.store import ArrivingMaterial, Material, NewMaterial, Store

__all__ = ["ArrivingMaterial", "Material", "NewMaterial", "Store"]
