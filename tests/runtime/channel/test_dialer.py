"""A dialer keeps its link: it finds a peer that comes later or back, and says once why it cannot."""

import contextlib
import logging
import time

from tests.runtime.channel.pairs import GUARD, PLAN, Seen, identity, known, listening, pin

from shareflow.runtime.channel.dialer import Dialer
from shareflow.runtime.channel.listener import Listener


@contextlib.contextmanager
def dialer(port, seen, *, plan=PLAN, me=None, to=None, **settings):
    made = Dialer(
        f"127.0.0.1:{port}",
        me or known("server0"),
        pin(to or known("server1"), "server1"),
        plan=plan,
        callbacks=seen.callbacks(),
        **settings,
    ).start()
    try:
        yield made
    finally:
        made.close("the test is over")


def eventually(condition):
    deadline = time.monotonic() + GUARD
    while not condition():
        assert time.monotonic() < deadline, "it does not happen"
        time.sleep(0.01)


def free_port():
    with listening(Seen()) as listener:
        return listener.port


def messages(caplog, level):
    return [r.getMessage() for r in caplog.records if r.levelno == level and "dialer" in r.name]


def test_a_link_that_is_lost_comes_back():
    here, there = Seen(), Seen()
    with listening(there) as listener, dialer(listener.port, here) as made:
        first = here.link()
        there.link().close("a fault")
        assert "a fault" in here.end()
        second = here.link()
        assert second is not first
        eventually(lambda: made.link is second)
        assert made.failure == ""


def test_a_peer_that_comes_later_is_found(caplog):
    port = free_port()
    here, there = Seen(), Seen()
    with caplog.at_level(logging.INFO), dialer(port, here) as made:
        eventually(lambda: "nobody answers" in made.failure)
        listener = Listener(
            f"127.0.0.1:{port}", known("server1"), [pin(known("server0"))], plan=PLAN, callbacks=there.callbacks()
        )
        try:
            here.link()
        finally:
            listener.close()
    # Whatever the number of attempts was: once.
    assert len(messages(caplog, logging.WARNING)) in (1, 2)
    assert "nobody answers" in messages(caplog, logging.WARNING)[0]


def test_a_failure_is_logged_once(caplog):
    port = free_port()
    with caplog.at_level(logging.INFO), dialer(port, Seen()) as made:
        eventually(lambda: "nobody answers" in made.failure)
        time.sleep(1.5)  # several attempts more
    assert len(messages(caplog, logging.WARNING)) == 1


def test_another_plan_is_an_error_and_tried_seldom(caplog):
    there = Seen()
    with (
        caplog.at_level(logging.INFO),
        listening(there) as listener,
        dialer(listener.port, Seen(), plan="ab" * 32, refused_delay=0.2) as made,
    ):
        eventually(lambda: "plan" in made.failure)
        eventually(lambda: len(messages(caplog, logging.ERROR)) == 1)
        time.sleep(0.6)
        assert len(messages(caplog, logging.ERROR)) == 1
        assert made.link is None


def test_a_peer_with_another_certificate_is_no_peer(caplog):
    with listening(Seen()) as listener, dialer(listener.port, Seen(), to=identity("server1")) as made:
        eventually(lambda: "certificate" in made.failure)
        assert made.link is None


def test_closing_ends_the_link_and_all_attempts():
    here, there = Seen(), Seen()
    with listening(there) as listener, dialer(listener.port, here) as made:
        here.link()
        made.close("enough")
        assert "enough" in here.end()
        assert "enough" in there.end()
        assert not made._thread.is_alive()
        assert made.link is None
    with dialer(free_port(), Seen()) as made:
        made.close()
        assert not made._thread.is_alive()


def test_a_link_that_always_ends_at_once_is_dialed_ever_less():
    counted = []
    there = Seen()
    callbacks = there.callbacks(on_link=lambda link: (counted.append(link), link.close("go away")))
    with listening(there, callbacks=callbacks) as listener, dialer(listener.port, Seen()):
        eventually(lambda: counted)
        time.sleep(2.0)
        assert 2 <= len(counted) <= 8


def test_two_parties_do_not_dial_in_step():
    to, callbacks = pin(known("server0")), Seen().callbacks()
    made = [Dialer("h:1", known(name), to, plan=PLAN, callbacks=callbacks) for name in ("server1", "dealer")]
    assert made[0]._factor != made[1]._factor
    assert all(0.75 <= dialer._factor <= 1.25 for dialer in made)
