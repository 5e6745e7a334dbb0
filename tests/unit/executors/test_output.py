"""Stdout and stderr of an instance."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from engine.executors.local.channel import Output
from engine.executors.logs import LogFiles, Written, log_file
from engine.executors.pool import Pool
from engine.logs.lines import STDERR, STDOUT, decode, plain
from engine.model import Mode
from engine.model.retry import HISTORY
from tests.support.executing import function, invocation, pool

SOURCE = """
import os, time


def say(event, context):
    print(event, end="")
    return "said"


def spill(event, context):
    block = event["letter"].encode() * (1 << 20)
    for _ in range(event["blocks"]):
        os.write(1, block)
    return "done"
"""


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Pool]:
    async with pool(tmp_path, SOURCE) as opened:
        yield opened


Said = list[tuple[int, bytes]]


@pytest.fixture
async def raw() -> AsyncIterator[tuple[Output, int, int, Said]]:
    """Yield an output, the descriptors that feed its stdout and stderr, and the list of lines it reported."""
    (stdout, to_stdout), (stderr, to_stderr) = os.pipe(), os.pipe()
    os.set_blocking(stdout, False)
    os.set_blocking(stderr, False)
    said: Said = []
    output = Output(stdout, stderr, lambda stream, text: said.append((stream, text)), asyncio.get_running_loop())
    yield output, to_stdout, to_stderr, said
    output.close()
    os.close(to_stdout)
    os.close(to_stderr)


async def test_raw_output_comes_with_its_stream_and_in_whole_lines(raw: tuple[Output, int, int, Said]) -> None:
    output, stdout, stderr, said = raw
    os.write(stdout, b"a line\nan unfin")
    os.write(stderr, b"an error\n")
    for pipe in output._pipes:
        pipe._read()
    os.write(stdout, b"ished one\n")
    output.drain()

    assert said == [(STDOUT, b"a line\n"), (STDERR, b"an error\n"), (STDOUT, b"an unfinished one\n")]


async def test_output_written_before_the_end_is_read_at_the_end(raw: tuple[Output, int, int, Said]) -> None:
    output, stdout, _, said = raw
    os.write(stdout, b"unfinished")

    output.close()

    assert said == [(STDOUT, b"unfinished")]


async def test_short_output_is_in_the_outcome_only(opened: Pool, tmp_path: Path) -> None:
    asked = invocation('"hello"')

    outcome = await opened.execute(function("say"), asked)

    assert plain(outcome.log) == b"hello\n"
    assert not (tmp_path / "logs").exists()


async def test_long_output_is_whole_in_a_file_and_its_tail_in_the_outcome(opened: Pool, tmp_path: Path) -> None:
    lines = [str(number) for number in range(2000)]
    text = "\n".join(lines)
    asked = invocation(json.dumps(text))

    outcome = await opened.execute(function("say"), asked)

    whole = log_file(tmp_path / "logs", asked.function_id, asked.request_id).read_bytes()
    assert [line.text for line in decode(whole)] == lines
    assert whole.endswith(outcome.log[16:])
    assert 4096 - 16 <= len(outcome.log) <= 4096


async def test_of_a_synchronous_call_only_the_tail_is_kept(opened: Pool, tmp_path: Path) -> None:
    outcome = await opened.execute(function("say"), invocation(json.dumps("x" * 9000), mode=Mode.SYNC))

    assert len(outcome.log) == 4096
    assert not (tmp_path / "logs").exists()


async def test_an_attempt_after_a_crash_replaces_the_log_of_the_interrupted_one(opened: Pool, tmp_path: Path) -> None:
    asked = invocation('"short"', attempt=2, start_crashes=1)
    file, first = (log_file(tmp_path / "logs", asked.function_id, asked.request_id, attempt) for attempt in (2, 1))
    file.parent.mkdir(parents=True)
    for path in (file, first):
        path.write_text("before the crash")

    await opened.execute(function("say"), asked)

    assert (file.exists(), first.exists()) == (False, True)


def test_the_files_of_all_attempts_go_with_their_invocation(tmp_path: Path) -> None:
    request_id = "00000000-0000-7000-8000-000000000000"
    files, written = LogFiles(tmp_path, 1 << 20), Written(b"x" * 5_000, 0)
    for attempt in (1, 2, HISTORY + 1, HISTORY + 2):
        files.keep(1, request_id, written, attempt)
    kept = sorted(file.suffix for file in tmp_path.glob("*/*"))

    files.remove([(1, request_id)], {request_id: HISTORY + 3})

    assert (kept, list(tmp_path.glob("*/*"))) == ([f".{HISTORY + 1}", f".{HISTORY + 2}"], [])


async def test_a_gigabyte_of_output_neither_blocks_the_function_nor_grows_the_engine(tmp_path: Path) -> None:
    async with pool(tmp_path, SOURCE, log_size=100_000) as opened:
        asked = invocation('{"letter": "x", "blocks": 1024}')
        before = _start_to_measure_the_peak()

        outcome = await opened.execute(function("spill", timeout=100), asked)

        grown = _peak() - before
        note, _, rest = log_file(tmp_path / "logs", asked.function_id, asked.request_id).read_bytes().partition(b"\n")
    assert (outcome.result, len(rest), grown < 20 << 10) == (b"done", 100_000, True)
    assert re.fullmatch(rb"\d{13} n \[10\d{8} bytes before this were dropped\]", note)


def _start_to_measure_the_peak() -> int:
    Path("/proc/self/clear_refs").write_text("5")
    return _peak()


def _peak() -> int:
    """Return the peak memory of this process in KiB."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1])


