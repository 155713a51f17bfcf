"""Runs a party as `shareflow party` does, and does to it what a test asks for: at the n-th call of a chosen function.

    python run_party.py FOLDER ... party --config FILE

FOLDER/PARTY.fault, where it exists, is JSON: {"hook": name, "at": n, "do": what}; calls are counted from when the file
changed, and 0 stands for every call. "hold" waits until the file is gone, and makes FOLDER/PARTY.held when it begins
to. FOLDER/PARTY.executed gets the index of each execution, FOLDER/PARTY.secrets what no log may hold, in hexadecimal
digits.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

from shareflow.runtime.execution import LinkExchange
from shareflow.runtime.serving import Serving
from shareflow.runtime.store import Store, sealed_file


class Faults:
    def __init__(self, folder, party):
        self.file, self.executed = folder / f"{party}.fault", folder / f"{party}.executed"
        self.secrets = folder / f"{party}.secrets"
        self.held = folder / f"{party}.held"
        self._text, self._count, self._lock = "", 0, threading.Lock()

    def asked(self, hook):
        """What is to be done at this call."""
        try:
            text = self.file.read_text()
        except FileNotFoundError:
            return None
        with self._lock:
            if text != self._text:
                self._text, self._count = text, 0
            fault = json.loads(text)
            if fault["hook"] != hook:
                return None
            self._count += 1
            return fault["do"] if fault["at"] in (0, self._count) else None

    def strike(self, what):
        if what == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif what == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        elif what == "full":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        elif what == "raise":
            raise RuntimeError("planted by a test")
        elif what == "hold":
            self.held.touch()
            while self.file.exists():
                time.sleep(0.005)

    def note(self, file, text):
        with open(file, "a") as out:
            out.write(text + "\n")


def install(faults):
    def hooked(owner, name, hook):
        inner = getattr(owner, name)

        def call(*arguments, **named):
            what = faults.asked(hook)
            if what == "after":
                inner(*arguments, **named)
                faults.strike("kill")
            faults.strike(what)
            return inner(*arguments, **named)

        setattr(owner, name, call)

    def sent(self, message, payload):
        what = faults.asked("send")
        faults.strike(what)
        if what == "corrupt":
            payload = memoryview(bytes(byte ^ 0x5A for byte in memoryview(payload).tobytes()))
        return send(self, message, payload)

    def computed(self, running, material, link):
        faults.note(faults.executed, str(running.index))
        secrets = [material.key, link.key(b"execution %s %d" % (running.graph.encode(), running.index))]
        secrets += [tensor.numpy().tobytes()[:16] for tensor in running.state.values()]
        secrets += [bytes(row.request.data[:16]) for rows in running.batch.rows.values() for row in rows]
        faults.note(faults.secrets, "\n".join(secret.hex() for secret in secrets if len(secret) == 16))
        return compute(self, running, material, link)

    send, compute = LinkExchange.send, Serving._compute
    LinkExchange.send, Serving._compute = sent, computed
    hooked(LinkExchange, "receive", "receive")
    hooked(Store, "take", "take")
    hooked(Store, "put_state", "state")
    hooked(Store, "set_current", "current")
    hooked(Store, "put_material_many", "keep")
    hooked(Serving, "_answer", "answer")
    hooked(sealed_file, "_write", "disk")


if __name__ == "__main__":
    folder, arguments = Path(sys.argv[1]), sys.argv[2:]
    config = Path(arguments[-1])
    install(Faults(folder, config.stem))
    from shareflow_command import main

    sys.argv = ["shareflow", *arguments[arguments.index("party") :]]
    main()
