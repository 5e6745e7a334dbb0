"""World around the simulated engine: its clock, its functions, and what clients and other systems remember.

The world survives the crashes of the engine. Everything random in a simulation is drawn from generators of the world,
which are made from one seed.
"""

from __future__ import annotations

import asyncio
from hashlib import blake2b
from pathlib import Path
from random import Random
from typing import Any

import msgspec
from msgspec import Struct

from engine.model import AsyncSettings, Code, CodePackage, DestinationSpec, Function
from engine.model.clock import Clock
from engine.model.retry_rules import RetryRule
from engine.model.urn import FunctionUrn
from engine.protocols import StoredResource
from engine.resources.bound_trigger import KIND, StoredTrigger
from tests.doubles.tables import MemoryTables

EPOCH = 1_700_000_000.0  #: time of day at which each simulation starts
REGION, PROJECT = "local-1", "simulation"
RETENTION = 43_200.0  #: seconds for which an idempotency key is kept
AGE, ROWS = 43_200.0, 1200  #: seconds for which an ended invocation is kept, and number of those that are kept
WRITING = 60.0  #: seconds before its writing on disk at which an invocation was made, at most
#: Seconds of a forward step after which the clock is in doubt, and seconds for which nothing expires then.
DOUBTFUL, HOLD = 30 * 86_400.0, 600.0
HOUR, DECADE = 3_600.0, 3_653 * 86_400.0


class Kind(Struct, frozen=True, kw_only=True):
    """Properties of one simulated function."""

    id: int
    name: str
    instances: int = 400
    requests: int = 1  #: concurrent requests of an instance
    memory: int = 128
    timeout: int = 30
    weight: float = 1.0
    per_key: int = 1
    settings: AsyncSettings | None = None
    project: str = PROJECT

    @property
    def limit(self) -> int:
        return self.instances * self.requests

    @property
    def urn(self) -> FunctionUrn:
        return FunctionUrn(region=REGION, project=self.project, package="default", name=self.name)

    def function(self) -> Function:
        return Function(
            function_id=self.id,
            project=self.project,
            package="default",
            name=self.name,
            runtime="Python3.10",
            handler="index.handler",
            timeout=self.timeout,
            memory_size=self.memory,
            code=CodePackage(sha256="0" * 64, digest="", size=1),
            max_instances=self.instances,
            concurrent_num=self.requests,
            details={"functiond": {"weight": self.weight, "per_key": self.per_key}},
        )


def _to(name: str) -> DestinationSpec:
    return DestinationSpec(destination="SIMULATED", param=msgspec.json.encode({"name": name}).decode())


_SINK = DestinationSpec(
    destination="FunctionGraph", param=f'{{"func_urn":"urn:fss:{REGION}:{PROJECT}:function:default:sink"}}'
)
FAIR = (1, 2, 3, 12)  #: functions that are always among those compared for fairness
_RULED = AsyncSettings(
    max_age=86_400,
    max_retries=2,
    status_log=True,
    on_success=_SINK,
    retry_rules=(
        RetryRule(code=Code.TIMEOUT, max_retries=0),
        RetryRule(max_retries=5, base=20.0, longest=60.0, jitter=0.0),
    ),
)
LASTING = (
    Kind(id=1, name="fair1", timeout=10),
    Kind(id=2, name="fair2", timeout=10),
    Kind(id=3, name="fair3", timeout=10, weight=2.0),
    Kind(
        id=4,
        name="flaky",
        settings=AsyncSettings(
            max_age=7200, max_retries=3, on_success=_to("steady"), on_failure=_to("shaky"), status_log=True
        ),
    ),
    Kind(id=5, name="limited", instances=2, settings=AsyncSettings(max_age=600, max_retries=1, on_failure=_SINK)),
    Kind(
        id=6,
        name="single",
        instances=1,
        settings=_RULED,
    ),
    Kind(id=7, name="stream"),
    Kind(id=8, name="sink"),
    Kind(id=9, name="ticker"),
    Kind(id=10, name="large", memory=1536, settings=AsyncSettings(max_age=3600, max_retries=0)),
    Kind(id=11, name="shared", instances=2, requests=4, memory=512, per_key=2),
    Kind(id=12, name="fair4", timeout=10, project="other"),
)
#: Functions that are deleted in the course of a simulation.
PASSING = tuple(
    Kind(id=number, name=f"passing{number}", settings=AsyncSettings(max_retries=1, on_failure=_to("steady")))
    for number in range(20, 60)
)

#: Timers: name, type and text of the schedule, and its period in seconds.
TIMERS = (
    ("rate", "Rate", "30m", 1800),
    ("every", "Cron", "@every 1h10m", 4200),
    ("calendar", "Cron", "0 0 */6 * * *", 21_600),
)
STREAM = "stream"
LINES = "lines"  #: name under which the stream of states stores its lines