async def test_a_log_that_cannot_be_written_costs_no_result(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file where the folder should be")
    async with pool(tmp_path, SOURCE) as opened:
        outcome = await opened.execute(function("spill"), invocation('{"letter": "x", "blocks": 1}'))

    assert (outcome.result, outcome.log[16:]) == (b"done", b"x" * 4079 + b"\n")


def test_files_of_logs_have_a_bound_together_and_the_oldest_go(tmp_path: Path) -> None:
    files, written = LogFiles(tmp_path, 25_000), Written(b"x" * 5_000, 0)
    ids = [f"00000000-00{number}0-7000-8000-000000000000" for number in range(7)]
    for age, request_id in enumerate(ids):
        files.keep(1, request_id, written)
        os.utime(log_file(tmp_path, 1, request_id), (age, age))

    assert [files.read(1, request_id) is not None for request_id in ids] == [False] * 2 + [True] * 5


def test_files_from_before_count_as_well(tmp_path: Path) -> None:
    old, new = (f"00000000-00{number}0-7000-8000-000000000000" for number in range(2))
    LogFiles(tmp_path, 1 << 20).keep(1, old, Written(b"x" * 9_000, 0))
    os.utime(log_file(tmp_path, 1, old), (1, 1))
    files = LogFiles(tmp_path, 10_000)

    files.keep(1, new, Written(b"x" * 5_000, 0))

    assert (files.read(1, old), files.read(1, new)) == (None, b"x" * 5_000)


def test_a_project_with_many_log_files_loses_its_own(tmp_path: Path) -> None:
    files, written = LogFiles(tmp_path, 35_000), Written(b"x" * 5_000, 0)
    files.project_of = {1: "small", 2: "large", 3: "large"}.get  # type: ignore[assignment]
    ids = [f"00000000-00{number}0-7000-8000-000000000000" for number in range(9)]
    for age, (function_id, request_id) in enumerate(zip((1, 1, 2, 3, 2, 3, 2, 3, 2), ids, strict=True)):
        files.keep(function_id, request_id, written)
        os.utime(log_file(tmp_path, function_id, request_id), (age, age))

    left = {f: len(list(tmp_path.glob(f"r{f}/*"))) for f in (1, 2, 3)}
    assert (left[1], left[2] + left[3]) == (2, 5)


def test_log_files_of_an_earlier_engine_are_read_replaced_and_deleted(tmp_path: Path) -> None:
    files, request_id = LogFiles(tmp_path, 1 << 20), "00000000-00a1-7000-8000-000000000000"
    (tmp_path / "a1").mkdir()
    (tmp_path / "a1" / request_id).write_bytes(b"before")
    assert files.read(1, request_id) == b"before"

    files.keep(1, request_id, Written(b"x" * 5_000, 0))
    assert [file.parent.name for file in tmp_path.glob("*/*")] == ["a1"]
    files.remove([(1, request_id)], {})

    assert list(tmp_path.glob("*/*")) == []
