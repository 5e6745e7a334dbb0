"""End of handlers whose request is cancelled or runs too long: notice, signal, grace period, kill."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from engine.executors.local.choice import IsolationOptions
from engine.executors.pool import Pool
from engine.logs.lines import plain
from engine.model import Code, Function, Outcome
from tests.support.executing import exit_of, function, invocation, is_alive, output, pool
from tests.support.programs import needs
from tests.support.triggering import until

SOURCE = """
import asyncio, os, signal, subprocess, time

SHELL = 'trap "echo child told; exit 7" TERM; echo began; while :; do sleep 0.01; done'


def plain(event, context):
    try:
        print("began")
        time.sleep(600)
    finally:
        print("cleaned up")


def heeding(event, context):
    heard = []

    @context.on_cancel
    def told(reason):
        print("told", reason)
        heard.append(reason)

    print("began")
    while not (context.cancelled and heard):
        time.sleep(0.01)
    print("ends,", context.cancel_reason)
    return "the answer"


def raising(event, context):
    @context.on_cancel
    def told(reason):
        raise RuntimeError("told " + reason)

    try:
        print("began")
        time.sleep(600)
    except RuntimeError as error:
        print(error)


def handling(event, context):
    signal.signal(signal.SIGTERM, lambda number, frame: print("SIGTERM"))
    print("began")
    while not context.cancel_reason:
        time.sleep(0.01)
    print("ends")


def ignoring(event, context):
    lines = [str(os.getpid()), "began"]
    while True:
        try:
            while lines:
                print(lines.pop(0))
            time.sleep(600)
        except BaseException:
            print("ignores", context.cancel_reason)


def leaving(event, context):
    signal.signal(signal.SIGURG, signal.SIG_IGN)
    print("began")
    while not os.path.exists(event):
        time.sleep(0.01)
    os._exit(3)


def parent(event, context):
    context.on_cancel(print)
    child = subprocess.run(["sh", "-c", SHELL])
    print("child ended with", child.returncode)


async def shared(event, context):
    try:
        print("began")
        await asyncio.sleep(600 if event is None else 0.3)
        return os.getpid()
    finally:
        print("cleaned up")


def threaded(event, context):
    print("began")
    while not context.cancelled:
        time.sleep(0.01)
        if event is not None and os.path.exists(event):
            return os.getpid()
    print("ends,", context.cancel_reason)
