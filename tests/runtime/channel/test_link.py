import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from queue import SimpleQueue

import numpy as np
import pytest
from tests.runtime.channel.pairs import GUARD, PLAN, Raw, Seen, dialed, known, listening, pair, raw_dialer, raw_listener

from shareflow_client.errors import ChannelError, ConfigError, PeerError
from shareflow_client.link import LinkSettings
from shareflow_client.wire import FrameKind

QUICK = LinkSettings(dead_after=1.0, drain=1.0)


def test_both_ends_agree():
    with pair() as (link, here, other, _):
        assert (link.peer, other.peer, link.role, other.role) == ("server1", "server0", "party", "party")
        assert link.session_id == other.session_id
        assert len(link.session_id) == 16
        assert link.key(b"streams") == other.key(b"streams") != link.key(b"other")
        assert here.link() is link
        assert link.closed is None


def test_messages_arrive_as_they_were_sent():
    with pair(there=Seen(limit=lambda *asked: 64)) as (link, here, other, there):
        values = np.arange(7, dtype=np.int64)
        link.send(FrameKind.DATA, [values, b"12345678"], execution=1 << 63, round=4_000_000_000)
        frame = there.frame()
        assert (frame.kind, frame.execution, frame.round) == (FrameKind.DATA, 1 << 63, 4_000_000_000)
        assert bytes(frame.payload) == values.tobytes() + b"12345678"
        other.send(FrameKind.CONTROL, b'{"a":1}')
        back = here.frame()
        assert (back.kind, back.execution, back.round, bytes(back.payload)) == (FrameKind.CONTROL, 0, 0, b'{"a":1}')


def test_a_large_message_arrives_bit_exact():
    size = 100_000_000
    there = Seen(limit=lambda *asked: size)
    with pair(there=there) as (link, _, _, there):
        data = np.random.default_rng(1).bytes(size)
        link.send(FrameKind.DATA, data, round=9)
        frame = there.frame()
        assert frame.round == 9
        assert len(frame.payload) == size
        assert hashlib.sha256(frame.payload).digest() == hashlib.sha256(data).digest()


def test_a_message_is_sent_while_it_is_made():
    size = 3_000_000
    with pair(there=Seen(limit=lambda *asked: size)) as (link, _, _, there):
        data = np.random.default_rng(1).bytes(size)
        link.send_made(FrameKind.DATA, size, (data[at : at + 70_000] for at in range(0, size, 70_000)), round=9)
        assert there.frame().payload == data


@pytest.mark.parametrize("given", [1_999_999, 2_000_001])
def test_a_message_that_is_not_made_whole_closes_the_link(given):
    with pair(there=Seen(limit=lambda *asked: 2_000_000)) as (link, *_):
        with pytest.raises(ValueError, match="2000000 bytes was announced"):
            link.send_made(FrameKind.DATA, 2_000_000, iter([bytes(1_500_000), bytes(given - 1_500_000)]))
        assert "could not be made whole" in link.closed
        with pytest.raises(ChannelError):
            link.send(FrameKind.CONTROL, b"{}")


def test_messages_of_many_threads_stay_whole_and_in_order():
    count, threads = 30, 8
    there = Seen(limit=lambda link, kind, execution, round: 10 + 1000 * round)
    with pair(LinkSettings(chunk_bytes=4096), there=there) as (link, _, _, there):

        def work(execution):
            for k in range(count):
                link.send(FrameKind.DATA, bytes([execution, k]) * (5 + 500 * k), execution=execution, round=k)

        workers = [threading.Thread(target=work, args=(n,)) for n in range(threads)]
        for worker in workers:
            worker.start()
        frames = [there.frame() for _ in range(count * threads)]
        for frame in frames:
            assert frame.payload == bytes([frame.execution, frame.round]) * (5 + 500 * frame.round)
        for n in range(threads):
            # a message that begins later may be whole earlier only if another thread sent it
            assert [f.round for f in frames if f.execution == n] == list(range(count))


def test_a_small_message_overtakes_a_large_one():
    first = threading.Event()
    big = 60 << 20

    def limit(link, kind, execution, round):
        first.set()
        return big if round == 1 else 3

    there = Seen(limit=limit)
    with pair(there=there) as (link, _, _, there):
        sender = threading.Thread(target=link.send, args=(FrameKind.DATA, bytes(big)), kwargs={"round": 1})
        sender.start()
        assert first.wait(GUARD)
        link.send(FrameKind.DATA, b"abc", round=2)
        assert [there.frame().round, there.frame().round] == [2, 1]
        sender.join()


