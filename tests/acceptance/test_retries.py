"""Retries, discarding, cancelling, and destinations of outcomes."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.engine_process import (
    ECHO,
    REAL_TALLY,
    TALLY,
    EngineProcess,
    engine_on,
    make_due,
    rows,
    to_function,
    until,
    urn_of,
)

#: Appends the event to a file, one line each.
SINK = """
import json

def handler(event, context):
    with open(context.getUserData("sink"), "a") as file:
        file.write(json.dumps(event) + "\\n")
"""
FAIL = "def handler(event, context):\n    raise ValueError('no ' + str(event.get('n')))\n"
HOPS = "SELECT hops FROM invocation ORDER BY key DESC"
SLEEP = "import time\ndef handler(event, context):\n    time.sleep(600)\n"


@pytest.fixture
def engine(engine: EngineProcess) -> Iterator[EngineProcess]:
    """Return the engine of all tests without settings; delete its functions afterwards."""
    yield engine
    engine.delete_all()


def sink(engine: EngineProcess, tmp_path: Path) -> Path:
    """Create a function that records its events; return the file."""
    file = tmp_path / "sink"
    engine.create("sink", SINK, user_data=json.dumps({"sink": str(file)}))
    return file


def noted(file: Path, count: int = 1) -> list[Any]:
    """Wait until ``count`` events have been recorded and return them."""
    until(lambda: file.exists() and len(file.read_text().splitlines()) >= count)
    return [json.loads(line) for line in file.read_text().splitlines()]


# --- retries ------------------------------------------------------------------------------------------------


RAISES = """
import json

class Throttled(Exception):
    pass

def handler(event, context):
    error = (ConnectionResetError if event["text"] == "gone" else Throttled)(event["text"])
    vars(error).update(event.get("said", {}))
    raise error
