"""Assignment of calls to instances under any order of requests, starts and exits. Instances are simulated."""

from __future__ import annotations

import asyncio
import gc
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import Deferred
from engine.executors.allocator import MAX_SCARCE, Allocator
from engine.executors.call import Call, End, Ended, Key, key_of
from engine.executors.instance import Instance, InstanceOwner
from engine.executors.launcher import LaunchPlan
from engine.model import Code, Function
from engine.model.clock import SystemClock
from engine.runtimes.interpreters import InterpreterInfo
from engine.runtimes.protocol import READY, Answer
from tests.support.executing import function


class Bare(Instance):
    """Part of an instance that the allocator uses."""

    id = "bare"

    def __init__(self, owner: InstanceOwner, plan: LaunchPlan) -> None:
        self.key, self.memory, self._owner = plan.key, plan.key[-1], owner
        self.concurrency = plan.function.concurrent_num
        self.assigned, self.served = 0, 0
        self.ready = self.obsolete = self.recycled = False
        self.end = self.exit_status = self.log_buffer = None
        self.node = self.lost = ""
        self.out_of_memory = self.heap_exhausted = False
        self.idle_since = 0.0
        self.closed = asyncio.Event()

    def kill(self, end: End, cause: Call | None = None) -> None:
        if self.end is None:
            self.end = end
            self._owner.instance_ended(self)
            self.closed.set()
            self._owner.instance_closed(self)

    def dismiss(self) -> None:
        self.kill(End.RETIRED)


class Loading:
    """Launcher whose instances become ready, or fail, when the test says so (protocol ``Launcher``)."""

    walls: Mapping[str, str] = {}
    function_uids = range(0)

    def __init__(self) -> None:
        self.instances: list[Instance] = []
        self.loads: dict[Instance, asyncio.Future[Answer | None]] = {}
        self.preparing: list[Callable[[], None]] = []  #: starts that have not waited for long yet
        self.room = asyncio.Event()
        self.room.set()

    def function_of(self, instance_id: str) -> Function | None:
        return None

    async def check_runtime(self, runtime: str) -> None: ...

    async def interpreters(self, runtime: str) -> list[InterpreterInfo]:
        return []

    async def prepare(self, key: Key, function: Function, on_wait: Callable[[], None]) -> LaunchPlan:
        self.preparing.append(on_wait)
        try:
            await self.room.wait()
        finally:
            if on_wait in self.preparing:
                self.preparing.remove(on_wait)
        return LaunchPlan(key, function, ["worker"], "0" * 32)

    def launch(self, plan: LaunchPlan, owner: InstanceOwner) -> Instance:
        instance = Bare(owner, plan)
        self.instances.append(instance)
        self.loads[instance] = asyncio.get_running_loop().create_future()
        return instance

    async def load(self, instance: Instance, start: Call) -> Answer | None:
        try:
            return await self.loads[instance]
        finally:
            self.loads.pop(instance, None)

    def clear(self, instance: Instance) -> None: ...

    async def close(self) -> None: ...

    def finish(self, instance: Instance, code: Code = Code.OK) -> None:
        self.loads[instance].set_result(Answer(READY, code, 0, "", b""))


