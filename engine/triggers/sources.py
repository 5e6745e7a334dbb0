"""Sources of all triggers of an engine. Each source is started and stopped independently of the others.

    services of plugins start → a source starts for each trigger of this engine → they restart when triggers change

A source or service that raises an exception is reported and restarted. Its exceptions never stop the engine.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from heapq import nlargest

import anyio
import structlog
from anyio import TASK_STATUS_IGNORED
from anyio.abc import TaskGroup, TaskStatus
from anyio.lowlevel import checkpoint
from msgspec import Struct
from msgspec.structs import asdict, replace

from engine.errors import NotForProject
from engine.model.clock import Clock
from engine.model.retry import RetryPolicy
from engine.protocols import Cluster, Rest, TriggerRules
from engine.resources.bound_trigger import BoundTrigger
from engine.resources.triggers import Triggers
from engine.triggers.context import IngressDeps, SourceContext, Tally, TriggerIngress
from engine.triggers.plugin_contexts import EnginePluginContext, PluginContexts
from engine.triggers.supervisor import STOPPED, Health, Supervisor

log = structlog.get_logger("functiond.triggers")

DISABLED, NO_SOURCE = "disabled", "no source"

#: Function that runs a trigger's source until it ends, fails or rests.
RunOnce = Callable[[BoundTrigger, Supervisor, Tally], Awaitable[Rest | None]]
#: Function whose context manager, if any, is held while the trigger is stored and runnable.
Register = Callable[[BoundTrigger, Tally], AbstractContextManager[None] | None]

#: Seconds that the engine's start waits for services of plugins, and again for push sources.
START = 5.0
#: Sources that start together.
BATCH_SIZE = 50
#: Seconds that a request which changes a trigger waits for its source to follow.
SETTLE = 1.0


class SourceState(Health, frozen=True, kw_only=True):
    """State of a trigger's source, also disabled or ``no source``, with counts of its events since the engine started.

    Refused events were too large, had an idempotency key that was used with another payload, or came in a push that the
    source refused.
    """

    accepted: int
    refused: int
    lost: int  #: events that left what the source reads before they were read, as far as their number is known
    lag: Mapping[str, int]  #: events that the source has not read yet, by cursor name; empty: unknown


class Source:
    """Source of one trigger. Starts at once. ``forget`` is called when it has ended after the trigger was deleted."""

    def __init__(
        self,
        trigger: BoundTrigger,
        run_once: RunOnce,
        register: Register,
        clock: Clock,
        policy: RetryPolicy,
        tasks: TaskGroup,
        forget: Callable[[str, Source], None],
    ) -> None:
        self._wanted: BoundTrigger | None = trigger
        self._run_once, self._enter, self._clock, self._policy = run_once, register, clock, policy
        self._tasks, self._forget = tasks, partial(forget, trigger.id)
        self._following: asyncio.Event | None = None  #: set when the last change has taken effect; None: it has
        self.tally = Tally()
        self._current: Supervisor | None = None
        self._idle = Health(state=STOPPED, since=clock.now())  #: health while no source runs
        self._registration: AbstractContextManager[None] | None = None
        self._register(trigger)
        self._begin(trigger)

    def want(self, trigger: BoundTrigger | None) -> None:
        """Follow a change of the stored trigger, which is None if it was deleted."""
        self._wanted = trigger
        self._register(trigger)
        if self._current is not None:
            self._current.settled.set()  # release `_follow`, which may wait for an obsolete source to start
        if self._following is None:
            self._following = asyncio.Event()
            self._tasks.start_soon(self._follow_all, self._following)

    async def settled(self) -> None:
        """Return when the last change passed to ``want`` has taken effect.

        The source then runs, has failed once, or has ended.
        """
        if self._following is not None:
            await self._following.wait()
        if self._current is not None:
            await self._current.settled.wait()

    def end_rest(self) -> None:
        if self._current is not None:
            self._current.end_rest()

    @property
    def health(self) -> Health:
        return self._current.health if self._current else self._idle

    def state(self) -> SourceState:
        return SourceState(**asdict(self.health), **vars(self.tally))

    # --- inside ---------------------------------------------------------------------------------------------

    def _register(self, trigger: BoundTrigger | None) -> None:
        if self._registration is not None:
            self._registration.__exit__(None, None, None)
            self._registration = None
        if trigger is not None and trigger.runnable and (registration := self._enter(trigger, self.tally)) is not None:
            registration.__enter__()
            self._registration = registration

    async def _follow_all(self, following: asyncio.Event) -> None:
        """Start and stop the source as the stored trigger demands."""
        followed: BoundTrigger | None = None
        while True:
            followed = self._wanted
            await self._follow(followed)
            if followed is self._wanted:
                break
        self._following = None
        following.set()
        if followed is None:
            self._forget(self)

    async def _follow(self, wanted: BoundTrigger | None) -> None:
        old, self._current = self._current, None
        self.tally.lag = {}
        overlaps = wanted is not None and wanted.runnable and wanted.plugin.rules.start_before_stop
        if old is not None and not overlaps:
            await old.end(deleted=wanted is None)
            old = None
        supervisor = self._begin(wanted)
        if old is not None and supervisor is not None:
            await supervisor.settled.wait()
            await old.end()

    def _begin(self, trigger: BoundTrigger | None) -> Supervisor | None:
        """Start a source for a trigger that is runnable."""
        if trigger is None or not trigger.runnable:
            problem = trigger.problem if trigger is not None else ""
            state = STOPPED if trigger is None else NO_SOURCE if trigger.stored.active else DISABLED
            self._idle = Health(state=state, problem=problem, since=self._clock.now())
            return None
        self._current = supervisor = Supervisor(
            self._clock, self._policy, self._tasks, trigger=trigger.id, kind=trigger.kind, function=trigger.function
        )
        supervisor.report_notice(trigger.problem)
        supervisor.start(lambda status: self._run_once(trigger, status, self.tally))
        return supervisor


class SourcesStatistics(Struct, frozen=True, kw_only=True):
    states: dict[str, int]  #: number of triggers by state of their source
    services: dict[str, Health]  #: health of plugins' services by table
    accepted: int  #: events accepted since the engine started
    refused: int  #: events rejected permanently since the engine started
    lost: int  #: events that were lost before they were read, since the engine started


class Sources:
    def __init__(
        self,
        triggers: Triggers,
        contexts: PluginContexts,
        deps: IngressDeps,
        cluster: Cluster,
        clock: Clock,
        policy: RetryPolicy,
    ) -> None:
        self._triggers, self._contexts, self._deps = triggers, contexts, deps
        self._clock, self._cluster = clock, cluster
        self._policy = replace(policy, longest=min(policy.longest, TriggerRules().longest_delay))
        self._sources: dict[str, Source] = {}
        self._services: dict[str, Supervisor] = {}
        self._first: dict[str, dict[str, bytes]] = {}  #: cursors at the start, of sources that have not started yet
        self._past = Tally()  #: events of deleted triggers
        self._tasks: TaskGroup | None = None

    async def run(self, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
        """Run the services of plugins and the sources of all triggers until cancelled.

        Calls ``task_status.started`` when every service and every push source runs or has failed once. Waits at most
        ``START`` seconds for the services, and then as long for the push sources.
        """
        try:
            async with anyio.create_task_group() as tasks:
                await self._start_services(tasks)
                self._first = await self._deps.cursors.read_all()
                self._tasks = tasks
                for number, trigger in enumerate(self._triggers.all()):
                    if number % BATCH_SIZE == 0:
                        await checkpoint()  # memory of tasks that have come to a rest serves the next ones
                    self.follow(trigger.id, trigger)
                await checkpoint()
                self._first.clear()
                await self._await_push_sources()
                task_status.started()
                await anyio.sleep_forever()
        finally:
            self._tasks = None
            for source in self._sources.values():
                source.end_rest()

    def state(self, trigger_id: str) -> SourceState | None:
        source = self._sources.get(trigger_id)
        return source.state() if source else None

    async def settled(self, trigger_id: str) -> None:
        """Return when the last change of a trigger has taken effect on its source, or after ``SETTLE`` seconds."""
        source = self._sources.get(trigger_id)
        if source is not None:
            with anyio.move_on_after(SETTLE):
                await source.settled()

    def statistics(self) -> SourcesStatistics:
        tallies = [self._past, *(source.tally for source in self._sources.values())]
        return SourcesStatistics(
            states=dict(Counter(source.health.state for source in self._sources.values())),
            services={table: supervisor.health for table, supervisor in self._services.items()},
            accepted=sum(tally.accepted for tally in tallies),
            refused=sum(tally.refused for tally in tallies),
            lost=sum(tally.lost for tally in tallies),
        )

    def lags(self, most: int, project: str | None = None) -> Sequence[tuple[tuple[str, str], float]]:
        """Return the ``most`` largest lags of a project or all, with trigger ids and the names of their cursors."""
        shown = (trigger.id for trigger in self._triggers.all() if project in (None, trigger.project))
        lags = (((key, name), lag) for key in shown if (state := self.state(key)) for name, lag in state.lag.items())
        return nlargest(most, lags, key=lambda item: item[1])

    def follow(self, trigger_id: str, trigger: BoundTrigger | None) -> None:
        """Pass a change of a trigger to its source. Start a source for a new trigger if ``run`` has begun to do so.

        ``trigger`` is None if the trigger was deleted.
        """
        source = self._sources.get(trigger_id)
        if self._tasks is None:
            return  # the sources have not begun, or have ended
        if source is not None:
            source.want(trigger)
        elif trigger is not None and self._cluster.owns(trigger_id):
            policy, longest = self._policy, trigger.plugin.rules.longest_delay
            policy = policy if policy.longest <= longest else replace(policy, longest=longest)
            self._sources[trigger_id] = Source(
                trigger, self._run_once, self._register, self._clock, policy, self._tasks, self._forget
            )

    def end_refused(self) -> None:
        """Restart the sources whose projects may no longer use what they read, so that they fail. Others run on."""
        for trigger in filter(lambda trigger: trigger.runnable, self._triggers.all()):
            try:
                self._contexts.check_use(trigger)
            except NotForProject:
                self.follow(trigger.id, trigger)

    # --- inside ---------------------------------------------------------------------------------------------

    async def _start_services(self, tasks: TaskGroup) -> None:
        for table, context in self._contexts.services().items():
            supervisor = self._services[table] = Supervisor(self._clock, self._policy, tasks, service=table)
            supervisor.start(_service(context))
        with anyio.move_on_after(START):
            for supervisor in self._services.values():
                await supervisor.settled.wait()

    async def _await_push_sources(self) -> None:
        """Wait up to ``START`` seconds for push sources, so that they receive requests as soon as the engine serves."""
        push = [trigger.id for trigger in self._triggers.all() if trigger.plugin.rules.start_before_stop]
        pushing = [self._sources[trigger_id] for trigger_id in push if trigger_id in self._sources]
        with anyio.move_on_after(START):
            for source in pushing:
                await source.settled()

    def _forget(self, trigger_id: str, source: Source) -> None:
        del self._sources[trigger_id]
        self._past.accepted += source.tally.accepted
        self._past.refused += source.tally.refused
        self._past.lost += source.tally.lost

    async def _run_once(self, trigger: BoundTrigger, supervisor: Supervisor, tally: Tally) -> Rest | None:
        assert trigger.plugin.trigger is not None
        self._contexts.check_use(trigger)
        positions = self._first.pop(trigger.id, None) or await self._deps.cursors.read(trigger.id)
        plugin = self._contexts.of(trigger.plugin)
        context = SourceContext(trigger, plugin, self._deps, supervisor, tally, positions)
        return await trigger.plugin.trigger(trigger.options).run(context, task_status=supervisor)

    def _register(self, trigger: BoundTrigger, tally: Tally) -> AbstractContextManager[None] | None:
        on_registered, plugin = trigger.plugin.rules.on_registered, self._contexts.of(trigger.plugin)
        if on_registered is None:
            return None
        return on_registered(plugin.service, trigger.options, TriggerIngress(trigger, plugin, self._deps, tally))


def _service(context: EnginePluginContext) -> Callable[[Supervisor], Awaitable[None]]:
    service = context.service
    assert service is not None
    return lambda supervisor: service.run(context, task_status=supervisor)
