"""Python worker that serves several requests at a time, driven frame by frame."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.model import Code
from tests.support.python_process import VERSIONS, Line, PythonProcess, interpreter

#: Handlers that end only when a given number of requests run together, so that their order is fixed.
ASYNC = """
import asyncio, logging
here, together = 0, asyncio.Event()
logging.basicConfig(format="%(message)s", level="INFO")


async def handler(event, context):
    global here
    print("first", event, end=" ")
    here += 1
    if here == 3:
        together.set()
    await together.wait()
    logging.info("logging %s", event)
    await asyncio.get_running_loop().run_in_executor(None, print, "executor", event)
    await asyncio.create_task(task(event))
    context.getLogger().info("logger %s", event)
    if event == "b":
        raise ValueError(event)
    return event


async def task(event):
    print("task", event)
"""
PLAIN = """
import asyncio, logging, threading
together = threading.Barrier(3)
logging.basicConfig(format="%(message)s", level="INFO")


def handler(event, context):
    print("first", event, end=" ")
    together.wait(20)
    logging.info("logging %s", event)
    thread = threading.Thread(target=print, args=("executor", event))
    thread.start()
    thread.join()
    context.getLogger().info("logger %s", event)
    if event == "b":
        raise ValueError(event)
    return later(event)


async def later(event):
    await asyncio.sleep(0)
    print("task", event)
    return event
"""


@pytest.mark.parametrize("source", [ASYNC, PLAIN], ids=["async", "plain"])
@pytest.mark.parametrize("version", VERSIONS)
async def test_requests_at_a_time_keep_their_answers_and_their_lines_apart(
    tmp_path: Path, version: str, source: str
) -> None:
    with PythonProcess(tmp_path, source, python=await interpreter(version), concurrency=3) as instance:
        for ticket, event in ((7, "a"), (8, "b"), (9, "c")):
            instance.ask(event, ticket)
        answers = {answer.ticket: answer for answer in (instance.answer() for _ in range(3))}

    assert {ticket: answer.code for ticket, answer in answers.items()} == {7: 0, 8: Code.USER_EXCEPTION, 9: 0}
    assert [answers[7].result, json.loads(answers[8].result)["errorMessage"], answers[9].result] == [b"a", "b", b"c"]
    for ticket, event in ((7, "a"), (8, "b"), (9, "c")):
        words = {word for line in instance.lines if line.ticket == ticket for word in line.text.split()}
        assert words >= {"first", "logging", "executor", "INFO", "logger", f"request-{ticket}"}
        assert words & {"a", "b", "c"} == {event}
    assert {line.ticket for line in instance.lines} == {7, 8, 9}


def test_a_request_for_which_no_thread_starts_fails_and_does_not_run(tmp_path: Path) -> None:
    source = """
import threading
ran, start, refused = [], threading.Thread.start, threading.Event()


def refuse_second(thread):
    if thread.name == "request_1":
        refused.set()
        raise RuntimeError("can't start new thread")
    start(thread)


threading.Thread.start = refuse_second


def handler(event, context):
    ran.append(event)
    refused.wait(20)
    return ran
"""
    with PythonProcess(tmp_path, source, concurrency=2) as instance:
        for ticket, event in ((1, "first"), (2, "second")):
            instance.ask(event, ticket)
        answers = {answer.ticket: answer for answer in (instance.answer() for _ in range(2))}
        assert instance.call("third") == ["first", "third"]

    assert (answers[1].code, answers[2].code) == (0, Code.USER_EXCEPTION)
    assert "can't start new thread" in answers[2].message


def test_what_a_pool_is_given_may_have_any_name(tmp_path: Path) -> None:
    source = """
from concurrent.futures import ThreadPoolExecutor


def handler(event, context):
    with ThreadPoolExecutor(1) as threads:
        return threads.submit(dict, **event).result()