class MachineClock(Clock):
    """Clock of the world's machine, as one process reads it."""

    def __init__(self, world: World) -> None:
        self._world = world
        super().__init__()

    def now(self) -> float:
        return self._world.now()


class World:
    """State of a simulation outside the engine."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = Random(seed)
        self.mono = 1000.0  #: seconds since the simulated machine was started
        self.steps: list[tuple[float, float]] = [(self.mono, EPOCH - self.mono)]  #: time and new offset of the clock
        self.latest = 0.0  #: latest time that the clock has shown before a step
        self.doubts: set[int] = set()  #: numbers of the steps after which nothing expires for a while
        self.tables = MemoryTables()
        self.loop: Any = None
        self.kinds = {kind.id: kind for kind in (*LASTING, *PASSING)}
        self.deleted: set[int] = set()
        self.disabled: set[int] = set()
        self.pausing: set[int] = set()  #: functions whose pause may be on disk
        self.paused: set[int] = set()  #: functions that are paused for certain
        self.published = 0  #: events of the stream outside the engine
        self.more_events: asyncio.Event | None = None
        self.clock: MachineClock | None = None  #: of the current process
        self.life = 0  #: number of the current process
        self.lives: list[tuple[float, float]] = []  #: times in which processes ran
        self.failures: list[float] = []  #: times at which the disk failed
        self.folder = Path()  #: data directory, if the storage is a real one
        self.damaged: set[int] = set()  #: keys of invocations whose payload was damaged on disk
        self.followed = frozenset(
            function_id for function_id, kind in self.kinds.items() if kind.settings and kind.settings.status_log
        )
        self.lines = 0  #: writes of states to their stream
        self.failing_until = 0.0  #: time until which a destination refuses most deliveries
        self._hash = blake2b(digest_size=16)
        self.events = 0
        _fill(self)

    def now(self) -> float:
        """Return the time of day by the machine's clock, which can be set."""
        return self.time() + self.steps[-1][1]

    def time(self) -> float:
        """Return the seconds since the start of the machine, by a clock that cannot be set."""
        now: float = self.mono if self.loop is None else self.loop.time()
        return now

    def set_clock(self, step: float) -> None:
        """Set the clock. A process notices a large step, and the next one a time far after all that are on disk."""
        self.note("clock", step)
        now = self.now()
        self.latest = max(self.latest, now)
        if step > DOUBTFUL and (self.loop is not None or now + step > self.latest + DOUBTFUL):
            self.doubts.add(len(self.steps))
        self.steps.append((self.time(), self.steps[-1][1] + step))

    def judge_clock(self) -> None:
        """Let a new process judge the clock: a time that was shown before, and is on disk, is not in doubt any more."""
        if self.now() <= self.latest + DOUBTFUL:
            self.doubts.discard(len(self.steps) - 1)

    def reached(self, moment: float, since: float) -> bool:
        """Return whether the clock has shown ``moment`` or later, at any time after ``since``."""
        end = self.time()
        for begin, offset in reversed(self.steps):
            if end + offset >= moment:
                return True
            if begin < since:
                return False
            end = begin
        return False

    def expired(self, moment: float, since: float) -> bool:
        """Return whether a time was reached as ``reached`` tells, by a clock that was not in doubt."""
        end = self.time()
        for number in range(len(self.steps) - 1, -1, -1):
            begin, offset = self.steps[number]
            trusted = offset
            if number in self.doubts:
                trusted = self.steps[number - 1][1]
                if end - begin >= HOLD and end + offset >= moment:
                    return True
                end = min(end, begin + HOLD)
            if end + trusted >= moment:
                return True
            if begin < since:
                return False
            end = begin
        return False

    def note(self, *event: object) -> None:
        """Add an event to the log, of which only the hash is kept."""
        self.events += 1
        self._hash.update(repr((self.time(), *event)).encode())

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()

    def fork(self) -> Random:
        """Return a new generator whose numbers depend on the seed."""
        return Random(self.random.getrandbits(64))


def _fill(world: World) -> None:
    """Store the functions, their asynchronous settings, and the triggers."""
    for kind in world.kinds.values():
        world.tables.functions[kind.id, "latest"] = kind.function()
        world.tables.per_key[kind.id] = kind.per_key
        if kind.settings is not None:
            world.tables.settings[kind.id, "latest"] = kind.settings
    triggers = [(name, 9, "TIMER", {"name": name, "schedule_type": t, "schedule": s}) for name, t, s, _ in TIMERS]
    for name, function_id, kind_name, data in [*triggers, (STREAM, 7, "SIMULATED", {})]:
        stored = StoredTrigger(
            id=name, kind=kind_name, qualifier="latest", active=True, data=data, created_at=EPOCH, modified_at=EPOCH
        )
        owner = f"function:{function_id}"
        row = StoredResource(kind=KIND, owner=owner, id=name, body=msgspec.json.encode(stored))
        world.tables.resources[row.kind, row.owner, row.id] = row