class Crowd:
    """Calls of one key that come, end and are cancelled, on instances that start and exit."""

    def __init__(self, concurrency: int = 1) -> None:
        self.function = function("handler", concurrent_num=concurrency)
        self.key = key_of(self.function)
        self.launcher = Loading()
        self.allocator = Allocator(self.launcher, memory=0, idle=1000.0, clock=SystemClock())
        self.calls: dict[Call, asyncio.Future[Instance | Ended]] = {}  #: waiting
        self.served: list[tuple[Call, Instance]] = []
        self.failed: list[Ended] = []
        self.warming: list[asyncio.Future[bool]] = []
        self.deferred: list[Call] = []
        self.places = -1  #: announced last
        self.allocator.capacity.connect(self._note_places)

    def _note_places(self, function_id: int, kind: tuple[str, int], places: int) -> None:
        self.places = places

    def fill(self, pick: int) -> None:
        self.launcher.room.clear()

    def empty(self, pick: int) -> None:
        self.launcher.room.set()

    def linger(self, pick: int) -> None:
        """Let starts that are being prepared wait for longer."""
        while self.launcher.preparing:
            self.launcher.preparing.pop(0)()

    def come(self, pick: int = 0) -> Call:
        call = Call(self.key, self.function, None)
        self.calls[call] = asyncio.ensure_future(self._ask(call))
        return call

    async def _ask(self, call: Call) -> Instance | Ended:
        return self.allocator.acquire(call) or await self.allocator.wait(call)

    def warm(self, pick: int) -> None:
        self.warming.append(asyncio.ensure_future(self.allocator.warm(self.function)))

    def go(self, pick: int = 0) -> None:
        if self.served:
            self.allocator.release(self.served.pop(pick % len(self.served))[1])

    def cancel(self, pick: int) -> None:
        if self.calls:
            list(self.calls)[pick % len(self.calls)].cancel()

    def abandon(self, pick: int) -> None:
        if self.calls:
            list(self.calls.values())[pick % len(self.calls)].cancel()

    def load(self, pick: int = 0) -> None:
        self._finish(pick, Code.OK)

    def fail(self, pick: int) -> None:
        self._finish(pick, Code.ENTRY_NOT_FOUND)

    def fail_in_user_code(self, pick: int) -> None:
        self._finish(pick, Code.INIT_FAILED)

    def _finish(self, pick: int, code: Code) -> None:
        pending = [instance for instance, load in self.launcher.loads.items() if not load.done()]
        if pending:
            self.launcher.finish(pending[pick % len(pending)], code)

    def die(self, pick: int) -> None:
        alive = [instance for instance in self.launcher.instances if instance.end is None and instance.ready]
        if alive:
            alive[pick % len(alive)].kill(End.EXITED)

    async def retire(self, pick: int) -> None:
        await self.allocator.retire(self.key[0], ())

    async def do(self, *steps: str) -> None:
        """Make each of these steps, and let all tasks run after it."""
        for step in steps:
            getattr(self, step)(0)
            await self.settle()

    async def settle(self) -> None:
        """Let all tasks run that can, and note the results of waiting calls."""
        for _ in range(10):
            await asyncio.sleep(0)
        for call, task in list(self.calls.items()):
            if task.done():
                del self.calls[call]
                if not task.cancelled() and isinstance(task.exception(), Deferred):
                    self.deferred.append(call)
                elif not task.cancelled():
                    outcome = task.result()
                    self.failed += [outcome] if isinstance(outcome, Ended) else []
                    self.served += [] if isinstance(outcome, Ended) else [(call, outcome)]

    def check(self) -> None:
        opened = self.allocator._open.get(self.key, {})
        for instance in self.launcher.instances:
            assert instance.assigned == sum(used is instance for _, used in self.served) <= instance.concurrency
            fit = instance.ready and not instance.obsolete and instance.end is None
            assert (instance in self.allocator.idle) == (fit and instance.assigned == 0)
            assert (instance in opened) == (
                fit and 0 < instance.assigned < instance.concurrency and instance.concurrency > 1
            )
            assert not (self.calls and fit and instance.assigned < instance.concurrency)
            assert not (instance.idle and instance.obsolete)
        waiting = self.allocator._waiting.get(self.key)
        assert (waiting is None) == (not self.calls and not self.launcher.loads and not self.launcher.preparing)
        scarce = self.allocator._scarce
        assert len(scarce) <= MAX_SCARCE
        if self.key in self.allocator._limited:
            usable = [each for each in self.allocator.alive if each.ready and not each.obsolete]
            starts = max(0, MAX_SCARCE - len(waiting.starts if waiting else ())) if not scarce else 0
            assert self.places == sum(each.concurrency - each.assigned for each in usable) + starts
        else:
            assert (self.places, scarce) == (-1, set())
        assert waiting is None or waiting.uncovered <= 0
        assert self.allocator.starting == len(self.launcher.loads)


STEPS = ("come", "come", "come", "go", "go", "load", "load", "cancel", "abandon", "warm", "die", "retire")
ROOM = ("fill", "empty", "linger", "linger")
FAILURES = ("fail", "fail_in_user_code")
LOOP_TURNS = st.none() | st.integers(
    0, 3
)  #: of the event loop until the next step; None: until nothing can run any more


@pytest.mark.parametrize("concurrency", [1, 3])
@given(steps=st.lists(st.tuples(st.sampled_from(STEPS + FAILURES + ROOM), st.integers(0, 7), LOOP_TURNS), max_size=40))
def test_each_call_waits_only_while_an_instance_for_it_is_starting(
    concurrency: int, steps: list[tuple[str, int, int | None]]
) -> None:
    async def walk() -> None:
        crowd = Crowd(concurrency)
        for step, pick, turns in steps:
            done: object = getattr(crowd, step)(pick)
            if isinstance(done, Awaitable):
                await done
            if turns is None:
                await crowd.settle()
                crowd.check()
            for _ in range(turns or 0):
                await asyncio.sleep(0)
        crowd.empty(0)
        await crowd.settle()
        while crowd.calls:
            crowd.load()
            crowd.go()
            await crowd.settle()
            crowd.check()
        await crowd.allocator.close()
        await asyncio.gather(*crowd.warming, return_exceptions=True)

    asyncio.run(walk())