"""
    with PythonProcess(tmp_path, source, concurrency=2) as instance:
        assert instance.call({"pool": 1, "function": 2}) == {"pool": 1, "function": 2}


def test_an_initializer_and_its_handlers_share_one_loop(tmp_path: Path) -> None:
    source = """
import asyncio


async def prepare(context):
    global loop
    loop = asyncio.get_running_loop()


async def handler(event, context):
    return loop is asyncio.get_running_loop()


def plain(event, context):
    return handler(event, context)
"""
    for number, handler in enumerate(("index.handler", "index.plain")):
        folder = tmp_path / str(number)
        folder.mkdir()
        with PythonProcess(folder, source, handler=handler, initializer="index.prepare", concurrency=2) as instance:
            assert instance.call() is True


def test_a_task_that_exits_does_not_take_its_neighbours_along(tmp_path: Path) -> None:
    source = """
import asyncio, sys


async def handler(event, context):
    if event == "leave":
        asyncio.get_running_loop().call_soon(sys.exit, 3)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    return "here"
"""
    with PythonProcess(tmp_path, source, concurrency=2) as instance:
        for event in ("leave", "stay"):
            instance.ask(event)
            assert instance.answer().result == b"here"
        status = instance.stop()

    assert (status, [line.text for line in instance.lines]) == (0, ["between requests: SystemExit: 3"])


@pytest.mark.parametrize("wrong", ["sys.exit(3)", "asyncio.get_running_loop().stop()"])
def test_what_plain_handlers_await_goes_on_when_one_of_them_ends_the_loop(tmp_path: Path, wrong: str) -> None:
    source = f"""
import asyncio, sys


def handler(event, context):
    return answer(event)


async def answer(event):
    if event == "wrong":
        {wrong}
    await asyncio.sleep(0)
    return "here"
"""
    with PythonProcess(tmp_path, source, concurrency=2) as instance:
        for event, result in (("wrong", 4002 if "exit" in wrong else 0), ("right", 0)):
            instance.ask(event)
            assert instance.answer().code == result


@pytest.mark.parametrize("concurrency", [1, 2])
@pytest.mark.parametrize("kind", ["def", "async def"])
def test_pre_stop_has_the_last_word(tmp_path: Path, kind: str, concurrency: int) -> None:
    source = f"{kind} handler(event, context): pass\n{kind} stop(): print('bye', end='')"
    with PythonProcess(tmp_path, source, pre_stop="index.stop", concurrency=concurrency) as instance:
        instance.call()
        status = instance.stop()

    assert (status, instance.lines) == (0, [Line(0, 1, "bye")])


def test_a_pre_stop_that_fails_is_told_in_the_log(tmp_path: Path) -> None:
    source = "def handler(event, context): pass\ndef stop(): raise ValueError('no')"
    with PythonProcess(tmp_path, source, pre_stop="index.stop") as instance:
        status = instance.stop()

    assert (status, instance.lines) == (0, [Line(0, 2, "pre-stop handler: ValueError: no")])


@pytest.mark.parametrize(
    ("handler", "expected"),
    [
        ("async def handler(e, c): return kind()", "MainThread"),
        ("def handler(e, c): return kind()", "request"),
        ("class H:\n    async def __call__(self, e, c): return kind()\nhandler = H()", "MainThread"),
        ("class H:\n    async def run(self, e, c): return kind()\nhandler = H().run", "MainThread"),
        ("import functools\nasync def run(n, e, c): return kind()\nhandler = functools.partial(run, 1)", "MainThread"),
    ],
)
def test_async_handlers_run_on_the_loop_and_plain_ones_on_threads(tmp_path: Path, handler: str, expected: str) -> None:
    source = f"import threading\ndef kind(): return threading.current_thread().name\n{handler}"
    with PythonProcess(tmp_path, source, concurrency=2) as instance:
        instance.ask()

        assert instance.answer().result.decode().startswith(expected)