"""

NODE = """
const log = (...words) => console.log(...words);
exports.aborted = async (event, context) => {
  log("began");
  await new Promise((resolve) => context.signal.addEventListener("abort", resolve));
  log("aborted", context.signal.reason.code, context.cancelled);
};
exports.calledBack = (event, context, callback) => {
  context.onCancel((reason) => { log("told", reason); callback(null, 1); });
  log("began");
};
exports.handling = (event, context, callback) => {
  process.on("SIGTERM", () => { log("SIGTERM", context.cancelReason); callback(null, 1); });
  log("began");
};
exports.waiting = async (event, context) => { log("began"); await new Promise(() => setTimeout(() => {}, 600000)); };
exports.one = async (event, context) => {
  log("began");
  if (event !== null) return await new Promise((resolve) => setTimeout(resolve, 300, process.pid));
  await new Promise((resolve) => context.onCancel(resolve));
  log("ends");
};
"""

BOOTSTRAP = """#!/bin/sh
trap 'echo told; exit 0' TERM
wget -q -O /dev/null "http://$RUNTIME_API_ADDR/v1/runtime/invocation/request" || exit 9
echo began
while :; do sleep 0.01; done
"""

PARENT = ["cancelled", "child ended with 7", "child told"]
pytestmark = pytest.mark.timeout(60)
LONG = 600.0  #: seconds of a grace period that is never over in these tests
POOL = {"term_grace": LONG}


async def begin(opened: Pool, asked: Function, event: Any = None) -> tuple[int, asyncio.Task[Outcome]]:
    """Start an attempt. Return its key and its task when its handler runs."""
    request = invocation(json.dumps(event))
    task = asyncio.ensure_future(opened.execute(asked, request))

    def runs() -> bool:
        call = opened._running.get(request.key)
        return task.done() or (call is not None and b"began" in call.written().whole())

    await until(runs)
    return request.key, task


async def cancelled(opened: Pool, asked: Function, event: Any = None) -> str:
    """Cancel an attempt whose handler runs. Return its log after "began"."""
    key, task = await begin(opened, asked, event)
    assert opened.cancel(key)
    outcome = await task
    assert outcome.code == Code.CANCELLED, outcome
    return after_begin(outcome)


async def cancelled_lines(opened: Pool, asked: Function) -> list[str]:
    """Return the lines in any order: a pipe and frames bring them. Shells report the processes that were terminated."""
    return sorted(line for line in (await cancelled(opened, asked)).splitlines() if line != "Terminated")


def after_begin(outcome: Outcome) -> str:
    return output(outcome).partition("began\n")[2]


NODE_RUNTIME = {"runtime": "Node.js18.15"}


@pytest.mark.parametrize(
    ("handler", "fields", "lines"),
    [
        ("plain", {}, ["cleaned up"]),
        ("shared", {}, ["cleaned up"]),
        ("shared", {"concurrent_num": 2}, ["cleaned up"]),
        ("heeding", {}, ["ends, cancelled", "told cancelled"]),
        ("heeding", {"concurrent_num": 2}, ["ends, cancelled", "told cancelled"]),
        ("raising", {}, ["told cancelled"]),
        ("handling", {}, ["SIGTERM", "ends"]),
        ("parent", {}, PARENT),
        pytest.param("aborted", NODE_RUNTIME, ["aborted cancelled true"], marks=needs("node")),
        pytest.param("calledBack", NODE_RUNTIME, ["told cancelled"], marks=needs("node")),
        pytest.param("handling", NODE_RUNTIME, ["SIGTERM cancelled"], marks=needs("node")),
        pytest.param("waiting", NODE_RUNTIME, [], marks=needs("node")),
    ],
)
async def test_a_cancelled_handler_is_told_and_cleans_up(
    opened: Pool, handler: str, fields: dict[str, Any], lines: list[str]
) -> None:
    """Handlers end by an exception, by their own decision, by a signal, or with processes that they started."""
    assert await cancelled_lines(opened, function(handler, **fields)) == lines


@pytest.mark.parametrize(
    ("handler", "lines"),
    [("plain", "cleaned up\n"), ("shared", "cleaned up\n"), ("heeding", "told timeout\nends, timeout\n")],
)
async def test_a_handler_that_runs_too_long_is_told_and_cleans_up(opened: Pool, handler: str, lines: str) -> None:
    outcome = await opened.execute(function(handler, timeout=1), invocation("null"))

    assert (outcome.code, after_begin(outcome)) == (Code.TIMEOUT, lines)
    assert b"the answer" not in outcome.result
    assert "longer than the 1 s allowed" in outcome.message


async def test_a_repeated_cancel_does_not_tell_the_handler_again(opened: Pool) -> None:
    key, task = await begin(opened, function("heeding"))
    assert opened.cancel(key)
    assert opened.cancel(key)

    assert after_begin(await task) == "told cancelled\nends, cancelled\n"


async def test_a_handler_that_does_not_end_is_killed_after_the_grace_period(tmp_path: Path) -> None:
    async with pool(tmp_path, SOURCE, term_grace=0.2) as opened:
        key, task = await begin(opened, function("ignoring"))
        assert opened.cancel(key)
        outcome = await task
        pid = int(plain(outcome.log).split()[0])
        await exit_of(pid)

    assert outcome.code == Code.CANCELLED


async def test_without_a_grace_period_the_instance_is_killed_at_once(tmp_path: Path) -> None:
    async with pool(tmp_path, SOURCE, term_grace=0.0) as opened:
        assert await cancelled(opened, function("plain")) == ""


async def test_an_attempt_whose_instance_exits_before_it_reads_the_notice_is_not_repeated(
    opened: Pool, tmp_path: Path
) -> None:
    key, task = await begin(opened, function("leaving"), str(tmp_path / "leave"))
    assert opened.cancel(key)
    (tmp_path / "leave").touch()

    outcome = await task
    assert (outcome.code, opened.statistics().started) == (Code.CANCELLED, 1)


@pytest.mark.parametrize("concurrency", [1, 2])
async def test_a_cancel_that_arrives_with_the_request_ends_it(opened: Pool, concurrency: int) -> None:
    asked = function("shared", concurrent_num=concurrency)
    assert (await opened.execute(asked, invocation("1"))).ok
    request = invocation("null")
    task = asyncio.ensure_future(opened.execute(asked, request))
    await asyncio.sleep(0)  # the request is sent, and certainly not read yet
    assert opened.cancel(request.key)

    assert (await task).code == Code.CANCELLED


@pytest.mark.parametrize("handler", ["shared", "threaded", pytest.param("index.one", marks=needs("node"))])
async def test_only_the_cancelled_one_of_several_requests_ends(opened: Pool, tmp_path: Path, handler: str) -> None:
    node = {"runtime": "Node.js18.15"} if handler == "index.one" else {}
    asked = function(handler, concurrent_num=2, **node)
    first, ended = await begin(opened, asked)
    _, other = await begin(opened, asked, str(tmp_path / "leave"))
    assert opened.cancel(first)
    assert (await ended).code == Code.CANCELLED
    (tmp_path / "leave").touch()
    outcome = await other

    assert (outcome.code, opened.statistics().alive) == (Code.OK, 1)
    assert is_alive(int(outcome.result))


async def test_the_others_end_with_one_that_does_not_end_in_time(tmp_path: Path) -> None:
    async with pool(tmp_path, SOURCE, term_grace=0.2) as opened:
        asked = function("plain", concurrent_num=2)
        first, ended = await begin(opened, asked)
        _, other = await begin(opened, asked)
        assert opened.cancel(first)
        outcomes = [await ended, await other]

    assert [outcome.code for outcome in outcomes] == [Code.CANCELLED] * 2
    assert "so was another" in outcomes[1].message


@needs("bwrap")
async def test_a_cancelled_handler_in_a_sandbox_cleans_up(tmp_path: Path) -> None:
    async with pool(tmp_path, SOURCE, term_grace=LONG, sandbox=IsolationOptions(isolation="bubblewrap")) as opened:
        assert await cancelled(opened, function("plain")) == "cleaned up\n"
        assert await cancelled_lines(opened, function("parent")) == PARENT


async def test_a_bootstrap_gets_the_signal(opened: Pool, tmp_path: Path) -> None:
    bootstrap = tmp_path / "code" / "bootstrap"
    bootstrap.write_text(BOOTSTRAP)
    bootstrap.chmod(0o755)

    assert await cancelled_lines(opened, function("a.b", runtime="Custom")) == ["told"]
