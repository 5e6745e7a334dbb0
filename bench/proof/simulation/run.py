"""Run of a simulation: one process of the engine after another, until the simulated time is over."""

from __future__ import annotations

from typing import Any

import anyio
from msgspec import Struct

from bench.proof.simulation.audit import Auditor, check_end
from bench.proof.simulation.clients import Clients, Memory
from bench.proof.simulation.environment import deterministic
from bench.proof.simulation.loop import Crash, NothingToRun, SimulatedLoop
from bench.proof.simulation.pool import NoCodes, SimulatedPool, simulated_plugin
from bench.proof.simulation.storage import SimulatedStorage
from bench.proof.simulation.witness import MEMORY, SLOTS, SYNC_SLOTS, Witness
from bench.proof.simulation.world import HOUR, REGION, RETENTION, MachineClock, World
from engine.app.lifecycle import services
from engine.app.parts import EngineParts, Infrastructure
from engine.app.wiring import wire
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
from engine.logs.feed import LogBoard
from plugins.function import plugin as function_plugin
from plugins.timer import plugin as timer_plugin

#: Callbacks after which a process crashes, at most.
LIFE = 20_000
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


def simulate(seed: int, hours: float, *, first_only: bool = False) -> Report:
    """Simulate an engine for ``hours`` and check everything that it does. If ``first_only``, end at a violation."""
    world = World(seed)
    witness, memory = Witness(world, first_only=first_only), Memory(world.fork())
    with deterministic(world):
        end = world.time() + hours * HOUR
        while world.time() < end and not (first_only and witness.violations):
            _live(world, witness, memory, end)
        complete = False
        while not complete and not (first_only and witness.violations):
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
    storage = SimulatedStorage(world.tables, witness, random, node=world.seed, retention=RETENTION)
    born = world.mono
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
        for one in leaves(error):
            if not isinstance(one, JournalBroken):
                witness.violation(f"the engine ended with {one!r}")
    for problem in loop.errors:
        witness.violation(problem)
    storage.writes.crash()
    witness.count_crashes()
    world.mono = loop.time()
    world.note("process ended")
    world.lives.append((born, world.mono))
    loop.abandon()
    world.loop = None
    witness.process_ended()
    if not last:
        world.mono += random.choice((1.0, 5.0, 300.0, random.uniform(0.0, 2 * HOUR)))
    return complete


async def _serve(
    world: World, witness: Witness, memory: Memory, storage: SimulatedStorage, until: float, last: bool
) -> None:
    async with storage.opened():
        engine = wire(_infrastructure(world, witness, storage))
        async with services(engine):
            auditor = Auditor(world, witness, storage, engine)
            world.loop.on_idle = auditor.look
            clients = Clients(world, witness, memory, engine)
            async with anyio.create_task_group() as tasks:
                if world.disabled:
                    tasks.start_soon(clients.enable)
                if last:
                    world.failing_until = 0.0
                    await anyio.sleep(until - world.time())
                else:
                    await clients.act(storage, tasks, until)
                tasks.cancel_scope.cancel()
            auditor.draining = True


def _infrastructure(world: World, witness: Witness, storage: SimulatedStorage) -> Infrastructure:
    random, clock = world.fork(), MachineClock(world)
    world.clock = clock
    pool: Any = SimulatedPool(world, witness, random)
    codes: Any = NoCodes()
    plugins = [timer_plugin, function_plugin, simulated_plugin(world, witness, random)]
    return Infrastructure(
        settings=_settings(),
        clock=clock,
        storage=storage,
        pool=pool,
        codes=codes,
        registry=Registry(plugins),
        board=LogBoard(),
        tls=None,
    )


def _settings() -> Settings:
    return Settings(
        http=HttpSettings(region=REGION),
        queue=QueueSettings(rows=2000, function_rows=550, idempotency_retention=RETENTION),
        executor=ExecutorSettings(slots=SLOTS, sync_slots=SYNC_SLOTS, memory=MEMORY),
        storage=StorageSettings(data_dir="/", free_space=0, retention_rows=20_000),
        grace=10.0,
    )


__all__ = ["EngineParts", "Report", "simulate"]
