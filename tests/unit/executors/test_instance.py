"""Requests of one instance: their deadlines, their ends, and the kill of the whole instance."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from engine.executors.allocator import TRIES, Allocator
from engine.executors.call import Call, Deadlines, End, key_of
from engine.executors.instance import Instance, InstanceOwner
from engine.executors.launcher import LaunchPlan
from engine.executors.logs import LogBuffer, LogFiles, LogRecorder
from engine.executors.pool import Pool
from engine.executors.process import Exit
from engine.logs.feed import LogBoard
from engine.logs.lines import STDOUT, encode, plain
from engine.model import Code, Function, Invocation
from engine.model.clock import SystemClock
from engine.runtimes.protocol import DONE, READY, Answer
from tests.support.executing import function, invocation
from tests.unit.executors.test_allocator import Bare, Loading

GRACE = 0.01


class Running:
    """Process and channel that do nothing (protocols ``InstanceProcess``, ``Channel``), and owner of the instance."""

    id, pid, alive, connected, unsent = "i", 1, True, True, False

    def kill(self) -> None: ...

    def reap(self) -> Exit:
        return Exit(0)

    def write(self, frame: bytes) -> bool:
        return True

    def read_output(self) -> None: ...

    def read_rest(self) -> bool:
        return False

    def abort(self) -> None: ...

    def close(self) -> None: ...

    def instance_suspect(self, instance: Instance) -> None: ...

    def instance_ended(self, instance: Instance) -> None: ...

    def instance_closed(self, instance: Instance) -> None: ...


def recorder_of(folder: Path) -> LogRecorder:
    return LogRecorder(LogFiles(folder, 1 << 20), limit=1 << 10, clock=SystemClock(), board=LogBoard())


def instance_of(folder: Path, process: Running, asked: Function, **options: Any) -> Instance:
    """Return an instance of a function with this process. ``folder`` has its logs."""
    return Instance(
        process,
        key=key_of(asked),
        function=asked,
        owner=process,
        recorder=recorder_of(folder),
        on_work=lambda _: None,
        **options,
    )


async def test_an_answer_at_the_end_of_the_grace_period_spares_the_other_requests(tmp_path: Path) -> None:
    asked, running = function("any", concurrent_num=2), Running()
    instance = instance_of(tmp_path, running, asked, grace=GRACE)
    instance.connect(running)
    calls = [Call(key_of(asked), asked, invocation()) for _ in range(2)]
    tasks = [asyncio.ensure_future(instance.invoke(call, invocation(), 60.0)) for call in calls]
    await asyncio.sleep(0)

    instance.interrupt(End.CANCELLED, calls[0])
    answer = Answer(DONE, Code.OK, 0, "", b"", calls[0].ticket)
    asyncio.get_running_loop().call_soon(instance._receive, answer)
    time.sleep(2 * GRACE)  # the loop finds the answer and the end of the grace period in one turn  # noqa: ASYNC251

    assert await tasks[0] is None
    assert instance.end is None
    tasks[1].cancel()


# --- deadlines -----------------------------------------------------------------------------------------------


class Timer:
    def __init__(self, at: float, callback: Callable[[], None]) -> None:
        self.at, self.callback, self.cancelled = at, callback, False

    def cancel(self) -> None:
        self.cancelled = True


class Loop:
    """Clock and timers of an event loop, moved by hand."""

    def __init__(self) -> None:
        self.now = 100.0
        self.timers: list[Timer] = []

    def time(self) -> float:
        return self.now

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        self.timers.append(Timer(self.now + seconds, callback))
        return self.timers[-1]

    @property
    def pending(self) -> list[float]:
        return [timer.at for timer in self.timers if not timer.cancelled]

    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        while due := sorted(
            (timer for timer in self.timers if not timer.cancelled and timer.at <= end), key=lambda timer: timer.at
        ):
            self.timers.remove(due[0])
            self.now = due[0].at
            due[0].callback()
        self.now = end


class Calls:
    """Calls of an instance, their deadlines, and the tickets of those that expired."""

    def __init__(self) -> None:
        self.loop, self.calls, self.expired = Loop(), dict[int, Call](), list[tuple[float, int]]()
        loop = cast("asyncio.AbstractEventLoop", self.loop)
        self.deadlines = Deadlines(loop, self.calls, lambda call: self.expired.append((self.loop.now, call.ticket)))

    def begin(self, ticket: int, seconds: float) -> None:
        call = self.calls[ticket] = Call((1, "latest", 0, 128), cast("Any", None), None)
        call.ticket = ticket
        self.deadlines.set(call, seconds)


def test_a_call_expires_at_its_deadline() -> None:
    calls = Calls()
    calls.begin(1, 3.0)

    calls.loop.advance(2.999)
    assert calls.expired == []

    calls.loop.advance(0.001)
    assert calls.expired == [(103.0, 1)]


def test_calls_one_after_the_other_use_one_timer() -> None:
    calls = Calls()
    for ticket in range(1, 1001):
        calls.begin(ticket, 3.0)
        calls.loop.advance(0.001)
        del calls.calls[ticket]

    assert len(calls.loop.timers) == 1

    calls.loop.advance(10.0)
    assert (calls.expired, calls.loop.pending) == ([], [])


def test_each_call_has_its_own_deadline() -> None:
    calls = Calls()
    calls.begin(1, 5.0)
    calls.loop.advance(1.0)
    calls.begin(2, 5.0)
    calls.begin(3, 0.5)
    calls.begin(4, 9.0)

    calls.loop.advance(20.0)

    assert calls.expired == [(101.5, 3), (105.0, 1), (106.0, 2), (110.0, 4)]
    assert calls.loop.pending == []


def test_no_call_expires_after_the_end_of_the_instance() -> None:
    calls = Calls()
    calls.begin(1, 5.0)

    calls.deadlines.cancel()
    calls.loop.advance(20.0)

    assert calls.expired == []


# --- instances that end before they read a request -----------------------------------------------------------


class Leaving(Bare):
    """Instance that ends before it reads a request, unless ``stays``."""

    stays = False

    async def invoke(self, call: Call, invocation: Invocation, *limits: float) -> Answer | None:
        call.begin(self, 1)
        if self.stays:
            return Answer(DONE, Code.OK, 0, "", b"1")
        self.kill(End.EXITED)
        return None


class Ready(Loading):
    """Launcher whose instances are ready at once, after a line. ``leaving`` of them end before they read a request."""

    def __init__(self, leaving: int) -> None:
        super().__init__()
        self.leaving = leaving

    def launch(self, plan: LaunchPlan, owner: InstanceOwner) -> Instance:
        instance = Leaving(owner, plan)
        self.instances.append(instance)
        instance.stays = len(self.instances) > self.leaving
        return instance

    async def load(self, instance: Instance, start: Call) -> Answer:
        start.log_buffer = start.log_buffer or LogBuffer(start.invocation, 1 << 10)
        start.log_buffer.add(encode(0, STDOUT, b"started\n"))
        return Answer(READY, Code.OK, 0, "", b"")


def pool_of(launcher: Ready, folder: Path) -> Pool:
    clock, files = SystemClock(), LogFiles(folder, 1 << 20)
    allocator = Allocator(launcher, memory=0, idle=1000.0, clock=clock)
    return Pool(launcher, allocator, LogRecorder(files, limit=1 << 10, clock=clock, board=LogBoard()), files, clock)


async def test_a_request_that_was_not_read_runs_on_another_instance(tmp_path: Path) -> None:
    launcher = Ready(leaving=TRIES - 1)

    outcome = await pool_of(launcher, tmp_path).execute(function("any"), invocation())

    assert (outcome.ok, len(launcher.instances), [instance.assigned for instance in launcher.instances]) == (
        True,
        TRIES,
        [0] * 3,
    )
    assert plain(outcome.log) == b"started\n" * TRIES


async def test_three_new_instances_that_do_not_read_the_request_end_it(tmp_path: Path) -> None:
    launcher = Ready(leaving=100)
    opened = pool_of(launcher, tmp_path)

    outcome = await opened.execute(function("any"), invocation())

    assert (outcome.code, len(launcher.instances)) == (Code.ENGINE, TRIES)
    assert (opened.statistics().alive, opened.statistics().memory) == (0, 0)
