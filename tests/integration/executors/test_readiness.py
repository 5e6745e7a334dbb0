"""Races between an instance's READY frame and its first request."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.executors.allocator import Start, WaitingCalls
from engine.executors.call import End
from engine.executors.instance import Instance
from engine.executors.pool import Pool
from engine.model import Code
from engine.runtimes.protocol import READY, Answer, Logged
from tests.support.executing import function, invocation

SOURCE = """
import pathlib


def handler(event, context):
    with open(pathlib.Path(__file__).with_name("runs"), "a") as file:
        file.write("run\\n")
    return "done"
"""


def when_ready(patch: pytest.MonkeyPatch, act: Callable[[Instance], object]) -> None:
    """Call ``act`` once, right after the first READY frame is read and before its waiters resume."""
    take, left = Instance._receive, [act]

    def taking(instance: Instance, frame: Answer | Logged) -> None:
        take(instance, frame)
        if isinstance(frame, Answer) and frame.kind == READY and left:
            left.pop()(instance)

    patch.setattr(Instance, "_receive", taking)


def runs(tmp_path: Path) -> int:
    file = tmp_path / "code" / "runs"
    return len(file.read_text().splitlines()) if file.exists() else 0


async def test_a_request_that_started_the_instance_can_still_be_cancelled(
    opened: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[bool] = []
    asked = invocation()
    when_ready(monkeypatch, lambda instance: told.append(opened.cancel(asked.key)))
    outcome = await opened.execute(function("handler"), asked)

    assert (told, outcome.code, runs(tmp_path)) == ([True], Code.CANCELLED, 0)


async def test_a_request_that_waited_for_the_instance_can_still_be_cancelled(
    opened: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[bool] = []
    leader, follower = invocation(), invocation()
    serve = WaitingCalls.serve

    def serving(waiting: WaitingCalls, instance: Instance, start: Start | None = None) -> None:
        serve(waiting, instance, start)
        told.append(opened.cancel(follower.key))

    monkeypatch.setattr(WaitingCalls, "serve", serving)
    shared = function("handler", concurrent_num=2)
    outcomes = await asyncio.gather(*(opened.execute(shared, one) for one in (leader, follower)))

    assert ([one.code for one in outcomes], told) == ([Code.OK, Code.CANCELLED], [True])
    assert runs(tmp_path) == 1


async def test_an_instance_that_ends_then_has_run_nothing_and_another_is_started(
    opened: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    when_ready(monkeypatch, lambda instance: instance.kill(End.EXITED))
    outcome = await opened.execute(function("handler"), invocation())

    assert (outcome.code, outcome.result, runs(tmp_path)) == (Code.OK, b"done", 1)
    assert opened.statistics().started == 2
