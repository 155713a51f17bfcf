"""Disks that are full in earnest: each party's store on a small file system of its own, filled while the party runs."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import subprocess
import time

import pytest
from tests.runtime.faults.parties import DEALER, GUARD, SERVERS, Asking, ask, broken, load

from shareflow.errors import ShareflowError

pytestmark = pytest.mark.slow

PARTIES = (*SERVERS, DEALER)
SIZE = 48 << 20
# A store's payloads leave so much free, so that spending can still be recorded.
RESERVE = 16 << 20


def mounted(place):
    """A small file system, until the end of the stack that this is called for."""
    if shutil.which("mount") is None or os.geteuid() != 0:
        pytest.skip("a file system can be mounted by root alone")
    place.mkdir(mode=0o700)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SIZE},mode=700", "shareflow-test", str(place)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"a file system cannot be mounted here: {done.stderr.strip()}")


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with contextlib.ExitStack() as stack:

        def prepare(dep):
            for party in PARTIES:
                place = dep.directory / party / "data"
                mounted(place)
                stack.callback(subprocess.run, ["umount", "--lazy", str(place)], check=True)

        folder = tmp_path_factory.mktemp("disks")
        # Nothing is taken ahead: each execution records what it spends. The dealer tries for 12 s, gives up and
        # says why, which is what clients are to hear.
        serving = "execution_limit = 8.0\nrequest_limit = 15.0\nprefetch = 1"
        yield stack.enter_context(broken(folder, {"hospital": "client"}, serving=serving, prepare=prepare))


@pytest.fixture
def parties(running):
    dep, model = running
    yield running
    for party in PARTIES:
        ballast(dep, party).unlink(missing_ok=True)
    ended = [party for party, process in dep.processes.items() if process.poll() is not None]
    if ended:
        dep.restart(*ended)
    serves(dep, model)
    dep.check_indices()


def ballast(dep, party):
    return dep.directory / party / "data" / "ballast"


def fill(dep, party, leave=0):
    """Fills a party's disk but for so many bytes."""
    with open(ballast(dep, party), "ab", buffering=0) as file:
        while True:
            space = os.statvfs(file.fileno())
            free = space.f_bavail * space.f_frsize - leave
            if free <= 0 and leave:
                return
            try:
                file.write(bytes(min(max(free, 1), 1 << 20)))
            except OSError as error:
                assert error.errno == errno.ENOSPC
                return


def serves(dep, model):
    """Right answers, and new material, within the time that the leader takes to ask for it again."""
    deadline = time.monotonic() + GUARD
    while (error := Asking(ask, dep, model).outcome()) is not None or stock(dep) < 6:
        assert time.monotonic() < deadline, error or "nothing is dealt any more"
        time.sleep(0.1)


def stock(dep):
    return min(json.loads(dep.status(server))["stock"]["predict@1"] for server in SERVERS)


def until_refused(dep, model):
    """Asks until there is an error, and gives it; what came before was right."""
    # A dealer without room has numbers left that it noted before; on a busy machine it takes minutes to use them up.
    deadline = time.monotonic() + 8 * GUARD
    while (error := Asking(ask, dep, model, time_limit=20.0).outcome()) is None:
        assert time.monotonic() < deadline, "it goes on as if there were room"
    return str(error)


def versions(dep):
    return {json.loads(dep.status(server))["state_version"] for server in SERVERS}


@pytest.mark.parametrize("party", SERVERS)
def test_a_disk_that_fills_up_while_clients_are_answered(parties, party):
    """No byte is left: nothing that would have to be recorded is done, until there is room; no start is needed."""
    dep, model = parties
    before = versions(dep)
    asking = [Asking(until_refused, dep, model) for _ in range(3)]
    fill(dep, party)
    for one in asking:
        assert "the disk is full" in one.outcome(3 * GUARD)
    # The dealer tells the reason for each graph in turn, that for this one may come later.
    with pytest.raises(ShareflowError, match=r"the disk is full|no material of the dealer"):
        load(dep, model, time_limit=20.0)
    assert versions(dep) == before
    assert all(process.poll() is None for process in dep.processes.values())
    ballast(dep, party).unlink()
    serves(dep, model)
    load(dep, model)
    assert len(versions(dep) - before) == 1


@pytest.mark.parametrize("party", SERVERS)
def test_a_disk_without_room_for_material(parties, party):
    """What is left is kept for recording: the stock can be used up, and the dealer hears why it does not grow."""
    dep, model = parties
    serves(dep, model)
    fill(dep, party, leave=RESERVE - (1 << 20))
    answers = 0
    while (error := Asking(ask, dep, model, time_limit=20.0).outcome()) is None:
        answers += 1
        assert answers < 100, "it goes on as if there were room"
    assert answers >= 6
    assert "no material of the dealer" in str(error)
    assert "the disk is full" in str(error)
    assert "the disk is full" in dep.log(DEALER).read_text()


def test_a_dealer_whose_disk_is_full(parties):
    dep, model = parties
    serves(dep, model)
    fill(dep, DEALER)
    error = until_refused(dep, model)
    assert "no material of the dealer" in error
    assert "the disk is full" in error
    with pytest.raises(ShareflowError, match="the disk is full"):
        for _ in range(4):  # a load or two are dealt ahead
            load(dep, model, time_limit=20.0)
    assert dep.processes[DEALER].poll() is None


@pytest.mark.parametrize("party", PARTIES)
def test_a_party_killed_while_its_disk_is_full(parties, party):
    """What was promised is there once there is room; before that it starts, or says why it does not."""
    dep, model = parties
    before = versions(dep)
    fill(dep, party)
    until_refused(dep, model)
    dep.kill(party)
    said = dep.log(party).stat().st_size
    dep.start(party)
    deadline = time.monotonic() + GUARD
    while dep.processes[party].poll() is None and "connected" not in dep.status(party):
        assert time.monotonic() < deadline, "it neither starts nor ends"
        time.sleep(0.1)
    if dep.processes[party].poll() is not None:
        assert dep.processes.pop(party).returncode == 1
        assert "the disk is full" in dep.log(party).read_text()[said:]
        ballast(dep, party).unlink()
        dep.start(party)
    else:
        ballast(dep, party).unlink()
    dep.await_links()
    serves(dep, model)
    assert versions(dep) == before