@pytest.mark.parametrize("how", ["cancel", "abandon"])
@pytest.mark.parametrize("turns", range(4))
async def test_a_call_that_is_cancelled_while_an_instance_gets_ready_leaves_it_to_others(how: str, turns: int) -> None:
    crowd = Crowd()
    await crowd.do("come")
    crowd.load()
    for _ in range(turns):
        await asyncio.sleep(0)
    getattr(crowd, how)(0)

    await crowd.settle()
    crowd.check()


async def test_the_first_instance_that_returns_serves_the_first_of_two_waiting_calls() -> None:
    crowd = Crowd()
    await crowd.do("come", "load")
    crowd.launcher.room.clear()  # no further instance can start
    first, second = crowd.come(), crowd.come()
    await crowd.settle()

    await crowd.do("go")
    assert [call for call, _ in crowd.served] == [first]
    assert list(crowd.calls) == [second]

    await crowd.do("go")
    assert [call for call, _ in crowd.served] == [second]
    crowd.check()  # neither start is under way any more
    assert len(crowd.launcher.instances) == 1


async def a_start_that_no_call_needs() -> Crowd:
    """Return a crowd in which a second instance starts, whose call the first one serves."""
    crowd = Crowd()
    await crowd.do("come", "load", "come", "go")
    assert (len(crowd.served), crowd.allocator.starting) == (1, 1)
    return crowd


async def test_a_start_whose_call_was_served_by_another_instance_leaves_an_idle_one() -> None:
    crowd = await a_start_that_no_call_needs()

    await crowd.do("load")

    crowd.check()
    assert len(crowd.allocator.idle) == 1


async def test_the_start_of_a_cancelled_call_is_stopped_unless_another_call_needs_it() -> None:
    crowd = Crowd(concurrency=2)
    crowd.come()
    await crowd.do("come", "cancel")
    assert crowd.allocator.starting == 1

    await crowd.do("cancel")

    crowd.check()
    assert [instance.end for instance in crowd.launcher.instances] == [End.ABANDONED]


async def test_a_failed_start_ends_its_own_call_although_another_came_first() -> None:
    crowd = Crowd()
    first, second = crowd.come(), crowd.come()
    await crowd.settle()
    crowd.fail(1)
    await crowd.settle()

    assert (list(crowd.calls), second in crowd.calls, len(crowd.failed)) == ([first], False, 1)
    crowd.check()
    await crowd.allocator.close()


async def test_an_instance_that_gets_ready_serves_the_call_for_which_it_was_started() -> None:
    crowd = Crowd()
    first, second = crowd.come(), crowd.come()
    await crowd.settle()
    crowd.load(1)
    await crowd.settle()

    assert ([call for call, _ in crowd.served], list(crowd.calls)) == ([second], [first])
    await crowd.allocator.close()


async def test_nothing_is_kept_of_the_key_of_an_instance_that_has_ended() -> None:
    crowd = Crowd()
    await crowd.do("come", "load")
    crowd.go()
    crowd.come()  # served by the idle instance
    await crowd.settle()
    crowd.die(0)
    await crowd.do("go")

    assert (crowd.allocator.idle._by_key, crowd.allocator._open, crowd.allocator._waiting) == ({}, {}, {})


async def test_user_code_that_fails_is_not_tried_again_when_no_call_needs_the_instance() -> None:
    crowd = await a_start_that_no_call_needs()
    await crowd.do("fail_in_user_code")

    assert (len(crowd.served), len(crowd.launcher.instances)) == (1, 2)
    crowd.check()


async def test_a_call_whose_task_was_cancelled_cannot_be_cancelled_again() -> None:
    crowd = Crowd()
    call = crowd.come()
    await crowd.settle()
    crowd.abandon(0)

    assert not call.cancel()
    await crowd.settle()
    crowd.check()


async def test_calls_that_wait_when_the_allocator_is_closed_are_cancelled() -> None:
    crowd = Crowd(concurrency=2)
    tasks = [crowd.calls[crowd.come()] for _ in range(3)]
    await crowd.settle()

    await crowd.allocator.close()
    await crowd.settle()

    assert [task.cancelled() for task in tasks] == [True] * 3
    crowd.check()


