"""Runs a command that ends when the process that started it does: `python tied.py PID CORES COMMAND ...`.

CORES are the processor cores that the command may use, such as 0,1; - for all.
"""

import ctypes
import os
import signal
import sys

if __name__ == "__main__":
    # prctl(PR_SET_PDEATHSIG, SIGKILL): nothing stays behind even where the starter is killed.
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    if os.getppid() != int(sys.argv[1]):
        sys.exit("The process that started this one is gone.")
    if sys.argv[2] != "-":
        os.sched_setaffinity(0, set(map(int, sys.argv[2].split(","))))
    os.execvp(sys.argv[3], sys.argv[3:])
