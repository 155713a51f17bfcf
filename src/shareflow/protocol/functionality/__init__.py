"""Replaceable pieces of a protocol: how corrections are dealt, how values are truncated and compared."""
