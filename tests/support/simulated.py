"""Simulated context for a trigger's source. Time passes as fast as the source sleeps; crashes can be injected."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, cast
from unittest.mock import patch

from engine import Event, EventSink, Mode, Outcome, PluginContext
from engine.protocols import Trigger
from plugins.timer import source
from tests.doubles import ManualClock


class Over(BaseException):
    """End of the simulated time."""


class Crash(BaseException):
    """Simulated crash of the engine."""


class World:
    """State that outlives an engine: accepted events and cursors. Time stops at ``end``."""

    def __init__(self, begin: float, end: float, settings: Any) -> None:
        self.clock, self.end, self.settings = ManualClock(begin), end, settings
        self.events: list[Any] = []
        self.calls: list[Any] = []
        self.called_at: list[float] = []
        self.takes = 0.0  #: seconds that a call takes
        self.cursors: dict[str, bytes] = {}
        self.keys: set[str] = set()
        self.generation, self.enabled_generation, self.since = 1, 1, begin
        self.mode = Mode.ASYNC
        self.switched_off: Callable[[], bool] = lambda: False
        self.delays: list[float] = []  #: seconds that each of the next batches waits for capacity
        self.jumps: list[float] = []  #: seconds that the clock is set ahead while each of the next batches is stored
        self.ahead = 0.0
        self.steps = 0
        #: Step n crashes before it is stored (n), or after it is stored but before the source sees it (n + 0.5).
        self.crash_at = -1.0

    async def run(self, trigger: Trigger) -> bool:
        """Run one engine; return False if it crashed before the end of the simulated time."""
        try:
            with patch.object(source, "elapsed", self.elapsed):
                context = _Context(self)
                rest = await trigger.run(context, task_status=_Started())
                while rest is not None:
                    await context.plugin.sleep_toward(rest.until)
                    rest = await rest.resume()
        except Over:
            return True
        except Crash:
            return False
        raise AssertionError("a source runs until it is cancelled")

    def elapsed(self) -> float:
        """Return the time that has passed, however the clock was set."""
        return self.clock.now() - self.ahead

    def moments(self) -> list[str]:
        return [event["time"] for event in self.events]


class _Started:
    def started(self, value: None = None) -> None: ...


class _Context:
    kind, function, project, trigger_id = "TIMER", "urn", "p", "t"
    deleted, claimed = False, 0.0

    def __init__(self, world: World) -> None:
        self._world = world
        self.mode, self.generation, self.since = world.mode, world.generation, world.since
        self.enabled_generation = world.enabled_generation
        self.plugin = cast("PluginContext", _Plugin(world))

    @property
    def cursors(self) -> Mapping[str, bytes]:
        return dict(self._world.cursors)

    async def accept(self, event: Event) -> str:
        raise AssertionError("a pull source accepts batches only")

    async def accept_with(self, event: Event, others: Sequence[tuple[EventSink, Event]]) -> Sequence[str]:
        raise AssertionError("a pull source accepts batches only")

    async def accept_batch(
        self,
        events: Sequence[Event],
        cursors: Mapping[str, bytes] | None = None,
        *,
        check: Callable[[], Awaitable[object]] | None = None,
    ) -> Sequence[str]:
        world = self._world
        world.steps += 1
        if world.crash_at == world.steps:
            raise Crash
        jump = world.jumps.pop(0) if world.jumps else 0.0
        world.ahead += jump
        world.clock.advance(jump + (world.delays.pop(0) if world.delays else 0.0))
        fresh = [event for event in events if event.idempotency_key not in world.keys]
        world.keys |= {event.idempotency_key for event in fresh}
        world.events += [json.loads(event.payload) for event in fresh]
        world.cursors |= cursors or {}
        if world.crash_at == world.steps + 0.5:
            raise Crash
        return ["id"] * len(events)

    async def call(self, event: Event) -> tuple[str, Outcome]:
        self._world.calls.append(json.loads(event.payload))
        self._world.called_at.append(self._world.clock.now())
        self._world.clock.advance(self._world.takes)
        return "id", Outcome()

    async def enabled(self) -> bool:
        if self._world.clock.now() > self._world.end:
            raise Over
        return self._world.switched_off()

    async def ended(self, request_id: str) -> None:
        raise AssertionError("nothing runs here")

    def report_problem(self, problem: str) -> None: ...

    def report_lost(self, text: str, events: int) -> None: ...

    def report_refused(self, text: str) -> None: ...

    def report_notice(self, text: str) -> None: ...

    def report_lag(self, lag: Mapping[str, int]) -> None: ...


class _Plugin:
    def __init__(self, world: World) -> None:
        self._world = world
        self.settings, self.clock = world.settings, world.clock

    async def sleep_toward(self, moment: float) -> None:
        if moment > self._world.end:
            raise Over
        self.clock.advance(max(0.0, moment - self.clock.now()))
