"""Control of one trigger's source: starts, restarts and stops the source according to the stored trigger."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager, ExitStack

import anyio
from anyio.abc import TaskGroup
from msgspec.structs import asdict

from engine.model.clock import Clock
from engine.model.retry import RetryPolicy
from engine.resources.bound_trigger import BoundTrigger
from engine.triggers.ingress import Tally
from engine.triggers.supervisor import STOPPED, Health, Supervisor

DISABLED, NO_SOURCE = "disabled", "no source"

#: Function that runs a trigger's source until it ends or fails.
RunOnce = Callable[[BoundTrigger, Supervisor, Tally], Awaitable[None]]
#: Function whose context manager is held while the trigger is stored and runnable.
Register = Callable[[BoundTrigger, Tally], AbstractContextManager[None]]


class SourceState(Health, frozen=True, kw_only=True):
    """State of a trigger's source, also disabled or ``no source``, with counts of its events since the engine started.

    Refused events were too large, or had an idempotency key that was used with another payload.
    """

    accepted: int
    refused: int
    lost: int  #: events that left what the source reads before they were read, as far as their number is known
    lag: Mapping[str, int]  #: events that the source has not read yet, by cursor name; empty: unknown


class Source:
    def __init__(
        self, trigger: BoundTrigger, run_once: RunOnce, register: Register, clock: Clock, policy: RetryPolicy
    ) -> None:
        self._wanted: BoundTrigger | None = trigger
        self._run_once, self._enter, self._clock, self._policy = run_once, register, clock, policy
        self._changed, self._caught_up = asyncio.Event(), asyncio.Event()
        self._tally = Tally()
        self._current: Supervisor | None = None
        self._idle = Health(state=STOPPED, since=clock.now())  #: health while no source runs
        self._registration = ExitStack()
        self._register(trigger)

    def want(self, trigger: BoundTrigger | None) -> None:
        """Follow a change of the stored trigger, which is None if it was deleted."""
        self._wanted = trigger
        self._register(trigger)
        self._caught_up.clear()
        self._changed.set()
        if self._current is not None:
            self._current.settled.set()  # release `_follow`, which may wait for an obsolete source to start

    async def settled(self) -> None:
        """Return when the last change passed to ``want`` has taken effect.

        The source then runs, has failed once, or has ended.
        """
        await self._caught_up.wait()
        if self._current is not None:
            await self._current.settled.wait()

    async def run(self) -> None:
        """Start and stop the source as the stored trigger demands, until the trigger is deleted."""
        async with anyio.create_task_group() as tasks:
            while True:
                self._changed.clear()
                wanted = self._wanted
                await self._follow(wanted, tasks)
                if wanted is self._wanted:
                    self._caught_up.set()
                if wanted is None:
                    return
                await self._changed.wait()

    def state(self) -> SourceState:
        health = self._current.health if self._current else self._idle
        return SourceState(**asdict(health), **vars(self._tally))

    # --- inside ---------------------------------------------------------------------------------------------

    def _register(self, trigger: BoundTrigger | None) -> None:
        self._registration.close()
        if trigger is not None and trigger.runnable:
            self._registration.enter_context(self._enter(trigger, self._tally))

    async def _follow(self, wanted: BoundTrigger | None, tasks: TaskGroup) -> None:
        old, self._current = self._current, None
        self._tally.lag = {}
        if old is not None and not _overlaps(wanted):
            await old.end(deleted=wanted is None)
            old = None
        if wanted is None or not wanted.runnable:
            problem = wanted.problem if wanted is not None else ""
            self._idle = Health(state=_idle_state(wanted), problem=problem, since=self._clock.now())
            return
        supervisor = self._begin(wanted, tasks)
        if old is not None:
            await supervisor.settled.wait()
            await old.end()

    def _begin(self, trigger: BoundTrigger, tasks: TaskGroup) -> Supervisor:
        supervisor = Supervisor(
            self._clock, self._policy, trigger=trigger.id, kind=trigger.kind, function=trigger.function
        )
        supervisor.report_notice(trigger.problem)
        self._current = supervisor
        tasks.start_soon(supervisor.run_forever, lambda status: self._run_once(trigger, status, self._tally))
        return supervisor


def _overlaps(trigger: BoundTrigger | None) -> bool:
    return trigger is not None and trigger.runnable and trigger.plugin.rules.start_before_stop


def _idle_state(trigger: BoundTrigger | None) -> str:
    if trigger is None:
        return STOPPED
    return NO_SOURCE if trigger.stored.active else DISABLED