def held(release):
    """Callbacks of an end that does not go on reading until `release` is set."""
    seen = Seen(limit=lambda *asked: 1 << 20)
    return seen, seen.callbacks(on_frame=lambda link, frame: (seen.frames.put(frame), release.wait(GUARD)))


def test_a_full_queue_holds_the_sender_back():
    release = threading.Event()
    seen, callbacks = held(release)
    with listening(seen, callbacks=callbacks) as listener:
        link = dialed(listener.port, Seen(), settings=LinkSettings(queue_bytes=2 << 20))
        sent = []

        def work():
            for k in range(40):
                link.send(FrameKind.DATA, bytes(1 << 20), round=k)
                sent.append(k)

        sender = threading.Thread(target=work)
        sender.start()
        seen.frame()
        sender.join(1.0)
        assert sender.is_alive()
        assert len(sent) < 40
        release.set()
        assert [seen.frame().round for _ in range(39)] == list(range(1, 40))
        sender.join()
        link.close()


def test_closing_wakes_a_sender_with_the_reason():
    release = threading.Event()
    seen, callbacks = held(release)
    with listening(seen, callbacks=callbacks, settings=QUICK) as listener:
        here = Seen()
        link = dialed(listener.port, here, settings=LinkSettings(queue_bytes=1 << 20, drain=0.5))
        errors = []

        def work():
            try:
                for _ in range(200):
                    link.send(FrameKind.DATA, bytes(1 << 20))
            except ChannelError as error:
                errors.append(str(error))

        sender = threading.Thread(target=work)
        sender.start()
        seen.frame()
        link.close("enough now")
        sender.join(GUARD)
        assert errors == ["the link to server1 is closed, nothing can be sent: closed here: enough now"]
        assert here.end() == "closed here: enough now"
        release.set()


def test_closing_sends_what_is_queued_and_tells_why():
    with pair(there=Seen(limit=lambda *asked: 3 << 20)) as (link, here, other, there):
        for k in range(5):
            link.send(FrameKind.DATA, bytes(3 << 20), round=k)
        link.close("all done")
        assert [there.frame().round for _ in range(5)] == list(range(5))
        assert there.end() == "server0 closed the link: all done"
        assert here.end() == "closed here: all done"
        assert other.closed == "server0 closed the link: all done"
        link.close("again")
        for end in (link, other):
            with pytest.raises(ChannelError, match=r"nothing can be sent: .*all done"):
                end.send(FrameKind.CONTROL, b"x")
        assert here.ends.empty()


def test_a_link_may_be_closed_in_a_callback():
    here = Seen()
    there = Seen()
    close = there.callbacks(on_frame=lambda link, frame: link.close("I have what I need"))
    with listening(there, callbacks=close) as listener:
        link = dialed(listener.port, here)
        link.send(FrameKind.CONTROL, b"x")
        assert here.end() == "server1 closed the link: I have what I need"
        assert there.end() == "closed here: I have what I need"


def test_a_peer_error_of_the_user_is_told_to_the_peer():
    def refuse(link, frame):
        raise PeerError("tensor 0 holds a value that the plan does not allow")

    here, there = Seen(), Seen()
    with listening(there, callbacks=there.callbacks(on_frame=refuse)) as listener:
        dialed(listener.port, here).send(FrameKind.CONTROL, b"x")
        assert here.end() == "server1 closed the link: tensor 0 holds a value that the plan does not allow"
        assert there.end() == "tensor 0 holds a value that the plan does not allow"


def test_a_failing_callback_closes_and_tells_no_details(caplog):
    here, there = Seen(), Seen()
    with listening(there, callbacks=there.callbacks(on_frame=lambda link, frame: {}["secret"])) as listener:
        dialed(listener.port, here).send(FrameKind.CONTROL, b"x")
        assert here.end() == "server1 closed the link: an internal error"
        assert "could not be handled" in there.end()
        assert "KeyError" in caplog.text


def test_an_unexpected_message_closes_both_ends():
    there = Seen(limit=lambda *asked: None)
    with pair(there=there) as (link, here, _, there):
        link.send(FrameKind.DATA, b"12345", execution=3, round=1)
        text = "DATA of execution 3, round 1 is not expected now, server0 sent it (5 bytes)"
        assert there.end() == text
        assert here.end() == f"server1 closed the link: {text}"
        assert there.frames.empty()


def test_users_send_only_messages_of_their_own():
    with pair() as (link, _, _, _), pytest.raises(ValueError, match="CONTROL and DATA"):
        link.send(FrameKind.CLOSE, b"x")


