"""Run of a simulation: one process of the engine after another, until the simulated time is over."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

import anyio
from msgspec import Struct

from bench.proof.lives import temporary
from bench.proof.simulation.audit import Auditor, check_end
from bench.proof.simulation.clients import Clients, Memory, step_clock
from bench.proof.simulation.connections import inline
from bench.proof.simulation.environment import deterministic
from bench.proof.simulation.loop import Crash, NothingToRun, SimulatedLoop
from bench.proof.simulation.pool import NoCodes, SimulatedPool, simulated_plugin
from bench.proof.simulation.states import StateStream
from bench.proof.simulation.storage import SimulatedStorage
from bench.proof.simulation.stored import StoredStorage, create
from bench.proof.simulation.witness import KEPT, MEMORY, SLOTS, SYNC_SLOTS, Witness
from bench.proof.simulation.world import AGE, HOUR, REGION, RETENTION, ROWS, MachineClock, World
from engine.app.lifecycle import services
from engine.app.parts import EngineParts
from engine.app.signals import connect
from engine.config.plugin_registry import Registry
from engine.config.settings import (
    ExecutorSettings,
    HttpSettings,
    QueueSettings,
    Settings,
    StorageSettings,
)
from engine.errors import JournalBroken
from engine.errors.groups import leaves
from engine.http.function_tokens import STORE as TOKENS
from engine.http.function_tokens import FunctionTokens
from engine.logs.feed import LogBoard
from plugins.function import plugin as function_plugin
from plugins.timer import plugin as timer_plugin

#: Callbacks after which a process crashes, at most.
LIFE = 20_000
#: Callbacks for each COMMIT, about.
CALLBACKS = 10
#: Share of the pauses between two processes in which the clock is set.
STEPPED = 0.05
#: Seconds that the last process gets to do all work that is due.
CLEARANCE = 30 * HOUR


class Report(Struct, frozen=True, kw_only=True):
    """Result of a simulation. The same seed and hours give the same ``digest``."""

    seed: int
    hours: float
    invocations: int
    crashes: int
    violations: tuple[str, ...]
    digest: str  #: hash of all events
    counts: dict[str, int]
    unfair: float  #: largest difference of two functions, in seconds of slots


def simulate(seed: int, hours: float, *, first_only: bool = False, stored: bool = False) -> Report:
    """Simulate an engine for ``hours`` and check everything that it does. If ``first_only``, end at a violation.

    If ``stored``, the storage is the real one.
    """
    world = World(seed)
    witness, memory = Witness(world, first_only=first_only), Memory(world.fork())
    world.tables.observer = witness
    with ExitStack() as stack:
        if stored:
            world.folder = stack.enter_context(temporary()) / "1"
            stack.enter_context(patch("secrets.randbits", lambda bits: seed))
            create(world)
        stack.enter_context(deterministic(world))
        end = world.time() + hours * HOUR
        while world.time() < end and not (first_only and witness.violations):
            _live(world, witness, memory, end)
        complete = False
        while not complete and len(witness.violations) < (1 if first_only else KEPT):
            complete = _live(world, witness, memory, world.time() + CLEARANCE, last=True)
        if complete:
            check_end(world, witness)
    return Report(
        seed=seed,
        hours=hours,
        invocations=witness.count["invocations"],
        crashes=witness.count["crashes"],
        violations=tuple(witness.violations),
        digest=world.digest,
        counts=dict(sorted(witness.count.items())),
        unfair=witness.fairness.worst,
    )


def _live(world: World, witness: Witness, memory: Memory, until: float, *, last: bool = False) -> bool:
    """Run one process of the engine until it crashes, is stopped, or the time ``until`` has come.

    Return False if it crashed, or lost its storage.
    """
    random, complete = world.fork(), False
    world.life += 1
    loop = world.loop = SimulatedLoop(world.mono, random)
    if not last:
        loop.crash_at = random.randint(1, LIFE if random.random() < 0.8 else LIFE // 20)
    born = world.mono
    stack = ExitStack()
    if world.folder.name:
        storage: Any = StoredStorage(world, witness, random, retention=RETENTION)
        stack.enter_context(inline(storage.disk))
        if not last and random.random() < 0.5:
            loop.crash_at, storage.disk.crash_at = None, (loop.crash_at or 0) // CALLBACKS + 1
    else:
        storage = SimulatedStorage(world.tables, random, node=world.seed, retention=RETENTION)
    try:
        loop.run(_serve(world, witness, memory, storage, until, last))
        witness.count["stops"] += 1
        complete = True
    except Crash:
        witness.count["crashes"] += 1
    except NothingToRun:
        witness.violation("the engine waits for nothing")
    except Exception as error:
        witness.count["broken"] += 1
        for leaf in leaves(error):
            if not isinstance(leaf, JournalBroken):
                witness.violation(f"the engine ended with {leaf!r}")
    for problem in loop.errors:
        witness.violation(problem)
    storage.end()
    witness.count_crashes()
    world.mono = loop.time()
    world.note("process ended")
    world.lives.append((born, world.mono))
    loop.abandon()
    stack.close()
    world.loop = None
    witness.process_ended()
    if not last:
        world.mono += random.choice((1.0, 5.0, 300.0, random.uniform(0.0, 2 * HOUR)))
        if random.random() < STEPPED:
            step_clock(world, memory)
    return complete


async def _serve(world: World, witness: Witness, memory: Memory, storage: Any, until: float, last: bool) -> None:
    async with storage.opened():
        engine = _engine(world, witness, storage)
        connect(engine)
        async with services(engine):
            auditor = Auditor(world, witness, storage, engine)
            world.loop.on_idle = auditor.look
            clients = Clients(world, witness, memory, engine)
            async with anyio.create_task_group() as tasks:
                if world.disabled:
                    tasks.start_soon(clients.enable)
                if world.pausing:
                    tasks.start_soon(clients.resume)
                if last:
                    world.failing_until = 0.0
                    await anyio.sleep(until - world.time())
                else:
                    await clients.act(storage, tasks, until)
                tasks.cancel_scope.cancel()
            auditor.draining = True


def _engine(world: World, witness: Witness, storage: Any) -> EngineParts:
    random, clock = world.fork(), MachineClock(world)
    world.clock = clock
    world.judge_clock()
    pool: Any = SimulatedPool(world, witness, random)
    codes: Any = NoCodes()
    board = LogBoard()
    board.status_store = StateStream(world, storage.identity)
    plugins = [timer_plugin, function_plugin, simulated_plugin(world, witness, random)]
    return EngineParts(
        settings=_settings(),
        clock=clock,
        storage=storage,
        pool=pool,
        codes=codes,
        registry=Registry(plugins),
        board=board,
        tls=None,
        function_sockets=[],
        function_tokens=FunctionTokens(storage.store(TOKENS), "none"),
    )


def _settings() -> Settings:
    return Settings(
        http=HttpSettings(region=REGION),
        queue=QueueSettings(rows=2000, function_rows=550, idempotency_retention=RETENTION),
        executor=ExecutorSettings(slots=SLOTS, sync_slots=SYNC_SLOTS, memory=MEMORY),
        storage=StorageSettings(data_dir="/", free_space=0, retention=AGE, retention_rows=ROWS),
        grace=10.0,
    )


__all__ = ["EngineParts", "Report", "simulate"]
