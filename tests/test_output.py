"""What becomes of an instance's stdout and stderr."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from engine.executors.output import Output, Written, framed_log, log_file
from engine.executors.pool import Pool
from tests.executing import function, invocation, pool

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


@pytest.fixture
async def pipe() -> AsyncIterator[tuple[Output, int]]:
    """Output with a limit of 100,000 bytes, and where to write."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    output = Output(reading, 100_000, asyncio.get_running_loop())
    yield output, writing
    output.close()
    os.close(writing)


async def test_what_was_written_before_the_end_can_be_taken_after_it(pipe: tuple[Output, int]) -> None:
    output, writing = pipe
    os.write(writing, b"last words")

    output.close()

    assert output.take() == Written(b"last words", 0)


async def test_the_newest_bytes_are_kept_and_the_others_counted(pipe: tuple[Output, int]) -> None:
    output, writing = pipe
    for letter in b"abcdefghij":
        os.write(writing, bytes([letter]) * 50_000)
        output._read()

    assert output.take() == Written(b"i" * 50_000 + b"j" * 50_000, 400_000)
    assert output.take() == Written(b"", 0)


async def test_short_output_is_in_the_outcome_only(opened: Pool, tmp_path: Path) -> None:
    asked = invocation('"hello"')

    outcome = await opened.execute(function("say"), asked)

    assert outcome.log == b"hello"
    assert not (tmp_path / "logs").exists()


async def test_long_output_is_whole_in_a_file_and_its_tail_in_the_outcome(opened: Pool, tmp_path: Path) -> None:
    text = "".join(f"{number}\n" for number in range(2000))
    asked = invocation(json.dumps(text))

    outcome = await opened.execute(function("say"), asked)

    assert outcome.log == text[-4096:].encode()
    assert log_file(tmp_path / "logs", asked.request_id).read_text() == text


async def test_a_second_attempt_replaces_the_log_of_the_first(opened: Pool, tmp_path: Path) -> None:
    asked = invocation('"short"', attempt=2)
    file = log_file(tmp_path / "logs", asked.request_id)
    file.parent.mkdir(parents=True)
    file.write_text("of the first attempt")

    await opened.execute(function("say"), asked)

    assert not file.exists()


async def test_a_gigabyte_of_output_neither_blocks_the_function_nor_grows_the_engine(tmp_path: Path) -> None:
    async with pool(tmp_path, SOURCE, log_size=100_000) as opened:
        asked = invocation('{"letter": "x", "blocks": 1024}')
        before = _start_to_measure_the_peak()

        outcome = await opened.execute(function("spill", timeout=100), asked)

        grown = _peak() - before
        note, _, rest = log_file(tmp_path / "logs", asked.request_id).read_bytes().partition(b"\n")
    assert (outcome.result, len(rest), grown < 20 << 10) == (b"done", 100_000, True)
    assert note.decode() == f"[{(1 << 30) - 100_000} bytes before this were dropped]"


def _start_to_measure_the_peak() -> int:
    Path("/proc/self/clear_refs").write_text("5")
    return _peak()


def _peak() -> int:
    """KiB of memory that this process had at most."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1])


async def test_a_log_that_cannot_be_written_costs_no_result(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file where the folder should be")
    async with pool(tmp_path, SOURCE) as opened:
        outcome = await opened.execute(function("spill"), invocation('{"letter": "x", "blocks": 1}'))

    assert (outcome.result, outcome.log) == (b"done", b"x" * 4096)


def test_a_log_is_framed_as_documented() -> None:
    text = framed_log(b"a line", request_id="id", version="v1", seconds=0.065828, memory_used=22516072, memory_size=128)

    assert text.decode().splitlines() == [
        "Start invoke request 'id', version: v1",
        "a line",
        "Finish invoke request 'id', duration: 65.828ms, billing duration: 66ms, "
        "memory used: 21.473MB, billing memory: 128MB",
    ]