# --- a peer that does not keep to the format ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("chunk", "rule"),
    [
        ({"kind": FrameKind.DATA, "total": 1 << 40, "payload": b"x"}, "exactly 1048576 bytes, server0 announced"),
        ({"kind": FrameKind.CONTROL, "total": 1 << 40, "payload": b"x"}, "at most 1048576 bytes, server0 announced"),
        ({"kind": 99, "payload": b"x"}, "server0 sent 99"),
        ({"kind": FrameKind.CONFIRM, "payload": bytes(32)}, "server0 sent 2"),
        ({"kind": FrameKind.CONTROL, "payload": b"x", "message": 5}, "2 is next"),
        ({"kind": FrameKind.DATA, "payload": b"x", "total": 1 << 20, "offset": 1}, "begins at offset 0"),
    ],
)
def test_a_wrong_chunk_is_refused_and_the_peer_told(chunk, rule):
    seen = Seen()
    with listening(seen) as listener, raw_dialer(listener.port) as raw:
        raw.shake()
        raw.put(**{"message": 2, **chunk})
        assert rule in raw.last_words()
        assert rule in seen.end()
        assert seen.frames.empty()


def test_silence_within_the_limit_is_no_fault():
    with pair(LinkSettings(dead_after=0.5)) as (link, _, _, there):
        time.sleep(1.5)  # heartbeats keep it alive
        link.send(FrameKind.CONTROL, b"x")
        assert bytes(there.frame().payload) == b"x"


def test_a_long_callback_is_not_taken_for_silence():
    here, there = Seen(), Seen()
    slow = there.callbacks(on_frame=lambda link, frame: (time.sleep(1.5), there.frames.put(frame)))
    settings = LinkSettings(dead_after=0.5)
    with listening(there, callbacks=slow, settings=settings) as listener:
        link = dialed(listener.port, here, settings=settings)
        link.send(FrameKind.CONTROL, b"1")
        link.send(FrameKind.CONTROL, b"2")
        assert [bytes(there.frame().payload) for _ in range(2)] == [b"1", b"2"]
        assert link.closed is None
        link.close()


def test_a_long_start_is_not_taken_for_silence():
    there = Seen()
    settings = LinkSettings(dead_after=0.5)
    slow = there.callbacks(on_link=lambda link: (time.sleep(1), there.links.put(link)))
    with listening(there, callbacks=slow, settings=settings) as listener:
        link = dialed(listener.port, Seen(), settings=settings)
        other = there.link()
        link.send(FrameKind.CONTROL, b"x")
        assert bytes(there.frame().payload) == b"x"
        assert other.closed is None
        link.close()


def test_a_failing_start_closes_the_link(caplog):
    here, there = Seen(), Seen()

    def fail(link):
        raise KeyError("secret")

    with listening(there, callbacks=there.callbacks(on_link=fail)) as listener:
        dialed(listener.port, here)
        assert here.end() == "server1 closed the link: an internal error"
        assert there.end() == "on_link failed, see the log"


def test_a_peer_that_only_reads_is_given_up():
    seen = Seen()
    with listening(seen, settings=QUICK) as listener, raw_dialer(listener.port) as raw:
        raw.shake()
        text = seen.end()
        assert text.startswith("nothing was heard from server0 for ")
        assert "dead_after is 1 s" in text


PEER = """
import sys
from shareflow_client.link import Callbacks, LinkSettings, dial
from shareflow_client.tls import Identity, Trusted
from shareflow_client.wire import FrameKind
address, folder, plan, dead = *sys.argv[1:4], float(sys.argv[4])
read = lambda name: open(f"{folder}/{name}", "rb").read()
me, peer = Identity("server0", read("me.crt"), read("me.key")), Trusted("server1", read("peer.crt"))
nothing = Callbacks(on_frame=print, on_close=lambda link, text: None, size_limit=lambda *asked: None)
link = dial(address, me, peer, plan=plan, callbacks=nothing, settings=LinkSettings(dead_after=dead))
link.send(FrameKind.CONTROL, b"here")
print("connected", flush=True)
"""


