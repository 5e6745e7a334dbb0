"""The source of one trigger through its life: it runs, rests or goes as what is stored of the trigger says."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, ExitStack

import anyio
from anyio.abc import TaskGroup
from msgspec import Struct

from engine.model.clock import Clock
from engine.model.retry import RetryPolicy
from engine.resources.bound_trigger import BoundTrigger
from engine.triggers.ingress import Tally
from engine.triggers.supervisor import STOPPED, Health, Supervisor

DISABLED, NO_SOURCE = "disabled", "no source"

#: Runs a trigger's source once, to its end or failure.
RunOnce = Callable[[BoundTrigger, Supervisor, Tally], Awaitable[None]]
#: Entered while a trigger is to run, from when that is stored.
Known = Callable[[BoundTrigger, Tally], AbstractContextManager[None]]


class SourceState(Struct, frozen=True, kw_only=True):
    """How a trigger's source does, and what came of its events since the engine started."""

    state: str  #: starting, running, failing, disabled, stopped, or ``no source``
    problem: str
    since: float  #: when that began
    failures: int  #: in a row
    next_try: float = 0.0  #: when a failing one is started again
    accepted: int
    refused: int  #: events refused for good: too large, or a key used with another payload


class Source:
    def __init__(
        self, trigger: BoundTrigger, run_once: RunOnce, known: Known, clock: Clock, policy: RetryPolicy
    ) -> None:
        self._wanted: BoundTrigger | None = trigger
        self._run_once, self._known, self._clock, self._policy = run_once, known, clock, policy
        self._changed, self._caught_up = asyncio.Event(), asyncio.Event()
        self._tally = Tally()
        self._life: _Life | None = None
        self._rest = Health(state=STOPPED, since=clock.now())
        self._presence = ExitStack()
        self._appear(trigger)

    def want(self, trigger: BoundTrigger | None) -> None:
        """What is stored now; None once the trigger is gone."""
        self._wanted = trigger
        self._appear(trigger)
        self._caught_up.clear()
        self._changed.set()
        if self._life is not None:
            self._life.supervisor.settled.set()  # whoever waits for it to start has something new to do

    async def settled(self) -> None:
        """Return once the source does as was wanted last: it runs or has failed, or has ended."""
        await self._caught_up.wait()
        if self._life is not None:
            await self._life.supervisor.settled.wait()

    async def run(self) -> None:
        """Until the trigger is gone."""
        async with anyio.create_task_group() as lives:
            while True:
                self._changed.clear()
                wanted = self._wanted
                await self._follow(wanted, lives)
                if wanted is self._wanted:
                    self._caught_up.set()
                if wanted is None:
                    return
                await self._changed.wait()

    def state(self) -> SourceState:
        health = self._life.supervisor.health if self._life else self._rest
        return SourceState(
            state=health.state,
            problem=health.problem,
            since=health.since,
            failures=health.failures,
            next_try=health.next_try,
            accepted=self._tally.accepted,
            refused=self._tally.refused,
        )

    # --- inside ---------------------------------------------------------------------------------------------

    def _appear(self, trigger: BoundTrigger | None) -> None:
        self._presence.close()
        if trigger is not None and trigger.runnable:
            self._presence.enter_context(self._known(trigger, self._tally))

    async def _follow(self, wanted: BoundTrigger | None, lives: TaskGroup) -> None:
        old, self._life = self._life, None
        if old is not None and not _overlaps(wanted):
            await old.end(deleted=wanted is None)
            old = None
        if wanted is None or not wanted.runnable:
            problem = wanted.problem if wanted is not None else ""
            self._rest = Health(state=_resting(wanted), problem=problem, since=self._clock.now())
            return
        supervisor = self._begin(wanted, lives)
        if old is not None:
            await supervisor.settled.wait()
            await old.end()

    def _begin(self, trigger: BoundTrigger, lives: TaskGroup) -> Supervisor:
        supervisor = Supervisor(
            self._clock, self._policy, trigger=trigger.id, kind=trigger.kind, function=trigger.function
        )
        self._life = _Life(supervisor)
        lives.start_soon(self._life.run, lambda status: self._run_once(trigger, status, self._tally))
        return supervisor


class _Life:
    """A source with one set of options, from its start to its end."""

    def __init__(self, supervisor: Supervisor) -> None:
        self.supervisor = supervisor
        self._scope = anyio.CancelScope()
        self._ended = asyncio.Event()

    async def run(self, run_once: Callable[[Supervisor], Awaitable[None]]) -> None:
        try:
            with self._scope:
                await self.supervisor.run_forever(run_once)
        finally:
            self._ended.set()

    async def end(self, *, deleted: bool = False) -> None:
        self.supervisor.deleted = deleted
        self._scope.cancel()
        await self._ended.wait()


def _overlaps(trigger: BoundTrigger | None) -> bool:
    return trigger is not None and trigger.runnable and trigger.plugin.rules.start_before_stop


def _resting(trigger: BoundTrigger | None) -> str:
    if trigger is None:
        return STOPPED
    return NO_SOURCE if trigger.stored.active else DISABLED
