"""Overload: the engine rejects requests with the API's errors and keeps all accepted work."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.acceptance.engine_process import BASE, EngineProcess, Reply, engine_on, until, urn_of

pytestmark = pytest.mark.long

#: Returns when a file appears.
HELD = """
import os, time

def handler(event, context):
    while not os.path.exists(context.getUserData("gate")):
        time.sleep(0.02)
    return "ended"
"""


@contextmanager
def held_engine(tmp_path: Path, **settings: str) -> Iterator[EngineProcess]:
    """Run an engine whose functions ``held`` and ``other`` return after ``open_gate``."""
    with engine_on(
        tmp_path / "data", FUNCTIOND_EXECUTOR__SLOTS="3", FUNCTIOND_EXECUTOR__SYNC_SLOTS="1", **settings
    ) as engine:
        for name in ("held", "other"):
            engine.create(name, HELD, user_data=f'{{"gate": "{tmp_path / "gate"}"}}')
        yield engine


def open_gate(tmp_path: Path) -> None:
    (tmp_path / "gate").touch()


def call(engine: EngineProcess, name: str, event: object = None) -> Reply:
    """Invoke the function synchronously."""
    return engine.ask("POST", f"{BASE}/{urn_of(name)}/invocations", event or {})


def sync_calls(engine: EngineProcess, count: int) -> None:
    """Wait until ``count`` synchronous calls wait or run."""
    until(lambda: engine.metric("functiond_synchronous_calls") >= count)


def assert_overloaded(reply: Reply) -> None:
    assert reply.status == 429
    assert int(reply.headers["retry-after"]) >= 1
    assert reply.json["error_code"] == "FSS.0429"
    assert reply.json["error_msg"]


# --- the backlog --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "value", "event"),
    [
        ("FUNCTION_ROWS", "3", {}),
        ("ROWS", "3", {}),
        ("FUNCTION_SIZE", "3500", {"pad": "x" * 1000}),
        ("SIZE", "3500", {"pad": "x" * 1000}),
    ],
)
def test_beyond_a_limit_the_backlog_takes_no_more_and_drops_nothing(
    tmp_path: Path, limit: str, value: str, event: dict[str, str]
) -> None:
    with held_engine(tmp_path, **{f"FUNCTIOND_QUEUE__{limit}": value}) as engine:
        accepted = [engine.accepted("held", event) for _ in range(3)]
        assert_overloaded(engine.send("held", event))
        assert engine.send("other", event).status == (202 if limit.startswith("FUNCTION") else 429)
        engine.kill()
        engine.start()
        assert_overloaded(engine.send("held", event))  # the limits count what an earlier engine left
        open_gate(tmp_path)

        assert [engine.record("held", request_id, wait=30)["status"] for request_id in accepted] == ["SUCCESS"] * 3
        assert engine.send("held", event).status == 202


# --- synchronous calls --------------------------------------------------------------------------------------


def test_beyond_their_limit_synchronous_calls_are_refused_and_the_others_answered(tmp_path: Path) -> None:
    with held_engine(tmp_path, FUNCTIOND_QUEUE__SYNC_ROWS="5") as engine, ThreadPoolExecutor(5) as callers:
        calls = [callers.submit(call, engine, "held") for _ in range(5)]
        sync_calls(engine, 5)
        assert_overloaded(call(engine, "held"))
        assert engine.send("held").status == 202  # synchronous calls take no slots of asynchronous work
        open_gate(tmp_path)

        assert [(future.result().status, future.result().body) for future in calls] == [(200, b"ended")] * 5
        assert call(engine, "held").status == 200


def test_a_synchronous_caller_hears_504_in_time_and_the_run_goes_on(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    source = HELD.replace('return "ended"', f'open({str(ran)!r}, "w").close()')
    with engine_on(tmp_path / "data", FUNCTIOND_HTTP__SYNC_TIMEOUT="0.5") as engine:
        engine.create("late", source, user_data=f'{{"gate": "{tmp_path / "gate"}"}}')
        reply = call(engine, "late")
        open_gate(tmp_path)
        until(lambda: not engine.metric("functiond_running"))

        assert (reply.status, reply.json["error_code"]) == (504, "FSS.0504")
        assert ran.exists()
        assert engine.metric("functiond_synchronous_calls") == 0


def test_a_synchronous_call_whose_turn_has_not_come_by_then_never_runs(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    source = HELD.replace('return "ended"', f'open({str(ran)!r}, "a").write("x")')
    settings = {"FUNCTIOND_HTTP__SYNC_TIMEOUT": "1", "FUNCTIOND_EXECUTOR__SLOTS": "2"}
    with (
        engine_on(tmp_path / "data", FUNCTIOND_EXECUTOR__SYNC_SLOTS="1", **settings) as engine,
        ThreadPoolExecutor(3) as callers,
    ):
        engine.create("late", source, user_data=f'{{"gate": "{tmp_path / "gate"}"}}')
        replies = list(callers.map(lambda name: call(engine, name), ["late"] * 3))
        left = engine.metric("functiond_synchronous_calls")
        open_gate(tmp_path)
        until(lambda: not engine.metric("functiond_running"))

        assert [reply.status for reply in replies] == [504] * 3
        assert ["will not run" in reply.json["error_msg"] for reply in replies].count(True) == 1
        assert (left, ran.read_text()) == (2, "xx")
