"""Runs a command that ends when the process that started it does: `python tied.py PID COMMAND ...`."""

import ctypes
import os
import signal
import sys

if __name__ == "__main__":
    # prctl(PR_SET_PDEATHSIG, SIGKILL): nothing stays behind even where the starter is killed.
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    if os.getppid() != int(sys.argv[1]):
        sys.exit("The process that started this one is gone.")
    os.execvp(sys.argv[2], sys.argv[2:])
