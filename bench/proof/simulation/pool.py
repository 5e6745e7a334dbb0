"""Simulated executor and destinations. Their behaviour is written in the payload, or drawn from the seed."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping
from random import Random

import msgspec
from anyio.abc import TaskStatus
from msgspec import Struct

from bench.proof.simulation.witness import Witness
from bench.proof.simulation.world import World
from engine.errors import Deferred
from engine.executors.idle import Reserve
from engine.model import Begin, Code, Function, Invocation, Outcome, PendingDelivery
from engine.model.invocation import Kind
from engine.model.signal import Signal
from engine.protocols import DeliveryContext, Event, Plugin, TriggerContext

CURSOR = "next"
DEFERRED = 50  #: attempts of which the last finds no node with room
FULL = 5.0  #: seconds until one has room again
COLD = 0.05  #: share of the runs that wait for a new instance before their handler begins


class Behaviour(Struct):
    """Behaviour of a run, as the payload describes it. Events of other origins succeed."""

    b: str = "ok"
    t: float = 0.2


class NoFiles:
    """Log files of a pool that writes none."""

    def expire_instances(self, before: float) -> None:
        pass

    def remove(self, request_ids: Iterable[str], attempts: Mapping[str, int]) -> None:
        pass


class SimulatedPool:
    """Pool whose runs are sleeps (protocol ``engine.protocols.Executor``)."""

    def __init__(self, world: World, witness: Witness, random: Random) -> None:
        self._world, self._witness, self._random = world, witness, random
        self._runs: dict[int, asyncio.Future[Code]] = {}
        self._asked = 0
        self.reserve, self.files = Reserve(()), NoFiles()
        self.capacity: Signal[[int, Kind, int]] = Signal()
        self.function_uids, self.walls, self.nodes = range(0), {"network": "host"}, None

    def function_of(self, instance_id: str) -> Function | None:
        return None

    async def check_runtime(self, runtime: str) -> None:
        pass

    async def warm(self, function: Function) -> bool:
        return True

    async def execute(self, function: Function, invocation: Invocation, begin: Begin | None = None) -> Outcome:
        started_at = self._world.now()
        self._asked += 1
        if self._asked % DEFERRED == 0:
            self._witness.count["deferred"] += 1
            self._witness.deferred.add(invocation.key)
            full = function.function_id, invocation.kind
            self.capacity(*full, 0)
            asyncio.get_running_loop().call_later(FULL, self.capacity, *full, -1)
            raise Deferred
        self._witness.begins(function, invocation)
        outcome: Outcome | None = None
        try:
            code = await self._run(function, invocation, begin)
            message = "" if code == Code.OK else "simulated"
            outcome = Outcome(code=code, message=message, started_at=started_at, ended_at=self._world.now())
            if code == Code.ENGINE and self._random.random() < 0.3:
                raise RuntimeError("simulated error of the executor")
            return outcome
        finally:
            self._witness.finishes(invocation, outcome)

    async def _run(self, function: Function, invocation: Invocation, begin: Begin | None) -> Code:
        if self._random.random() < COLD:
            await asyncio.sleep(self._random.uniform(0.0, 2.0))
        self._witness.handler_begins(invocation)  # a crash counts from the record of the begin, not from the begin
        if begin is not None and (stored := begin()) is not None:
            await stored
        return await self._handle(function, invocation)

    async def _handle(self, function: Function, invocation: Invocation) -> Code:
        behaviour = msgspec.json.decode(invocation.payload, type=Behaviour)
        kind, seconds = behaviour.b, behaviour.t
        if kind == "unsteady":
            kind = self._random.choice(("ok", "error", "fault", "overload", "hang"))
        if kind == "fatal":
            self._world.loop.crash_soon(self._random.randint(1, 30))
        if kind == "hang" or seconds > function.timeout:
            kind, seconds = "hang", float(function.timeout)
        loop = asyncio.get_running_loop()
        end: asyncio.Future[Code] = loop.create_future()
        self._runs[invocation.key] = end
        timer = loop.call_later(seconds, self._end, end, _CODES[kind])
        try:
            return await end
        finally:
            timer.cancel()
            del self._runs[invocation.key]

    def cancel(self, key: int) -> bool:
        run = self._runs.get(key)
        if run is None or run.done():
            return False
        run.set_result(Code.CANCELLED)
        return True

    def _end(self, end: asyncio.Future[Code], code: Code) -> None:
        if not end.done():
            end.set_result(code)

    async def retire(self, function_id: int, keep: Collection[int] = ()) -> None:
        pass

    async def drain(self) -> None:
        pass


_CODES = {
    "ok": Code.OK,
    "error": Code.USER_EXCEPTION,
    "fault": Code.ENGINE,
    "overload": Code.OVERLOAD,
    "hang": Code.TIMEOUT,
    "fatal": Code.OK,
}


class Param(Struct, frozen=True, kw_only=True):
    name: str


class Options(Struct, frozen=True, kw_only=True):
    pass


class SimulatedDestination:
    """Destination that takes deliveries, refuses them, or hangs. The one called ``shaky`` mostly fails for a while."""

    def __init__(self, name: str, world: World, witness: Witness, random: Random) -> None:
        self._name, self._world, self._witness, self._random = name, world, witness, random

    async def deliver(self, pending: PendingDelivery, record: bytes, context: DeliveryContext) -> None:
        failing = self._world.time() < self._world.failing_until
        chance = self._random.random()
        if self._name == "shaky" and failing and chance < 0.99:
            await asyncio.sleep(1000.0 if chance < 0.2 else 0.05)
            raise ConnectionError("simulated refusal")
        await asyncio.sleep(self._random.uniform(0.001, 0.2))
        if chance > 0.97:
            raise ConnectionError("simulated refusal")
        self._witness.takes(pending, record)


class SimulatedStream:
    """Source that reads the events of the world, one batch after another, from the position in its cursor."""

    def __init__(self, world: World, random: Random) -> None:
        self._world, self._random = world, random

    async def run(self, context: TriggerContext, *, task_status: TaskStatus[None]) -> None:
        task_status.started()
        position = int(context.cursors.get(CURSOR, b"0"))
        while True:
            while position >= self._world.published:
                self._world.more_events = asyncio.Event()
                await self._world.more_events.wait()
            end = min(self._world.published, position + self._random.randint(1, 20))
            events = [Event(payload=b'{"n":%d,"t":0.05}' % number) for number in range(position, end)]
            await context.accept_batch(events, {CURSOR: b"%d" % end})
            position = end


def simulated_plugin(world: World, witness: Witness, random: Random) -> Plugin:
    return Plugin(
        kinds=("SIMULATED",),
        options=Options,
        param=Param,
        trigger=lambda options: SimulatedStream(world, random),
        destination=lambda param: SimulatedDestination(param.name, world, witness, random),
    )


class NoCodes:
    """Store of code packages that has none."""

    async def sweep(self, keep: Collection[str]) -> None:
        pass
