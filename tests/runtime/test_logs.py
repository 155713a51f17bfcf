"""Logs: one line an event, and nothing in it that a log may not hold."""

import io
import json
import logging

import numpy as np
import pytest
import tensorflow as tf

from shareflow.errors import StoreError
from shareflow.runtime.logs import JsonLines, start_logging

CANARY = "cafe5eed7141"


@pytest.fixture(params=["json", "text"])
def log(request):
    root = logging.getLogger()
    before = list(root.handlers), root.level
    levels = {name: logging.getLogger(name).level for name in ("shareflow", "shareflow_client")}
    stream = io.StringIO()
    start_logging("server0", "info", request.param, stream)
    yield logging.getLogger("shareflow.test"), stream, request.param
    root.handlers[:], root.level = before
    logging.captureWarnings(False)
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def test_a_line_has_time_level_party_and_event(log):
    logger, stream, form = log
    logger.warning("%s went %d times", "server1", 3, extra={"fields": {"pid": 7, "party": "forged"}})
    (line,) = stream.getvalue().splitlines()
    if form == "text":
        assert "warning server0: server1 went 3 times pid=7" in line
        return
    found = json.loads(line)
    assert found["time"].endswith("Z")
    del found["time"]
    assert found == {
        "level": "warning",
        "party": "server0",
        "source": "shareflow.test",
        "event": "server1 went 3 times",
        "pid": 7,
    }


@pytest.mark.parametrize(
    "secret",
    [
        CANARY.encode(),
        bytearray(CANARY.encode()),
        memoryview(CANARY.encode()),
        np.array([CANARY]),
        tf.constant(CANARY),
        ValueError(CANARY),
        KeyError(CANARY),
        [CANARY.encode()],
        {"x": ValueError(CANARY)},
        [CANARY] * 1000,
        logging,
    ],
    ids=lambda value: type(value).__name__,
)
def test_canaries_do_not_sing(log, secret):
    logger, stream, _ = log
    logger.error("it was %s", secret, extra={"fields": {"value": secret}})
    logger.error(secret)
    try:
        raise ValueError(secret)
    except ValueError:
        logger.exception("it failed with %r", secret)
    text = stream.getvalue()
    assert "it failed" in text
    assert "ValueError" in text
    assert CANARY not in text
    assert repr(CANARY.encode()) not in text


def test_a_text_that_does_not_fit_its_values_is_shown_without_them():
    record = logging.LogRecord("shareflow", logging.ERROR, __file__, 1, "number %d", (CANARY.encode(),), None)
    assert JsonLines("server0").event(record) == "number %d"


def test_errors_of_this_software_and_places_are_shown(log):
    logger, stream, _ = log
    try:
        raise StoreError("the disk is full.")
    except StoreError as error:
        logger.exception("cannot store: %s", error)
    assert stream.getvalue().count("the disk is full.") == 2
    assert "test_logs.py:" in stream.getvalue()


def test_a_line_stays_a_line(log):
    logger, stream, form = log
    logger.warning("name %s", "a\nb")
    if form == "json":
        assert len(stream.getvalue().splitlines()) == 1


def test_other_software_is_heard_only_when_it_warns(log):
    _, stream, _ = log
    logging.getLogger("other").info("chatter")
    logging.getLogger("shareflow.x").debug("detail")
    assert stream.getvalue() == ""
    logging.getLogger("other").warning("trouble")
    assert "trouble" in stream.getvalue()
