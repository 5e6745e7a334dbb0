"""Contract of executors, tested on the process pool and its double."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from engine.model import Code
from engine.protocols import Executor
from tests.doubles.executor import InlineExecutor
from tests.support.executing import function, invocation, pool

HANDLERS = """
import asyncio
import os
import sys


def echo(event, context):
    return event


def divide(event, context):
    return 1 / event["by"]


def leave(event, context):
    sys.exit(3)


async def wait(event, context):
    await asyncio.sleep(60)


def exists(event, context):
    return os.path.exists(event["path"])
"""


@pytest.fixture(params=["pool", "inline"])
async def executor(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Executor]:
    if request.param == "inline":
        names: dict[str, Any] = {}
        exec(HANDLERS, names)
        yield InlineExecutor({name: value for name, value in names.items() if callable(value)})
        return
    async with pool(tmp_path, HANDLERS) as real:
        yield real


@pytest.mark.parametrize(("handler", "error"), [("divide", "KeyError: 'by'"), ("leave", "SystemExit: 3")])
async def test_an_error_of_user_code_is_an_outcome(executor: Executor, handler: str, error: str) -> None:
    outcome = await executor.execute(function(handler), invocation())

    assert outcome.code == Code.USER_EXCEPTION
    assert outcome.message == f"function invocation exception, error: {error}"


async def test_a_running_invocation_can_be_cancelled(executor: Executor) -> None:
    asked = invocation()
    running = asyncio.ensure_future(executor.execute(function("wait"), asked))
    await asyncio.sleep(0)

    assert executor.cancel(asked.key)
    assert (await running).code == Code.CANCELLED
    assert not executor.cancel(asked.key)


async def test_the_begin_is_announced_before_the_handler_begins(executor: Executor, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    asked = invocation(json.dumps({"path": str(begun)}))

    outcome = await executor.execute(function("exists"), asked, begun.touch)

    assert outcome.result == b"true"


async def test_the_handler_waits_until_its_begin_is_stored(executor: Executor, tmp_path: Path) -> None:
    begun = tmp_path / "begun"

    async def store() -> None:
        await asyncio.sleep(0.05)
        begun.touch()

    outcome = await executor.execute(function("exists"), invocation(json.dumps({"path": str(begun)})), store)

    assert outcome.result == b"true"


async def test_an_invocation_can_be_cancelled_while_its_begin_is_stored(executor: Executor) -> None:
    asked, storing, stored = invocation(), asyncio.Event(), asyncio.Event()

    async def store() -> None:
        storing.set()
        await stored.wait()

    running = asyncio.ensure_future(executor.execute(function("wait"), asked, store))
    await asyncio.wait_for(storing.wait(), 60)

    assert executor.cancel(asked.key)
    stored.set()
    assert (await asyncio.wait_for(running, 60)).code == Code.CANCELLED


async def test_an_invocation_that_does_not_run_cannot_be_cancelled(executor: Executor) -> None:
    assert not executor.cancel(12345)


async def test_a_cancelled_caller_gets_its_cancellation(executor: Executor) -> None:
    running = asyncio.ensure_future(executor.execute(function("wait"), invocation()))
    await asyncio.sleep(0)
    running.cancel()

    with pytest.raises(asyncio.CancelledError):
        await running


async def test_a_retired_function_can_be_called_again(executor: Executor) -> None:
    await executor.execute(function("echo"), invocation("1"))

    await executor.retire(function("echo").function_id)

    assert (await executor.execute(function("echo"), invocation("2"))).result == b"2"
