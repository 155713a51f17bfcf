"""Commands that end when the process that starts them does, so that nothing stays behind even where that is killed.

Between fork and exec nothing of ours may run: threads of gRPC would leave locks behind that nobody opens. So a command
is started through this file: `python tied.py PID CORES COMMAND ...`, with CORES such as 0,1, or - for all.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

_PR_SET_PDEATHSIG = 1


def tied(*command: str, cores: Sequence[int] = ()) -> list[str]:
    """What is started instead of a command: the same, ending with this process, on these processor cores alone."""
    return [sys.executable, "-S", __file__, str(os.getpid()), ",".join(map(str, cores)) or "-", *command]


if __name__ == "__main__":
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(sys.argv[1]):
        sys.exit("The process that started this one is gone.")
    if sys.argv[2] != "-":
        os.sched_setaffinity(0, set(map(int, sys.argv[2].split(","))))
    os.execvp(sys.argv[3], sys.argv[3:])
