"""One process at a time uses a store's directory."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from shareflow_client.errors import StoreError


class DirectoryLock:
    """An exclusive lock on a directory. The system releases it when the process ends, however it ends."""

    def __init__(self, directory: Path) -> None:
        # flock and not lockf: it also keeps out a second store in this same process.
        self._file = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(self._file, 20, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(self._file)
            raise StoreError(
                f"a store is used by one process at a time, and {directory} is held by process {holder}. "
                "Stop that process first, or give this party another directory."
            ) from None
        try:
            # Always as long, over the one before: so it needs no room when the disk is full.
            os.pwrite(self._file, f"{os.getpid():<19}\n".encode("ascii"), 0)
        except BaseException:
            os.close(self._file)
            raise

    def release(self) -> None:
        os.close(self._file)
