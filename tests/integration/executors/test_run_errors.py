"""Errors of failed runs: at the end of the log of each run, and once for each cause in the engine's log."""

from __future__ import annotations

from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from structlog.testing import capture_logs

from engine.executors import run_errors
from engine.executors.logs import LogFiles
from engine.executors.pool import Pool
from engine.logs import causes
from engine.logs.feed import FunctionLines, LogBoard
from engine.logs.lines import TAIL, decode, plain
from engine.model import Mode
from tests.support.executing import SOURCE as BASIC
from tests.support.executing import function, invocation, pool
from tests.support.instances import begin

SOURCE = (
    BASIC
    + """

def price(name):
    raise LookupError("no price of " + name)


def handler(event, context):
    print("looking for", event)
    price(event)


def long(event, context):
    print("x" * 9000)
    price(event)


def deep(event, context):
    return deep(event, context)


def leaves(event, context):
    os._exit(3)


def bursts(event, context):
    bytearray(1 << 60)


def hangs(event, context):
    time.sleep(600)


def unable(context):
    price("anything")
"""
)


def errors(log: bytes) -> list[str]:
    return [line.text for line in decode(log) if line.stream == "error"]


async def test_the_log_of_a_failed_run_ends_with_type_message_frames_and_request_id(tmp_path: Path) -> None:
    board, seen, asked = LogBoard(), list[FunctionLines](), invocation('"tea"')
    async with pool(tmp_path, SOURCE, board=board) as opened:
        with board.subscribed(seen.append, function_id=1):
            outcome = await opened.execute(function("handler"), asked)

    file, line = tmp_path / "code" / "index.py", SOURCE.split("\n").index("def price(name):") + 2
    message = "function invocation exception, error: LookupError: no price of tea"
    assert plain(outcome.log).decode().splitlines() == [
        "looking for tea",
        f"request {asked.request_id} failed with 4002: {message}",
        f'  File "{file}", line {line + 5}, in handler',
        "    price(event)",
        f'  File "{file}", line {line}, in price',
        '    raise LookupError("no price of " + name)',
    ]
    assert [line for batch in seen for line in batch.lines] == list(decode(outcome.log))
    assert {batch.request_id for batch in seen} == {asked.request_id}


@pytest.mark.parametrize(
    ("handler", "fields", "error"),
    [
        ("hangs", {"timeout": 1}, "failed with 4010: Invoke function timeout: it ran longer than the 1 s allowed"),
        ("leaves", {}, "failed with 4002: function invocation exception, error: the process exited with status 3"),
        ("bursts", {}, "failed with 4205: function memory exceeded, error: MemoryError"),
        ("handler", {"initializer_handler": "index.unable"}, "failed with 4009: function initialization exception"),
        ("missing", {}, "failed with 4001: function entry exception, error: "),
        ("handler", {"runtime": "Cobol"}, "failed with 4001: function entry exception, error: "),
    ],
)
@pytest.mark.parametrize("mode", Mode)
async def test_each_way_to_fail_is_in_a_log(
    opened: Pool, handler: str, fields: dict[str, Any], error: str, mode: Mode
) -> None:
    asked = invocation('"tea"', mode=mode)

    outcome = await opened.execute(function(handler, **fields), asked)

    kept = outcome.log if mode is Mode.ASYNC else await opened.instance_log(1)
    assert [text for text in errors(kept) if f"request {asked.request_id} {error}" in text] != [], kept


async def test_the_log_of_a_failed_synchronous_call_is_kept_with_its_function(opened: Pool, tmp_path: Path) -> None:
    outcome = await opened.execute(function("long"), invocation('"tea"', mode=Mode.SYNC))

    def check(log: bytes) -> None:
        lines = list(decode(log))
        assert lines[0].text[-9:] == "x" * 9
        assert len(outcome.log) == TAIL
        assert log.startswith(outcome.log)
        assert errors(log)[0].endswith("LookupError: no price of tea")

    assert errors(outcome.log) == []  # the reply to the caller has it, as the platform documents
    check(await opened.instance_log(1))
    await opened.close()
    check(LogFiles(tmp_path / "logs", 1 << 20).read_instances(1))


async def test_a_cancelled_run_says_so_in_its_log_and_not_in_that_of_the_engine(opened: Pool, tmp_path: Path) -> None:
    running, _ = await begin(opened, tmp_path)
    with capture_logs() as logged:
        opened.cancel(running.invocation.key)
        outcome = await running.outcome

    assert errors(outcome.log) == [
        f"request {running.invocation.request_id} failed with 4208: the invocation was cancelled"
    ]
    assert logged == []


async def test_the_engines_log_has_a_line_for_each_function_and_cause_a_minute(
    opened: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(times: int, handler: str = "handler", **fields: Any) -> None:
        for _ in range(times):
            await opened.execute(function(handler, **fields), invocation('"tea"'))

    with capture_logs() as logged:
        await fail(3)
        await fail(2, "deep")
        await fail(2, function_id=2, name="other")
        later = monotonic() + causes.SPAN + 1
        monkeypatch.setattr(causes, "monotonic", lambda: later)
        await fail(2)

    problems = [(entry["function"], entry["problem"].split(", error: ")[1].split(":")[0]) for entry in logged]
    first = ("handler", "LookupError")
    assert problems == [first, ("deep", "RecursionError"), ("other", "LookupError"), first]
    assert logged[0]["code"] == 4002
    assert logged[0]["request_id"]


async def test_causes_and_lines_in_memory_are_bounded(
    opened: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(causes, "CAUSES", 2)
    monkeypatch.setattr(run_errors, "FUNCTIONS", 2)
    with capture_logs() as logged:
        for number in range(1, 6):
            asked = invocation('"tea"', mode=Mode.SYNC)
            await opened.execute(function("handler", function_id=number), asked)
            assert len(opened._errors._kept) <= 2

    await opened.close()
    files = LogFiles(tmp_path / "logs", 1 << 20)
    assert [len(errors(files.read_instances(number))) > 0 for number in range(1, 6)] == [True] * 5
    assert len(logged) == 2