"""


def test_rules_and_the_error_itself_decide_about_retries_and_each_attempt_shows_why(engine: EngineProcess) -> None:
    engine.create("raises", RAISES)
    rules = [
        {"message_prefix": "bad", "max_retries": 0},
        {"error_type": "Throttled", "max_retries": 5, "base": 0.01, "longest": 0.01, "jitter": 0},
        {"error_type": "BrokenPipeError", "max_retries": 3},
        {"error_type": "ConnectionError", "max_retries": 1, "base": 0.01},
    ]
    engine.configure("raises", max_async_retry_attempts=0, retry_rules=rules)
    events = (
        {"text": "bad input"},
        {"text": "slow down"},
        {"text": "no use", "said": {"retryable": False}},
        {"text": "in a moment", "said": {"retry_after": 0.02}},
        {"text": "gone"},
    )
    ids = [engine.accepted("raises", event) for event in events]

    ends = [engine.record("raises", request_id, wait=30) for request_id in ids]
    assert [(end["status"], end["attempt"]) for end in ends] == [("FAIL", n) for n in (1, 6, 1, 6, 2)]
    decisions = [[attempt["decision"]["text"] for attempt in end["attempts"]] for end in ends]
    rule = "rule 2 (error_type Throttled)"
    assert decisions[0] == ["no retry: none is allowed, rule 1 (message_prefix bad)"]
    retried = [f"retry in 0.01 s: {number} of 5, {rule}" for number in range(1, 6)]
    assert decisions[1] == [*retried, f"no retry: 5 of 5 used up, {rule}"]
    assert ends[1]["attempts"][0]["decision"] == {"retry": True, "by": "rule 2", "delay": 0.01, "text": retried[0]}
    assert decisions[2] == ["no retry: its error is not retryable"]
    assert decisions[3][0] == f"retry in 0.02 s: 1 of 5, {rule}, as its error asks"
    assert decisions[4][1] == "no retry: 1 of 1 used up, rule 4 (error_type ConnectionError)"


# --- discarding ---------------------------------------------------------------------------------------------


def test_what_is_too_old_when_its_turn_comes_is_discarded_and_told(tmp_path: Path) -> None:
    with engine_on(tmp_path / "data") as engine:
        file = sink(engine, tmp_path)
        engine.create("echo", ECHO)
        engine.configure(
            "echo", max_async_event_age_in_seconds=1, destination_config={"on_failure": to_function("sink")}
        )
        request_id = engine.accepted("echo", {"n": 1}, X_Functiond_Delay="600")
        engine.kill()
        make_due(engine.data)
        engine.start()

        end = engine.record("echo", request_id, wait=30)
        [record] = noted(file)
        assert (end["status"], end["error_code"], end["attempts"]) == ("DISCARD", 150430, [])
        assert record["request_context"]["condition"] == "EventAgeExceeded"


def test_what_an_engine_did_not_come_to_discard_the_next_one_does(tmp_path: Path) -> None:
    with engine_on(tmp_path / "data", FUNCTIOND_EXECUTOR__SLOTS="1", FUNCTIOND_EXECUTOR__SYNC_SLOTS="0") as engine:
        engine.create("sleep", SLEEP, timeout=900)
        engine.create("echo", ECHO)
        engine.accepted("sleep")
        waiting = [engine.accepted("echo", X_Functiond_Delay=str(3600 * (n % 2))) for n in range(100)]
        # Deleted by hand: the state after a kill right after the deletion.
        engine.kill()
        with closing(sqlite3.connect(engine.data / "journal.db")) as database, database:
            for table in ("function", "function_version"):
                database.execute(f"DELETE FROM {table} WHERE function_id = 2")
        engine.start()
        ended(engine, len(waiting))

        assert sorted(rows(engine.data, TALLY)) == sorted(rows(engine.data, REAL_TALLY))


def test_each_of_a_deleted_functions_invocations_has_one_end(tmp_path: Path) -> None:
    with engine_on(tmp_path / "data") as engine:
        engine.create("echo", ECHO)
        with ThreadPoolExecutor(8) as senders:
            sent = [senders.submit(engine.send, "echo") for _ in range(400)]
            sent[40].result()
            engine.delete("echo")
        ended(engine, [reply.result().status for reply in sent].count(202))

        assert sorted(rows(engine.data, TALLY)) == sorted(rows(engine.data, REAL_TALLY))
        assert engine.metric("functiond_backlog_invocations") == 0


def ended(engine: EngineProcess, count: int) -> None:
    """Wait until ``count`` invocations have ended; reads the journal, as their functions are deleted."""
    until(lambda: rows(engine.data, "SELECT count(*) FROM invocation WHERE state >= 3") == [(count,)])


# --- destinations -------------------------------------------------------------------------------------------


def test_a_failure_is_told_in_the_documented_fields(engine: EngineProcess, tmp_path: Path) -> None:
    file = sink(engine, tmp_path)
    engine.create("fail", FAIL)
    engine.configure("fail", max_async_retry_attempts=1, destination_config={"on_failure": to_function("sink")})
    request_id = engine.accepted("fail", {"n": 7})
    [record] = noted(file)

    assert set(record) == {
        "timestamp",
        "request_context",
        "request_payload",
        "response_context",
        "response_payload",
    }
    assert record["request_context"] == {
        "request_id": request_id,
        "function_urn": urn_of("fail"),
        "condition": "UnhandledInvocationError",
        "approximate_invoke_count": 1,
    }
    assert json.loads(record["request_payload"]) == {"n": 7}
    assert record["response_context"]["function_error"] == engine.record("fail", request_id)["error_message"]
    assert json.loads(record["response_payload"])["errorMessage"] == "no 7"


def test_a_success_is_told_and_leads_on(engine: EngineProcess, tmp_path: Path) -> None:
    file = sink(engine, tmp_path)
    for name, following in (("one", "two"), ("two", "sink")):
        engine.create(name, ECHO)
        engine.configure(name, destination_config={"on_success": to_function(following)})
    first = engine.accepted("one", {"n": 1})
    [record] = noted(file)

    inner = json.loads(record["response_payload"])
    assert inner["request_context"]["request_id"] == first
    assert json.loads(inner["response_payload"]) == {"n": 1}
    assert rows(engine.data, f"{HOPS} LIMIT 3") == [(2,), (1,), (0,)]


def test_a_full_backlog_does_not_hold_up_what_was_promised_before(tmp_path: Path) -> None:
    settings = {"FUNCTIOND_QUEUE__FUNCTION_ROWS": "1", "FUNCTIOND_RETRY__BASE": "300"}
    with engine_on(tmp_path / "data", **settings) as engine:
        engine.create("sleep", SLEEP, timeout=900)
        engine.create("echo", ECHO)
        engine.configure("echo", destination_config={"on_success": to_function("sleep")})
        engine.accepted("sleep")
        assert engine.send("sleep").status == 429
        engine.record("echo", engine.accepted("echo"), wait=30)
        until(lambda: rows(engine.data, "SELECT count(*) FROM invocation WHERE source = 'FunctionGraph'") == [(1,)])

        assert engine.send("sleep").status == 429
        assert rows(engine.data, "SELECT count(*) FROM owed") == [(0,)]


# --- cancelling ---------------------------------------------------------------------------------------------


def test_a_cancelled_invocation_fails_with_4208_and_owes_nothing_in_each_state(tmp_path: Path) -> None:
    settings = {"FUNCTIOND_EXECUTOR__SLOTS": "1", "FUNCTIOND_EXECUTOR__SYNC_SLOTS": "0", "FUNCTIOND_RETRY__BASE": "600"}
    with engine_on(tmp_path / "data", **settings) as engine:
        sink(engine, tmp_path)
        both = {"on_failure": to_function("sink"), "on_success": to_function("sink")}
        for name, source in (("fail", FAIL), ("sleep", SLEEP)):
            engine.create(name, source, timeout=900)
            engine.configure(name, max_async_retry_attempts=2, destination_config=both)
        retrying = engine.accepted("fail")
        until(lambda: (record := engine.record("fail", retrying))["status"] == "WAIT" and record["attempts"])
        running = engine.accepted("sleep")
        until(lambda: engine.record("sleep", running)["status"] == "RUNNING")
        waiting, delayed = engine.accepted("sleep"), engine.accepted("sleep", X_Functiond_Delay="600")

        for name, request_id in (("fail", retrying), ("sleep", delayed), ("sleep", waiting), ("sleep", running)):
            assert engine.cancel(name, request_id).status == 200
            end = engine.record(name, request_id, wait=30)
            assert (end["status"], end["error_code"]) == ("FAIL", 4208)
            assert engine.cancel(name, request_id).status == 200  # repeated, as by a caller that got no answer
        assert rows(engine.data, "SELECT count(*) FROM owed") == [(0,)]
