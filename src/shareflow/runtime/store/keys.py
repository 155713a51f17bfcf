"""The keys of a store, and how a small secret is sealed with them.

HKDF-SHA256 over the party's storage key, with the store's random id as salt, gives four keys: ``wrap`` seals
secrets, ``row`` and ``head`` authenticate the ledger, ``check`` tells a wrong storage key from a damaged store.

A small secret is sealed as  salt || AES-256-GCM(HMAC(wrap, salt), nonce 0, secret; its identity).  The salt has
256 random bits, so each sealing has its own AES key and no number of records wears a nonce out.
"""

from __future__ import annotations

import hmac

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from shareflow_client.errors import StoreError

STORAGE_KEY_BYTES = 32
ID_BYTES = 16
_SALT_BYTES = 32
_TAG_BYTES = 16
# What sealing adds to a secret's length.
SEAL_BYTES = _SALT_BYTES + _TAG_BYTES
_NONCE = bytes(12)


def fresh_key() -> bytes:
    """256 random bits of the system. Keys of the store alone: no mask of the protocol ever hangs on them."""
    return AESGCM.generate_key(bit_length=256)


def joined(*parts: bytes) -> bytes:
    """The parts with their lengths before them, so that no two sequences join to the same bytes."""
    return b"".join(len(part).to_bytes(8, "little") + part for part in parts)


class StoreKeys:
    """The keys of the store with this id."""

    def __init__(self, storage_key: bytes, store_id: bytes) -> None:
        if len(storage_key) != STORAGE_KEY_BYTES:
            raise StoreError(
                f"a storage key has {STORAGE_KEY_BYTES} bytes, this one has {len(storage_key)}. "
                "Give the key file that was made for this party."
            )
        material = HKDF(SHA256(), 4 * 32, salt=store_id, info=b"shareflow store 1").derive(bytes(storage_key))
        self._wrap, self._row, self._head, check = (material[k : k + 32] for k in range(0, 128, 32))
        self.check = check[:16]

    def row_tag(self, row: bytes) -> int:
        """256 bits that only the holder of the storage key can compute of a row."""
        return int.from_bytes(hmac.digest(self._row, row, "sha256"), "little")

    def head_tag(self, head: bytes) -> bytes:
        """32 bytes that authenticate the ledger's head, and any other mark of the store as a whole."""
        return hmac.digest(self._head, head, "sha256")

    def seal(self, secret: bytes, identity: bytes) -> bytes:
        """The secret, encrypted and bound to what it belongs to."""
        salt = fresh_key()
        return salt + AESGCM(hmac.digest(self._wrap, salt, "sha256")).encrypt(_NONCE, secret, identity)

    def unseal(self, sealed: bytes, identity: bytes, what: str) -> bytes:
        """The secret of :meth:`seal`; StoreError that names ``what`` where it or its identity was changed."""
        key = hmac.digest(self._wrap, sealed[:_SALT_BYTES], "sha256")
        try:
            return AESGCM(key).decrypt(_NONCE, sealed[_SALT_BYTES:], identity)
        except (InvalidTag, ValueError):
            raise StoreError(f"what the store keeps of {what} was changed or is damaged; it cannot be used.") from None