async def test_a_bug_in_a_start_is_raised_once() -> None:
    reported: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context["message"]))
    crowd = Crowd()
    asking = crowd.calls.pop(crowd.come())
    await crowd.settle()
    crowd.launcher.loads.popitem()[1].set_exception(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        await asking

    del asking
    await crowd.settle()
    gc.collect()  # a task whose exception nobody has taken reports it when it is deleted
    assert (reported, crowd.allocator.starting, len(crowd.allocator.alive)) == ([], 0, 0)


async def test_a_failed_start_looks_at_no_call_but_those_that_it_ends() -> None:
    class Counted(OrderedDict[Call, None]):
        seen = 0

        def __iter__(self) -> Iterator[Call]:
            for call in super().__iter__():
                Counted.seen += 1
                yield call

    crowd = Crowd()
    calls = [crowd.come() for _ in range(100)]
    await crowd.settle()
    waiting = crowd.allocator._waiting[crowd.key]
    waiting._calls = Counted(waiting._calls)
    Counted.seen = 0
    for _ in calls:
        crowd.fail(0)
    await crowd.settle()

    assert len(crowd.failed) == len(calls)
    assert Counted.seen <= len(calls)


# --- starts that wait for capacity ---------------------------------------------------------------------------


async def scarce_crowd(calls: int) -> Crowd:
    """Return a crowd whose calls were deferred, because no node has room."""
    crowd = Crowd()
    crowd.fill(0)
    for _ in range(calls):
        crowd.come()
    await crowd.settle()
    await crowd.do("linger")
    assert (len(crowd.deferred), crowd.calls) == (calls, {})
    return crowd


async def test_a_start_that_waits_for_capacity_goes_on_without_its_call() -> None:
    crowd = await scarce_crowd(1)
    crowd.check()
    assert crowd.places == 0

    await crowd.do("empty", "load")
    crowd.check()
    assert (len(crowd.allocator.idle), crowd.places) == (1, -1)


async def test_at_most_four_starts_of_a_function_wait_for_capacity() -> None:
    crowd = await scarce_crowd(MAX_SCARCE + 3)
    crowd.check()

    await crowd.do("empty")
    assert len(crowd.launcher.instances) == MAX_SCARCE
    await crowd.allocator.close()


async def test_a_call_that_another_start_will_serve_is_not_deferred() -> None:
    crowd = Crowd()
    await crowd.do("come")
    crowd.fill(0)
    await crowd.do("come", "linger")
    assert (len(crowd.deferred), len(crowd.calls), crowd.places) == (1, 1, 0)

    await crowd.do("load")
    assert (len(crowd.served), crowd.places) == (1, 0)
    crowd.die(0)
    await crowd.do("go")
    assert crowd.places == 0
    await crowd.allocator.close()


async def test_the_starts_of_a_deleted_function_do_not_wait_for_capacity() -> None:
    crowd = await scarce_crowd(2)

    await crowd.retire(0)
    await crowd.settle()

    crowd.check()
    assert (crowd.allocator._tasks, crowd.places) == (set(), -1)


async def test_a_start_without_a_call_tells_that_it_waits_for_capacity() -> None:
    crowd = Crowd()
    crowd.fill(0)
    for _ in range(MAX_SCARCE + 1):
        await crowd.do("warm")
        crowd.linger(0)

    assert await asyncio.gather(*crowd.warming) == [False] * (MAX_SCARCE + 1)
    crowd.check()
    await crowd.allocator.close()


async def test_a_start_that_nothing_wants_any_more_ends_before_an_instance_is_dismissed_for_it() -> None:
    crowd = await scarce_crowd(2)
    crowd.allocator.wanted = lambda function_id, kind: True
    assert not crowd.allocator.make_room(lambda instance: True)

    crowd.allocator.wanted = lambda function_id, kind: False
    crowd.allocator.reserve.want([(crowd.function, 1)])
    assert not crowd.allocator.make_room(lambda instance: True)  # reserved ones are wanted

    crowd.allocator.reserve.want(())
    assert crowd.allocator.make_room(lambda instance: True)
    await crowd.settle()
    crowd.check()
    assert crowd.places == -1

    crowd.empty(0)
    crowd.come()  # the next call gets a start of its own
    await crowd.settle()
    await crowd.do("load")
    assert len(crowd.served) == 1


async def test_after_starts_have_waited_few_begin_at_the_same_time() -> None:
    crowd = await scarce_crowd(1)
    await crowd.do("empty")

    assert crowd.places == MAX_SCARCE - 1  # one is under way
    crowd.load()
    await crowd.do("come")
    assert (len(crowd.served), crowd.places) == (1, MAX_SCARCE)
    await crowd.do("go")
    assert crowd.places == -1
