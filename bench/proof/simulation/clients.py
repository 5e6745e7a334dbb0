"""Simulated clients and operators: requests, cancellations, changes of functions, of the clock and of the disk."""

from __future__ import annotations

import asyncio
from collections import deque
from random import Random

from anyio.abc import TaskGroup

from bench.proof.simulation.storage import SimulatedStorage
from bench.proof.simulation.witness import Witness
from bench.proof.simulation.world import DECADE, FAIR, HOUR, PASSING, World
from engine.app.parts import EngineParts
from engine.errors import FunctiondError, IdempotencyConflict, OutcomeUnknown
from engine.model import Mode, Request, State
from engine.protocols import FIRST, Selection

#: Mean seconds between two actions, and the shares of the actions.
PAUSE = 850.0
BURST = 150  #: requests of each function in a burst
FATAL = 0.004  #: share of requests whose runs end the engine's process
#: Least seconds between two steps of the clock.
STEPS_APART = 4 * HOUR
LONG = 100_000.0  #: seconds of a long failure of a destination
FAILING_CRASH = 0.5  #: share of the failures of the disk that are soon followed by a crash
MEANWHILE = 6  #: requests that are sent while the disk may fail
PAUSED = 5  #: function that operators pause


class Memory:
    """State of clients that survives the processes of the engine."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.number = 0
        self.known: deque[tuple[int, str]] = deque(maxlen=50)  #: function and id of recent requests
        self.tokens: deque[tuple[int, str, bytes, str, float]] = deque(maxlen=20)
        self.passing = list(PASSING)
        self.ahead = 0.0  #: seconds by which the clock is a decade off
        self.next_step = 24 * HOUR


def step_clock(world: World, memory: Memory) -> None:
    """Set the clock by an hour or a decade, or back, unless that was done shortly before."""
    if world.time() < memory.next_step:
        return
    memory.next_step = world.time() + STEPS_APART
    step = -memory.ahead or memory.random.choice((HOUR, -HOUR, HOUR, -HOUR, DECADE, -DECADE))
    memory.ahead = step if abs(step) == DECADE and not memory.ahead else 0.0
    world.set_clock(step)


class Clients:
    """Clients of one simulated process. ``stopping`` is set when an operator stops it."""

    def __init__(self, world: World, witness: Witness, memory: Memory, engine: EngineParts) -> None:
        self._world, self._witness, self._memory, self._engine = world, witness, memory, engine
        self._random = memory.random
        self.stopping = False

    async def act(self, storage: SimulatedStorage, tasks: TaskGroup, until: float) -> None:
        """Act until the time ``until``, or until an operator stops the engine."""
        while not self.stopping:
            pause = self._random.expovariate(1 / PAUSE) if self._random.random() < 0.7 else self._random.random()
            if self._world.time() + pause >= until:
                await asyncio.sleep(max(0.0, until - self._world.time()))
                return
            await asyncio.sleep(pause)
            self._choose(storage, tasks)

    def _choose(self, storage: SimulatedStorage, tasks: TaskGroup) -> None:
        random, chance = self._random, self._random.random()
        if chance < 0.44:
            kind = random.choice((1, 4, 4, 4, 5, 6, 6, 8, 10, 11))
            for _ in range(random.randint(1, 8)):
                tasks.start_soon(self._request, kind, "", random.random() < 0.2)
        elif chance < 0.47:
            tasks.start_soon(self._batch)
        elif chance < 0.485:
            tasks.start_soon(self._pause)
        elif chance < 0.50:
            tasks.start_soon(self._cancel_all)
        elif chance < 0.60:
            self._world.published += random.randint(1, 30)
            if self._world.more_events is not None:
                self._world.more_events.set()
        elif chance < 0.68:
            tasks.start_soon(self._retry)
        elif chance < 0.76:
            tasks.start_soon(self._cancel)
        elif chance < 0.84:
            tasks.start_soon(self._call)
        elif chance < 0.87:
            self._burst(tasks)
        elif chance < 0.89:
            tasks.start_soon(self._delete)
        elif chance < 0.91:
            tasks.start_soon(self._disable)
        else:
            self._trouble(storage, tasks, chance)

    def _trouble(self, storage: SimulatedStorage, tasks: TaskGroup, chance: float) -> None:
        random = self._random
        if chance < 0.94:
            for _ in range(random.randint(0, 8)):
                tasks.start_soon(self._request, random.choice((4, 6, 8)), "", random.random() < 0.5)
            loop = asyncio.get_running_loop()
            loop.call_later(random.uniform(0.0, 0.01), self._fail, storage)
            for _ in range(MEANWHILE):
                tasks.start_soon(self._request_later, random.uniform(0.0, 6.0))
            if random.random() < FAILING_CRASH:
                loop.call_later(random.uniform(0.0, 6.0), self._world.loop.crash_soon, 1)
        elif chance < 0.96:
            self._world.failing_until = self._world.time() + random.choice((60.0, 1800.0, LONG, LONG))
        elif chance < 0.99:
            step_clock(self._world, self._memory)
            self._witness.count["clock steps"] += 1
        elif chance < 0.995:
            storage.writes.fail_for(0.0, broken=True)
            self.stopping = True
        else:
            self.stopping = True

    def _fail(self, storage: SimulatedStorage) -> None:
        self._witness.fairness.reset()
        self._world.failures.append(self._world.time())
        storage.writes.fail_for(self._random.choice((0.1, 8.0, 20.0)))

    def _burst(self, tasks: TaskGroup) -> None:
        """Send many requests at once: for functions that share the slots, or for one whose window is then full."""
        if self._random.random() < 0.3:
            for _ in range(4 * BURST):
                tasks.start_soon(self._request, 8, "brief", False)
        else:
            for _ in range(BURST // 3):
                for kind in FAIR:
                    tasks.start_soon(self._request, kind, "long", False)

    # --- requests -------------------------------------------------------------------------------------------

    async def _request(self, function_id: int, form: str, with_token: bool) -> None:
        memory, random = self._memory, self._random
        memory.number += 1
        payload = self._payload(function_id, form)
        token = f"token-{memory.number}" if with_token else ""
        delay = random.choice((0.0, 0.0, 0.0, 30.0, 5000.0)) if not form else 0.0
        if token:
            memory.tokens.append((function_id, token, payload, "", 0.0))
        priority = random.choice((0, 0, 0, 5, 9))
        key = random.choice(("", "", "a", "b", "c")) if not form and function_id not in FAIR else ""
        await self._send(function_id, payload, token, delay=delay, priority=priority, ordering_key=key)

    async def _request_later(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        await self._request(self._random.choice((4, 6, 8)), "", self._random.random() < 0.5)

    def _payload(self, function_id: int, form: str) -> bytes:
        random = self._random
        seconds = {"brief": 0.05, "long": random.uniform(1.0, 5.0)}.get(form, random.choice((0.05, 0.5, 2.0, 8.0)))
        behaviour = "ok"
        if function_id not in FAIR and form == "":
            behaviour = random.choice(("ok", "ok", "ok", "error", "unsteady", "hang"))
            if random.random() < FATAL and function_id != 8:
                behaviour = "fatal"
        elif random.random() < 0.02:
            behaviour = "hang"
        return b'{"n":%d,"b":"%s","t":%.3f}' % (self._memory.number, behaviour.encode(), seconds)

    async def _send(
        self,
        function_id: int,
        payload: bytes,
        token: str,
        *,
        delay: float = 0.0,
        priority: int = 0,
        ordering_key: str = "",
    ) -> str | None:
        request = Request(
            function=self._world.kinds[function_id].urn,
            payload=payload,
            delay=delay,
            priority=priority,
            idempotency_key=token,
            ordering_key=ordering_key,
        )
        self._witness.requests.sent(payload)
        try:
            request_id = await self._engine.intake.accept(request)
        except IdempotencyConflict:
            self._witness.violation(f"the idempotency key {token} is said to have another body")
            return None
        except FunctiondError as error:
            self._note_refusal(error, payload)
            return None
        self._witness.acknowledged(self._engine.storage.identity.key_of(request_id), payload)
        self._memory.known.append((function_id, request_id))
        return request_id

    def _note_refusal(self, error: FunctiondError, payload: bytes) -> None:
        self._witness.count[type(error).__name__] += 1
        if not isinstance(error, OutcomeUnknown):
            self._witness.requests.refused(payload)

    async def _batch(self) -> None:
        """Send several requests at once, which are stored together, or each as far as there is room."""
        memory, random, witness = self._memory, self._random, self._witness
        kind, requests = self._world.kinds[random.choice((4, 6, 8, 11))], list[Request]()
        for _ in range(random.randint(2, 8)):
            memory.number += 1
            key = random.choice(("", "", "a", "b"))
            requests.append(Request(function=kind.urn, payload=self._payload(kind.id, ""), ordering_key=key))
        payloads, together = [request.payload for request in requests], random.random() < 0.5
        for payload in payloads:
            witness.requests.sent(payload)
        if together:
            witness.requests.sent_together(payloads)
        accept = self._engine.intake.accept_batch if together else self._engine.intake.accept_each
        try:
            results = await accept(requests)
        except FunctiondError as error:
            for payload in payloads:
                self._note_refusal(error, payload)
            return
        witness.count["batches"] += 1
        for payload, result in zip(payloads, results, strict=True):
            if isinstance(result, str):
                witness.acknowledged(self._engine.storage.identity.key_of(result), payload)
                memory.known.append((kind.id, result))
            else:
                self._note_refusal(result, payload)

    async def _retry(self) -> None:
        """Send an earlier request again, with its idempotency key, and compare the ids."""
        memory, world = self._memory, self._world
        if not memory.tokens:
            return
        index = self._random.randrange(len(memory.tokens))
        function_id, token, payload, earlier, since = memory.tokens[index]
        request_id = await self._send(function_id, payload, token)
        if request_id is None:
            return
        if earlier not in ("", request_id):
            self._witness.repeated(token, self._engine.storage.identity.key_of(earlier), since)
        entry = (function_id, token, payload)
        for place, other in enumerate(memory.tokens):
            if other[:3] == entry:
                memory.tokens[place] = (*entry, request_id, world.time() if request_id != earlier else since)

    async def _cancel(self) -> None:
        """Cancel a recent request, or a new one that probably runs."""
        if self._random.random() < 0.6:
            for _ in range(self._random.randint(1, 3)):
                await self._request(self._random.choice((4, 5, 6)), "long", False)
            await asyncio.sleep(self._random.uniform(0.0, 1.0))
            request_id = self._memory.known[-1][1] if self._memory.known else ""
        elif self._memory.known:
            _, request_id = self._random.choice(self._memory.known)
        else:
            return
        key = self._engine.storage.identity.key_of(request_id) or 0
        tracked = self._witness.by_key.get(key)
        if tracked is None:
            return  # purged
        tracked.cancelling += 1
        try:
            cancelled = await self._engine.dispatcher.cancel(key)
        except FunctiondError as error:
            self._witness.count[type(error).__name__] += 1
            return  # the end may still come
        self._witness.cancelled(tracked, cancelled)

    async def _cancel_all(self) -> None:
        """Cancel waiting invocations of one function."""
        function_id = self._random.choice((4, 6, 8))
        self._witness.cancelling[function_id] += 1
        selection, states = Selection(function_id=function_id), frozenset({State.WAIT})
        try:
            step = await self._engine.dispatcher.cancellation.step(selection, states, FIRST, 50)
        except FunctiondError as error:
            self._witness.count[type(error).__name__] += 1
            return  # the ends may still come
        self._witness.cancelling[function_id] -= 1
        self._witness.count["cancelled together"] += len(step.keys)

    async def _call(self) -> None:
        self._memory.number += 1
        request = Request(
            function=self._world.kinds[self._random.choice((4, 8, 11))].urn,
            payload=self._payload(8, "brief"),
            mode=Mode.SYNC,
        )
        try:
            await self._engine.intake.call(request)
            self._witness.count["synchronous calls"] += 1
        except FunctiondError as error:
            self._witness.count[type(error).__name__] += 1

    # --- operators ------------------------------------------------------------------------------------------

    async def _delete(self) -> None:
        """Send requests for a function, delete it meanwhile, and send more."""
        memory, world = self._memory, self._world
        if not memory.passing:
            return
        kind = memory.passing.pop()
        for number in range(20):
            await self._request(kind.id, "", False)
            if number == 12:
                world.deleted.add(kind.id)
                try:
                    await self._engine.catalog.delete(kind.urn)
                except FunctiondError:
                    continue  # the outcome is unknown, or the disk fails: the function may stay

    async def _pause(self) -> None:
        """Pause a function for a while. An operator resumes it, also after a crash."""
        kind, world = self._world.kinds[PAUSED], self._world
        if kind.id in world.pausing:
            return
        async with asyncio.TaskGroup() as tasks:
            for _ in range(self._random.randint(0, 6)):
                tasks.create_task(self._request(kind.id, "long", False))
        world.pausing.add(kind.id)
        try:
            await self._engine.controls.change(kind.urn, {"paused": True})
        except FunctiondError:
            await asyncio.sleep(0)  # the outcome may be unknown
        else:
            asyncio.get_running_loop().call_later(1.0, self._note_paused, kind.id)  # after starts that were under way
            for _ in range(self._random.randint(0, 6)):
                await self._request(kind.id, "", False)
            await asyncio.sleep(self._random.choice((10.0, 1200.0)))
        await self.resume()

    def _note_paused(self, function_id: int) -> None:
        if function_id in self._world.pausing:
            self._world.paused.add(function_id)
            self._witness.count["pauses"] += 1

    async def resume(self) -> None:
        """Resume the paused function, until it is resumed."""
        kind, world = self._world.kinds[PAUSED], self._world
        world.paused.discard(kind.id)
        while kind.id in world.pausing:
            try:
                await self._engine.controls.change(kind.urn, {"paused": False})
                world.pausing.discard(kind.id)
            except FunctiondError:
                await asyncio.sleep(5.0)

    async def _disable(self) -> None:
        """Disable a function for a while. An operator enables it again, also after a crash."""
        kind, world = self._world.kinds[6], self._world
        try:
            await self._engine.catalog.limit(kind.urn, 0)
            world.disabled.add(kind.id)
            await asyncio.sleep(self._random.choice((10.0, 1200.0)))
        except FunctiondError:
            world.disabled.add(kind.id)  # the outcome may be unknown
        await self.enable()

    async def enable(self) -> None:
        """Enable the function that an operator has disabled, until it is enabled."""
        kind = self._world.kinds[6]
        while kind.id in self._world.disabled:
            try:
                await self._engine.catalog.limit(kind.urn, kind.instances)
                self._world.disabled.discard(kind.id)
            except FunctiondError:
                await asyncio.sleep(5.0)
