"""Keeps one service of a plugin running: what it raises ends here, and it is started again, each time later.

This is the third border that exceptions stop at, beside one attempt and one delivery: no plugin takes the engine down.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterator
from random import Random
from typing import Any

import anyio
import structlog
from msgspec import Struct

from engine.errors import FunctiondError
from engine.model.clock import Clock
from engine.model.retry import RetryPolicy
from engine.model.text import storable

log = structlog.get_logger("functiond.triggers")

#: Seconds a service must have run before its failures are forgotten.
STEADY = 60.0
STARTING, RUNNING, FAILING, STOPPED = "starting", "running", "failing", "stopped"


class Health(Struct, frozen=True, kw_only=True):
    """How a service does."""

    state: str  #: starting, running, failing (it will be started again), stopped
    problem: str = ""  #: what it last failed with, or what it says is wrong; if nothing is, its remark
    since: float = 0.0  #: when this began
    failures: int = 0  #: in a row
    next_try: float = 0.0  #: when it is started again, if it is failing


class Supervisor:
    """``settled`` is set once it runs, or has failed for the first time."""

    def __init__(self, clock: Clock, policy: RetryPolicy, **named: str) -> None:
        self._clock, self._policy, self._named = clock, policy, named
        self._random = Random()
        self._failures = 0
        self._remark = ""
        self.settled = asyncio.Event()
        self.deleted = False  #: it is ended because what it runs for is gone
        self.health = Health(state=STARTING, since=clock.now())

    async def run_forever(self, run: Callable[[Supervisor], Awaitable[None]]) -> None:
        """Run it until cancelled; ``run`` gets the keeper as its ``task_status``."""
        while True:
            began = self._clock.now()
            self._show(STARTING, self.health.problem)
            try:
                await run(self)
                problem = "it ended by itself"
            except asyncio.CancelledError:
                if _is_cancelled():
                    raise
                problem = "something within it was cancelled, and it ended by that"  # as client libraries do
            except Exception as error:  # the border of one service
                problem = explain(error)
            self._failures = 1 if self._clock.now() - began > STEADY else self._failures + 1
            wait = self._policy.delay(self._failures, self._random.random())
            log.warning("service failed", **self._named, problem=problem, again_in=round(wait, 3))
            self._show(FAILING, problem, self._clock.now() + wait)
            self.settled.set()
            await anyio.sleep(wait)

    def started(self, value: Any = None) -> None:
        """It works: called by the service, as anyio's ``task_status``."""
        self._show(RUNNING, "")
        self.settled.set()

    def report_problem(self, problem: str) -> None:
        """It runs, and says that something is wrong; or, with an empty text, that all is well again."""
        if (problem or self._remark) != self.health.problem:
            log.warning("service in trouble" if problem else "service works again", **self._named, problem=problem)
            self.set_problem(problem)

    def set_problem(self, problem: str) -> None:
        """The same for what comes and goes too often for the log."""
        if (problem or self._remark) != self.health.problem:
            self._show(self.health.state, problem)

    def remark(self, text: str) -> None:
        """Show from now on, whenever there is no problem, something that has happened."""
        before, self._remark = self._remark, storable(text)
        if self.health.problem in ("", before):
            self.set_problem("")

    def _show(self, state: str, problem: str, next_try: float = 0.0) -> None:
        now, failures, shown = self._clock.now(), self._failures, storable(problem) or self._remark
        self.health = Health(state=state, problem=shown, since=now, failures=failures, next_try=next_try)


def _is_cancelled() -> bool:
    """Whether this task is to end, by anyone's will."""
    task = asyncio.current_task()
    return anyio.current_effective_deadline() == -math.inf or (task is not None and task.cancelling() > 0)


def explain(error: BaseException) -> str:
    """In a line, with the parts of a group of errors."""
    return "; ".join(dict.fromkeys(_told(leaf) for leaf in _leaves(error)))[:1000]


def _told(error: BaseException) -> str:
    name, said = type(error).__name__, str(error)
    # Ours are sentences, and some libraries name the class themselves.
    if said and (isinstance(error, FunctiondError) or said.startswith(name)):
        return said
    return f"{name}: {said}" if said else name


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for part in error.exceptions:
            yield from _leaves(part)
    else:
        yield error
