"""Supervisor of a trigger's source or of a plugin's service. Catches exceptions, and restarts with growing delays.

Exceptions of plugins never stop the engine. Those of an attempt or a delivery are caught elsewhere.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

import anyio
import structlog
from msgspec import Struct

from engine.errors import FunctiondError, SourceReplaced
from engine.errors.groups import leaves, with_cause
from engine.model.clock import Clock
from engine.model.retry import RetryPolicy
from engine.model.text import storable

log = structlog.get_logger("functiond.triggers")

#: Seconds of running after which a new failure counts as the first.
STEADY = 60.0
#: Seconds that a problem which is over, and a loss, stay in the state; and between equal lines in the log.
CALM = 60.0
#: Seconds until a source runs again after that which it reads was replaced.
REPLACED = 0.05
STARTING, RUNNING, FAILING, STOPPED = "starting", "running", "failing", "stopped"


class Health(Struct, frozen=True, kw_only=True):
    """State of a supervised service, with its current problem and failures."""

    state: str  #: starting, running, failing (waits to be restarted), stopped
    problem: str = ""  #: last failure, wait, problems and loss that the service reports; if there is none, its notice
    since: float = 0.0  #: start of this state, in seconds since the epoch
    failures: int = 0  #: consecutive failures
    next_try: float = 0.0  #: time of the next start in state failing


class Supervisor:
    """Supervisor of one service, which is a trigger's source or a plugin's service.

    The event ``settled`` is set when the service runs or has failed once.
    """

    def __init__(self, clock: Clock, policy: RetryPolicy, **named: str) -> None:
        self._clock, self._policy, self._named = clock, policy, named
        self._random = Random()
        self._failures = 0
        # Texts of the state, in the order in which they are shown:
        self._failure = self._wait = self._problem = self._lost = self._notice = ""
        self._over: asyncio.TimerHandle | None = None  #: removes the problem, which is over
        self._lost_over: asyncio.TimerHandle | None = None
        self._logged: dict[str, float] = {}  #: times of the last minute's lines by text
        self.settled = asyncio.Event()
        self.deleted = False  #: the service is stopped because its trigger was deleted
        self.health = Health(state=STARTING, since=clock.now())

    async def run_forever(self, run: Callable[[Supervisor], Awaitable[None]]) -> None:
        """Call ``run`` with this supervisor until cancelled, and call it again whenever it returns or raises."""
        while True:
            started = self._clock.now()
            self._show(STARTING)
            try:
                await run(self)
                problem = "the service returned before it was stopped"
            except asyncio.CancelledError:
                if _is_cancelled():
                    raise
                problem = "a task inside the service was cancelled and ended it"  # client libraries do this
            except Exception as error:
                problem = explain(error)
                if any(isinstance(leaf, SourceReplaced) for leaf in leaves(error)):
                    self._log("service starts anew", problem)
                    await anyio.sleep(REPLACED)
                    continue
            self._failures = 1 if self._clock.now() - started > STEADY else self._failures + 1
            wait = self._policy.delay(self._failures, self._random.random())
            log.warning("service failed", **self._named, problem=problem, retry_in=round(wait, 3))
            self._failure, self._wait = problem, ""
            self._show(FAILING, self._clock.now() + wait)
            self.settled.set()
            await anyio.sleep(wait)

    def started(self, value: Any = None) -> None:
        """Record that the service runs. Called by the service, which gets this supervisor as its ``task_status``."""
        self._failure = ""
        self._show(RUNNING)
        self.settled.set()

    def report_problem(self, problem: str) -> None:
        """Record and log a problem of a service that keeps running. After an empty text, it is shown for ``CALM``."""
        if problem:
            _cancel(self._over)
            self._over, self._problem = None, problem
            self._log("service has a problem", problem)
        elif self._problem and self._over is None:
            self._over = asyncio.get_running_loop().call_later(CALM, self._recover)
        self._show(self.health.state)

    def report_wait(self, text: str) -> None:
        """Record a wait without logging it, for waits that change too often. An empty text ends the wait."""
        if text != self._wait:
            self._wait = text
            self._show(self.health.state)

    def report_lost(self, text: str, events: int) -> None:
        """Record and log a loss of events, which is shown for ``CALM``."""
        _cancel(self._lost_over)
        self._lost_over = asyncio.get_running_loop().call_later(CALM, self._forget_loss)
        self._lost = text
        self._log("events lost", text, events=events)
        self._show(self.health.state)

    def report_notice(self, text: str) -> None:
        """Record a notice, which API replies contain while there is no problem. Replaces the previous notice."""
        self._notice = text
        self._show(self.health.state)

    def _recover(self) -> None:
        self._problem, self._over = "", None
        self._log("service recovered", "")
        self._show(self.health.state)

    def _forget_loss(self) -> None:
        self._lost = ""
        self._show(self.health.state)

    def _log(self, event: str, problem: str, **more: object) -> None:
        now = asyncio.get_running_loop().time()
        self._logged = {text: at for text, at in self._logged.items() if now - at < CALM}
        if problem not in self._logged:
            self._logged[problem] = now
            log.warning(event, **self._named, problem=problem, **more)

    def _show(self, state: str, next_try: float = 0.0) -> None:
        before, problem = self.health, f"{self._problem} (over)" if self._over else self._problem
        shown = "; ".join(filter(None, (self._failure, self._wait, problem, self._lost))) or self._notice
        since = before.since if state == before.state else self._clock.now()
        self.health = Health(
            state=state, problem=storable(shown), since=since, failures=self._failures, next_try=next_try
        )


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()


def _is_cancelled() -> bool:
    """Return whether the current task is being cancelled, by anyio or asyncio."""
    task = asyncio.current_task()
    return anyio.current_effective_deadline() == -math.inf or (task is not None and task.cancelling() > 0)


def explain(error: BaseException) -> str:
    """Return the text of an error, at most 1000 characters.

    The text of an exception group consists of its members' texts, each with the system's error that caused it.
    """
    return "; ".join(dict.fromkeys(with_cause(_describe(leaf), leaf) for leaf in leaves(error)))[:1000]


def _describe(error: BaseException) -> str:
    name, text = type(error).__name__, str(error)
    # Messages of the engine are sentences, and some libraries put the class name first themselves.
    if text and (isinstance(error, FunctiondError) or text.startswith(name)):
        return text
    return f"{name}: {text}" if text else name
