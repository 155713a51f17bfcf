"""Where the `shareflow` command begins.

It stands beside the package, as importing any part of shareflow loads TensorFlow, whose notes on its own build would
come before the first line of a table or of an error.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator


def main() -> None:
    """Loads TensorFlow quietly, then runs the command."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with _held_back():
        import tensorflow  # noqa: F401

        from shareflow.cli import main as run
    run()


@contextlib.contextmanager
def _held_back() -> Iterator[None]:
    """Keeps what native code writes to standard error; it is shown if loading fails."""
    sys.stderr.flush()
    shown = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        failed = True
        try:
            yield
            failed = False
        finally:
            sys.stderr.flush()
            os.dup2(shown, 2)
            os.close(shown)
            if failed:
                held.seek(0)
                os.write(2, held.read())


