"""Progress that handlers report: shown while they run, kept with the outcome, cheap in a tight loop."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from engine.executors.pool import Pool
from engine.model import Code, Function
from tests.support.executing import function, invocation, launched
from tests.support.programs import program
from tests.support.triggering import until

SOURCE = """
import asyncio, os, time


def stepping(event, context):
    context.report_progress(0.25, "one of four")
    while not os.path.exists(event):
        time.sleep(0.01)
    context.report_progress(1)
    return "done"


async def stepping_async(event, context):
    context.report_progress(0.25, "one of four")
    while not os.path.exists(event):
        await asyncio.sleep(0.01)
    context.report_progress(1)
    return "done"


def failing(event, context):
    context.report_progress(0.5, "half \\udc80 " + "x" * 300)
    raise ValueError("no more")


def tight(event, context):
    for number in range(20001):
        context.report_progress(number / 20000, "step %d" % number)


def wrong(event, context):
    refused = []
    for fraction in (-0.1, 1.1, float("nan"), "much"):
        try:
            context.report_progress(fraction)
        except ValueError as error:
            refused.append(str(error))
    return "; ".join(refused)


def forking(event, context):
    if os.fork() == 0:
        context.report_progress(0.9, "of a fork")
        os._exit(0)
    os.wait()
"""

NODE = """
const { existsSync } = require("node:fs");
exports.stepping = async (event, context) => {
  context.reportProgress(0.25, "one of four");
  while (!existsSync(event)) await new Promise((resolve) => setTimeout(resolve, 10));
  context.reportProgress(1);
  return "done";
};
exports.tight = async (event, context) => {
  for (let number = 0; number <= 20000; number += 1) context.reportProgress(number / 20000, `step ${number}`);
};
exports.wrong = async (event, context) => { context.reportProgress(NaN); };
"""


pytestmark = pytest.mark.timeout(60)


def node(handler: str) -> Function:
    program("node")
    return function(handler, runtime="Node.js18.15")


@pytest.mark.parametrize(
    ("handler", "concurrency"),
    [("stepping", 1), ("stepping", 2), ("stepping_async", 1), ("stepping_async", 2), ("node", 1)],
)
async def test_progress_is_shown_while_the_handler_runs(
    opened: Pool, tmp_path: Path, handler: str, concurrency: int
) -> None:
    asked = node("stepping") if handler == "node" else function(handler, concurrent_num=concurrency)
    go = tmp_path / "go"
    request = invocation(f'"{go}"')
    task = asyncio.ensure_future(opened.execute(asked, request))
    await until(lambda: task.done() or opened.progress(request.key) is not None)

    assert opened.progress(request.key) == (0.25, "one of four")
    go.touch()
    outcome = await task
    assert (outcome.result, outcome.progress, outcome.note) == (b"done", 1.0, "")
    assert opened.progress(request.key) is None


async def test_a_failed_attempt_keeps_its_progress_with_a_storable_note(opened: Pool) -> None:
    outcome = await opened.execute(function("failing"), invocation())

    assert (outcome.code, outcome.progress) == (Code.USER_EXCEPTION, 0.5)
    assert outcome.note == "half ? " + "x" * 193


async def test_without_a_report_there_is_no_progress(opened: Pool) -> None:
    outcome = await opened.execute(function("forking"), invocation())

    assert (outcome.code, outcome.progress, outcome.note) == (Code.OK, None, "")


@pytest.mark.parametrize("runtime", ["python", "node"])
async def test_reports_in_a_tight_loop_send_little_and_keep_the_last(
    opened: Pool, monkeypatch: pytest.MonkeyPatch, runtime: str
) -> None:
    asked = node("tight") if runtime == "node" else function("tight")
    assert (await opened.execute(asked, invocation())).ok
    sent: list[int] = []
    channel = launched(opened).channel
    received = channel._owner.received

    def count(data: bytes) -> None:
        sent.append(len(data))
        received(data)

    monkeypatch.setattr(channel._owner, "received", count)

    outcome = await opened.execute(asked, invocation())

    assert (outcome.progress, outcome.note) == (1.0, "step 20000")
    assert 0 < sum(sent) < 20_000  # a frame has about 25 bytes; all together have 500,000


async def test_a_fraction_that_is_none_is_refused_in_the_handler(opened: Pool) -> None:
    outcome = await opened.execute(function("wrong"), invocation())
    texts = outcome.result.decode().split("; ")

    assert texts[:3] == [f"the progress is a fraction from 0 to 1, not {value}" for value in ("-0.1", "1.1", "nan")]
    assert len(texts) == 4
    assert "not NaN" in (await opened.execute(node("wrong"), invocation())).message