def other_process(port, folder, then="sys.stdin.read()", dead=1.0):
    me = known("server0")
    (folder / "me.crt").write_bytes(me.certificate_pem)
    (folder / "me.key").write_bytes(me.private_key_pem)
    (folder / "peer.crt").write_bytes(known("server1").certificate_pem)
    arguments = [sys.executable, "-c", PEER + then, f"127.0.0.1:{port}", str(folder), PLAN, str(dead)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    process = subprocess.Popen(
        arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout.readline() == "connected\n"
    return process


def test_a_stopped_process_is_noticed(tmp_path):
    seen = Seen()
    with listening(seen, settings=QUICK) as listener:
        process = other_process(listener.port, tmp_path)
        try:
            link = seen.link()
            assert bytes(seen.frame().payload) == b"here"
            os.kill(process.pid, signal.SIGSTOP)
            assert "nothing was heard from server0" in seen.end()
            with pytest.raises(ChannelError, match="nothing was heard from server0"):
                link.send(FrameKind.CONTROL, b"x")
        finally:
            os.kill(process.pid, signal.SIGCONT)
            process.kill()
            process.communicate()


def test_a_stopped_process_does_not_hold_a_close_up(tmp_path):
    seen = Seen()
    settings = LinkSettings(dead_after=60, drain=0.5)
    with listening(seen, settings=settings) as listener:
        process = other_process(listener.port, tmp_path, dead=60)
        try:
            link = seen.link()
            os.kill(process.pid, signal.SIGSTOP)
            began = time.monotonic()
            link.close("going")
            assert time.monotonic() - began < GUARD
            assert seen.end() == "closed here: going"
        finally:
            os.kill(process.pid, signal.SIGCONT)
            process.kill()
            process.communicate()


def test_a_killed_process_is_noticed(tmp_path):
    seen = Seen()
    with listening(seen) as listener:
        process = other_process(listener.port, tmp_path, dead=20)
        process.kill()
        process.communicate()
        assert seen.end().startswith("the connection to server0 was lost")


@pytest.mark.parametrize("dead", [1.0, 20.0])
def test_an_open_link_does_not_keep_a_process_alive(tmp_path, dead):
    seen = Seen()
    with listening(seen) as listener:
        process = other_process(listener.port, tmp_path, "", dead=dead)
        process.communicate(timeout=GUARD)
        assert process.returncode == 0
        assert seen.end()


# --- a listening end that is not what it says -----------------------------------------------------------------


def flipped(data):
    return bytes([data[0] ^ 1]) + data[1:]


def other_version(raw):
    hello = raw.handshake.mine
    raw.hear()
    raw.say(FrameKind.HELLO, replace(hello, version=2).encode())


LIES = [
    (lambda raw: raw.shake(confirm=flipped), "the confirmation of server1 does not fit"),
    (lambda raw: raw.shake(lambda m: replace(m, certificate=bytes(32))), "server1 is known by its pinned certificate"),
    (lambda raw: raw.shake(lambda m: replace(m, role="client")), "server1 is a party here and says .* a client"),
    (lambda raw: raw.shake(lambda m: replace(m, name="server2")), "talk to server1, the other end is server2"),
    (lambda raw: raw.shake(lambda m: replace(m, fingerprint="00")), f"same plan: server0 has {PLAN}, server1 has 00"),
    (other_version, "server0 speaks 1, its peer 2"),
    (lambda raw: raw.say(FrameKind.DATA, b"x"), "HELLO is next in the handshake, server1 sent something else"),
    (lambda raw: raw.say(FrameKind.HELLO, b"x"), "begins with the hello of shareflow"),
    (lambda raw: raw.out.put(b"x"), "40 bytes of header"),
    (lambda raw: raw.out.put(None), "ended the stream before the handshake was over"),
    (lambda raw: raw.say(FrameKind.CLOSE, b"not\n\x1b[31m today"), r"server1 refused the link: not  \[31m today"),
]


@pytest.mark.parametrize(("script", "rule"), LIES)
def test_a_lying_listener_is_refused(script, rule):
    seen = Seen()
    with raw_listener(script) as port, pytest.raises(ChannelError, match=rule):
        dialed(port, seen, settings=QUICK)
    assert seen.links.empty()
    assert seen.ends.empty()


def test_a_silent_listener_is_given_up():
    with raw_listener(Raw.hear) as port, pytest.raises(ChannelError, match=r"did not answer within 0\.5 s"):
        dialed(port, Seen(), time_limit=0.5)


def test_an_error_of_the_dialing_end_is_told_to_the_listening_one():
    told = SimpleQueue()

    def script(raw):
        raw.hear()
        raw.say(FrameKind.HELLO, replace(raw.handshake.mine, version=2).encode())
        told.put(raw.last_words())

    with raw_listener(script) as port:
        with pytest.raises(ChannelError):
            dialed(port, Seen())
        assert "server0 speaks 1, its peer 2" in told.get(timeout=GUARD)


@pytest.mark.parametrize("settings", [{"chunk_bytes": 0}, {"chunk_bytes": 5 << 20}, {"dead_after": 0}, {"drain": -1}])
def test_settings_that_cannot_be(settings):
    with pytest.raises(ConfigError, match=next(iter(settings))):
        LinkSettings(**settings)
