"""Supervisor of a trigger's source or of a plugin's service. Catches exceptions, and restarts with growing delays.

Exceptions of plugins never stop the engine. Those of an attempt or a delivery are caught elsewhere.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from functools import partial
from random import random
from typing import Any

import anyio
import structlog
from anyio.abc import TaskGroup
from msgspec import Struct

from engine.errors import FunctiondError, SourceReplaced
from engine.errors.groups import leaves, with_cause
from engine.logs.causes import SPAN, Causes
from engine.model.alarms import Alarm
from engine.model.clock import Clock
from engine.model.retry import RetryPolicy
from engine.model.text import storable
from engine.protocols import Rest

log = structlog.get_logger("functiond.triggers")

#: Seconds of running after which a new failure counts as the first.
STEADY = 60.0
#: Seconds that a problem which is over, a loss, and a refusal stay in the state.
CALM = SPAN
#: Seconds until a source runs again after that which it reads was replaced.
REPLACED = 0.05
_SET = asyncio.Event()  #: takes the place of each event that is set, as an event takes a kilobyte
_SET.set()
STARTING, RUNNING, FAILING, STOPPED = "starting", "running", "failing", "stopped"


class Health(Struct, frozen=True, kw_only=True):
    """State of a supervised service, with its current problem and failures."""

    state: str  #: starting, running, failing (waits to be restarted), stopped
    problem: str = ""  #: last failure, wait, problems, loss and refusal that the service reports; if none, its notice
    since: float = 0.0  #: start of this state, in seconds since the epoch
    failures: int = 0  #: consecutive failures
    next_try: float = 0.0  #: time of the next start in state failing


Run = Callable[["Supervisor"], Awaitable[Rest | None]]
Step = Callable[[], Awaitable[Rest | None]]


class Supervisor:
    """Supervisor of one service, which is a trigger's source or a plugin's service.

    The event ``settled`` is set when the service runs or has failed once. ``start`` runs it in ``tasks``.
    """

    def __init__(self, clock: Clock, policy: RetryPolicy, tasks: TaskGroup, **named: str) -> None:
        self._clock, self._policy, self._tasks, self._named = clock, policy, tasks, named
        self._failures = 0
        self._state, self._since, self._next_try = STARTING, clock.now(), 0.0
        #: Texts that the state shows, in this order. If all are empty, it shows the notice.
        self._texts = dict.fromkeys(("failure", "wait", "problem", "loss", "refusal"), "")
        self._notice = ""
        self._ends: dict[str, asyncio.TimerHandle] = {}  #: of texts that are over, and are shown for ``CALM``
        self._causes = Causes()
        self._scope: anyio.CancelScope | None = None
        self._ended = _SET
        self._alarm: Alarm | None = None  #: end of a rest, during which no task runs
        self.settled = asyncio.Event()
        self.deleted = False  #: the service is stopped because its trigger was deleted

    @property
    def health(self) -> Health:
        texts = {**self._texts, **{kind: f"{self._texts[kind]} (over)" for kind in self._ends.keys() & {"problem"}}}
        return Health(
            state=self._state,
            problem=storable("; ".join(filter(None, texts.values())) or self._notice),
            since=self._since,
            failures=self._failures,
            next_try=self._next_try,
        )

    def start(self, run: Run) -> None:
        """Call ``run`` with this supervisor until ``end``, and call it again whenever it raises or returns no rest."""
        self._start(run, partial(run, self))

    async def end(self, *, deleted: bool = False) -> None:
        """Cancel the service, and return when it has ended. ``deleted``: its trigger was deleted."""
        self.deleted = deleted
        if self._scope is not None:
            self._scope.cancel()
        await self._ended.wait()
        self.end_rest()

    def end_rest(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()

    def started(self, value: Any = None) -> None:
        """Record that the service runs. Called by the service, which gets this supervisor as its ``task_status``."""
        self._texts["failure"] = ""
        self._enter(RUNNING)
        self.settled.set()
        self.settled = _SET

    def report_problem(self, problem: str) -> None:
        """Record and log a problem of a service that keeps running. After an empty text, it is shown for ``CALM``."""
        if problem:
            self._replace("problem", problem)
            self._log("service has a problem", problem)
        elif self._texts["problem"] and "problem" not in self._ends:
            self._end_later("problem")

    def report_wait(self, text: str) -> None:
        """Record a wait without logging it, for waits that change too often. An empty text ends the wait."""
        self._texts["wait"] = text

    def report_lost(self, text: str, events: int) -> None:
        """Record and log a loss of events, which is shown for ``CALM``."""
        self._replace("loss", text)
        self._end_later("loss")
        self._log("events lost", text, events=events)

    def report_refused(self, text: str) -> None:
        """Record a refusal, which is shown for ``CALM``. One a minute is logged, since senders may choose its text."""
        self._replace("refusal", text)
        self._end_later("refusal")
        if self._causes.note(None):
            log.warning("push refused", **self._named, problem=text)

    def report_notice(self, text: str) -> None:
        """Record a notice, which API replies contain while there is no problem. Replaces the previous notice."""
        self._notice = text

    # --- inside ---------------------------------------------------------------------------------------------

    def _start(self, run: Run, step: Step) -> None:
        self._scope, self._ended = anyio.CancelScope(), asyncio.Event()
        self._tasks.start_soon(self._run_forever, self._scope, run, step)

    async def _run_forever(self, scope: anyio.CancelScope, run: Run, step: Step) -> None:
        try:
            with scope:
                while (rest := await self._run_once(step)) is None:
                    step = partial(run, self)
                    self._enter(STARTING)
                self._alarm = self._clock.wake_toward(rest.until, partial(self._start, run, rest.resume))
        finally:
            self._ended.set()
            self._scope, self._ended = None, _SET

    async def _run_once(self, step: Step) -> Rest | None:
        try:
            if (rest := await step()) is not None:
                return rest
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
                return None
        self._failures = 1 if self._clock.now() - self._since > STEADY else self._failures + 1
        wait = self._policy.delay(self._failures, random())
        log.warning("service failed", **self._named, problem=problem, retry_in=round(wait, 3))
        self._texts |= {"failure": problem, "wait": ""}
        self._enter(FAILING, self._clock.now() + wait)
        self.settled.set()
        await anyio.sleep(wait)
        return None

    def _enter(self, state: str, next_try: float = 0.0) -> None:
        self._state, self._since, self._next_try = state, self._clock.now(), next_try

    def _replace(self, kind: str, text: str) -> None:
        if (timer := self._ends.pop(kind, None)) is not None:
            timer.cancel()
        self._texts[kind] = text

    def _end_later(self, kind: str) -> None:
        self._ends[kind] = asyncio.get_running_loop().call_later(CALM, self._end, kind)

    def _end(self, kind: str) -> None:
        self._replace(kind, "")
        if kind == "problem":
            self._log("service recovered", "")

    def _log(self, event: str, problem: str, **more: object) -> None:
        if self._causes.note(problem):
            log.warning(event, **self._named, problem=problem, **more)


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
