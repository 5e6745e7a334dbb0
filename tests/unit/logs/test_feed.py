"""Subscriptions to function logs, and the bound on lines that wait for a slow reader."""

from __future__ import annotations

import asyncio
from pathlib import Path

import anyio
from anyio.abc import TaskStatus

from engine.app.lifecycle import run_engine
from engine.code.store import NO_CODE, CodeSource
from engine.http.live_logs import Batch, LogQueue
from engine.logs.feed import LINE, FunctionLines, LogBoard
from engine.logs.lines import STDOUT, Line, encode
from engine.model import Mode, Request
from engine.model.urn import parse_urn
from engine.protocols import Plugin, PluginContext
from tests.support.executing import function, invocation
from tests.support.http_app import encoded
from tests.support.triggering import settings_of


def said(text: str, request_id: str = "r") -> FunctionLines:
    return FunctionLines(function=function("f"), request_id=request_id, lines=(Line(1.0, "stdout", text),))


def test_a_listener_gets_lines_of_one_function_or_of_all() -> None:
    board, heard = LogBoard(), list[tuple[str, str]]()
    mine, other = function("mine", function_id=1), function("other", function_id=2)
    with (
        board.subscribed(lambda told: heard.append(("one", told.lines[0].text)), function_id=1),
        board.subscribed(lambda told: heard.append(("all", told.lines[0].text))),
    ):
        board.publish(mine, None, encode(1, STDOUT, b"x"))
        board.publish(other, None, encode(1, STDOUT, b"y"))
    board.publish(mine, None, encode(1, STDOUT, b"z"))

    assert heard == [("one", "x"), ("all", "x"), ("all", "y")]


def test_a_listener_gets_the_cause_of_a_run() -> None:
    board, heard = LogBoard(), list[tuple[str, str, int]]()
    run = invocation(source="LTS", hops=3)
    with board.subscribed(lambda told: heard.append((told.request_id, told.source, told.hops))):
        board.publish(function("f"), run, encode(1, STDOUT, b"x"))
        board.publish(function("f"), None, encode(1, STDOUT, b"of the instance"))

    assert heard == [(run.request_id, "LTS", 3), ("", "", 0)]


def test_a_failing_listener_affects_no_other() -> None:
    board, heard = LogBoard(), list[FunctionLines]()

    def fail(told: FunctionLines) -> None:
        raise RuntimeError

    with board.subscribed(fail), board.subscribed(heard.append):
        board.publish(function("f"), None, encode(1, STDOUT, b"x"))

    assert len(heard) == 1


async def passed_on(queue: LogQueue) -> tuple[list[str], list[bytes]]:
    """Return the texts of the lines in a queue that has ended, and what the queue itself has written."""
    texts, written = list[str](), list[bytes]()

    async def send(batch: Batch) -> None:
        texts.append(batch.lines[0].text)

    async def write(piece: bytes) -> None:
        written.append(piece)

    await queue.pass_on(write, send)
    return texts, written


async def test_of_what_a_slow_reader_leaves_the_oldest_goes() -> None:
    queue = LogQueue(limit=10 + 2 * LINE)
    for text in ("12345", "67890", "abc"):
        queue.put(said(text))
    queue.end()

    assert await passed_on(queue) == (["67890", "abc"], [b'event: dropped\ndata: {"lines":1}\n\n'])


async def test_a_queue_takes_the_lines_of_its_request_and_ends() -> None:
    queue = LogQueue("mine")
    queue.put(said("x", "another"))
    queue.put(said("y", "mine"))
    queue.end()

    assert await passed_on(queue) == (["y"], [])


class Ears:
    """Plugin service that subscribes to all lines."""

    def __init__(self) -> None:
        self.heard = asyncio.Queue[FunctionLines]()

    async def run(self, context: PluginContext, *, task_status: TaskStatus[None]) -> None:
        with context.logs.subscribed(self.heard.put_nowait):
            task_status.started()
            await anyio.sleep_forever()


async def test_a_plugin_gets_the_output_of_functions(tmp_path: Path) -> None:
    ears = Ears()
    plugin = Plugin(kinds=("EARS",), serve=lambda settings: ears)
    async with run_engine(settings_of(tmp_path), plugins=[plugin]) as engine:
        said = "def handler(event, context):\n    print(event)\n"
        await engine.catalog.create(
            function("index.handler", name="loud", code=NO_CODE),
            CodeSource(kind="inline", file=encoded(said)),
        )
        urn = parse_urn("loud", region="local-1", project="p")
        request_id, _, _ = await engine.intake.call(Request(function=urn, payload=b'"aloud"', mode=Mode.SYNC))
        told = await ears.heard.get()

    assert (told.function.name, told.request_id, told.lines[0].text) == ("loud", request_id, "aloud")
