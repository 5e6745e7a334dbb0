from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from engine.model import Mode
from engine.scheduling.function_queue import Entry
from engine.scheduling.runqueue import RunQueue
from tests.support.builders import call, entry, waiting


def queue(slots: int = 4, sync_slots: int = 0, memory: int = 10_000, **sizes: Any) -> RunQueue:
    return RunQueue(slots=slots, sync_slots=sync_slots, memory=memory, **sizes)


def taken(q: RunQueue, number: int) -> list[Entry]:
    """Pop ``number`` entries; all must be available."""
    chosen = [q.pop() for _ in range(number)]
    assert None not in chosen
    return [item for item in chosen if item is not None]


def popped_keys(q: RunQueue, number: int) -> list[int]:
    """Return keys in the order in which one slot would run them."""
    keys = []
    for _ in range(number):
        [chosen] = taken(q, 1)
        keys.append(chosen.invocation.key)
        q.release(chosen, 0.01)
    return keys


def test_within_a_function_the_smallest_rank_runs_first_and_ties_run_in_order_of_acceptance() -> None:
    q = queue()
    for key, rank in ((1, 5.0), (2, 1.0), (3, 1.0), (4, 0.5)):
        q.push(entry(key=key, rank=rank))

    assert popped_keys(q, 4) == [4, 2, 3, 1]


def test_a_synchronous_call_goes_before_asynchronous_work() -> None:
    q = queue()
    q.push(entry(key=1, rank=0.0))
    q.push(call(key=2, rank=100.0))

    assert popped_keys(q, 2) == [2, 1]


def test_asynchronous_work_leaves_the_last_slots_to_synchronous_calls() -> None:
    q = queue(slots=3, sync_slots=2)
    for _ in range(3):
        q.push(entry())

    assert q.pop() is not None
    assert q.pop() is None
    q.push(call())
    assert q.pop() is not None


KIND = ("latest", 0)


def test_an_invocation_without_a_place_holds_up_its_function_until_it_is_removed() -> None:
    q = queue()
    for pushed in (entry(key=1), entry(key=2, version="v1"), entry(key=3)):
        q.push(pushed)
    q.set_places(1, ("v1", 0), 0)

    [first] = taken(q, 1)
    assert (first.invocation.key, q.pop()) == (1, None)
    assert (q.waits(1, KIND), q.waits(1, ("v1", 0))) == (True, True)
    assert q.remove(1, 2) is not None
    [second] = taken(q, 1)
    assert (second.invocation.key, q.waits(1, KIND), q.waits(1, ("v1", 0))) == (3, False, False)
    q.pause(1)
    assert not q.waits(1, KIND)


def test_while_an_instance_waits_for_capacity_no_more_runs_start_than_there_are_places() -> None:
    q = queue()
    q.configure(1, weight=1.0, limit=3, memory=1)
    for push in (entry(key=1), call(key=2), entry(key=3)):
        q.push(push)
    q.set_places(1, KIND, 1)
    [first] = taken(q, 1)
    assert (first.invocation.key, q.pop()) == (2, None)

    q.configure(1, weight=1.0, limit=2, memory=1)  # the limit stays the smaller one after it
    q.set_places(1, KIND, -1)
    assert q.pop() is not None
    assert q.pop() is None
    q.set_places(99, KIND, 0)  # a function that does not exist
    assert q.statistics().functions == 1


def test_an_entry_that_has_not_run_costs_its_function_only_the_seconds_of_its_slot() -> None:
    q = queue(slots=1)
    for function_id in (1, 2):  # runs are expected to be long
        q.push(entry(function_id))
        [first] = taken(q, 1)
        q.release(first, 100.0)
    for function_id in (1, 2):
        q.push(entry(function_id))
    [first] = taken(q, 1)
    q.refund(first, 0.05)
    q.push(first)

    turns = []
    for _ in range(3):
        [chosen] = taken(q, 1)
        turns.append(chosen is first)
        q.release(chosen, 0.04)
        if chosen is not first:
            q.push(entry(chosen.invocation.function_id))

    assert turns == [False, False, True]


def test_a_full_function_does_not_block_the_others() -> None:
    q = queue()
    q.configure(1, weight=1.0, limit=1, memory=1)
    q.push(entry(1))
    q.push(entry(1))
    q.push(entry(2))

    chosen = [q.pop(), q.pop(), q.pop()]

    assert sorted(e.invocation.function_id for e in chosen if e) == [1, 2]
    assert chosen[2] is None


def test_a_disabled_function_waits_until_it_is_enabled() -> None:
    q = queue()
    q.configure(1, weight=1.0, limit=0, memory=1)
    q.push(entry(1))
    assert q.pop() is None

    q.configure(1, weight=1.0, limit=1, memory=1)

    assert q.pop() is not None


def test_an_entry_without_room_in_memory_keeps_its_place() -> None:
    q = queue(memory=100)
    q.configure(1, weight=1.0, limit=-1, memory=60)
    q.configure(2, weight=1.0, limit=-1, memory=80)
    q.push(entry(1))
    [first] = taken(q, 1)
    q.push(entry(2, key=20))
    assert q.pop() is None

    q.release(first, 0.01)

    [chosen] = taken(q, 1)
    assert chosen.invocation.key == 20


def test_asynchronous_work_does_not_take_the_memory_that_a_synchronous_call_waits_for() -> None:
    q = queue(slots=10, memory=1000)
    q.configure(1, weight=1.0, limit=-1, memory=128)
    q.configure(2, weight=1.0, limit=-1, memory=768)
    for _ in range(20):
        q.push(entry(1))
    running = taken(q, 4)
    q.push(call(2, key=77))
    chosen = None
    for done in running:
        q.release(done, 0.01)
        chosen = chosen or q.pop()

    assert chosen is not None
    assert chosen.invocation.key == 77


def test_memory_taken_is_given_back_although_the_function_was_changed_meanwhile() -> None:
    q = queue(memory=100)
    q.configure(1, weight=1.0, limit=-1, memory=60)
    q.push(entry(1))
    [chosen] = taken(q, 1)
    q.configure(1, weight=1.0, limit=-1, memory=10)

    q.release(chosen, 0.01)

    assert q.statistics().memory == 0


def test_a_function_larger_than_the_budget_still_runs_alone_in_it() -> None:
    q = queue(memory=100)
    q.configure(1, weight=1.0, limit=-1, memory=4096)
    q.push(entry(1))

    assert q.pop() is not None


def test_memory_is_taken_once_for_each_instance_of_several_requests() -> None:
    q = queue(slots=9)
    q.configure(1, weight=1.0, limit=-1, memory=100, concurrent_requests=3)
    for _ in range(7):
        q.push(entry(1))
    memory = []
    running = taken(q, 7)
    memory.append(q.statistics().memory)
    for number in (1, 3, 2, 1):
        for _ in range(number):
            q.release(running.pop(), 0.01)
        memory.append(q.statistics().memory)

    assert memory == [300, 200, 100, 100, 0]


def test_a_run_that_needs_no_new_instance_starts_also_when_memory_is_used_up() -> None:
    q = queue(memory=100)
    q.configure(1, weight=1.0, limit=-1, memory=100, concurrent_requests=2)
    for _ in range(3):
        q.push(entry(1))
    taken(q, 2)

    assert q.pop() is None
    assert q.statistics().memory == 100


def test_a_run_of_chosen_memory_shares_no_instance() -> None:
    q = queue()
    q.configure(1, weight=1.0, limit=-1, memory=100, concurrent_requests=2)
    for memory in (0, 300, 100):
        q.push(entry(1, memory=memory))
    running = taken(q, 3)

    assert q.statistics().memory == 400
    for run in running:
        q.release(run, 0.01)
    assert q.statistics().memory == 0


def test_nothing_is_kept_of_a_function_that_is_gone_once_its_last_run_has_ended() -> None:
    q = queue(slots=2)
    for item in (call(1), entry(1), entry(1), entry(1)):
        q.push(item)
    runs = [item for item in (q.pop(), q.pop()) if item is not None]
    q.drop(1)
    q.push(entry(2, key=77))
    assert q.statistics().functions == 2
    for run in runs:
        q.release(run, 1.0)

    assert q.statistics().functions == 1
    assert popped_keys(q, 1) == [77]
    assert q.pop() is None


def test_nothing_is_kept_of_a_function_that_is_gone_once_its_last_call_is_withdrawn() -> None:
    q = queue(slots=2)
    waits = call(1)
    q.configure(1, weight=1, limit=1, memory=1)
    q.push(waits)
    q.drop(1)

    assert q.statistics().functions == 1
    assert q.remove(1, waits.invocation.key) is waits
    assert q.statistics().functions == 0


@given(st.lists(st.tuples(st.integers(1, 4), st.booleans()), max_size=20))
def test_memory_is_given_back_however_many_slots_an_instance_had_meanwhile(steps: list[tuple[int, bool]]) -> None:
    q = queue(slots=20)
    running: list[Entry] = []
    for concurrent_requests, begin in steps:
        q.configure(1, weight=1.0, limit=-1, memory=10, concurrent_requests=concurrent_requests)
        if begin:
            q.push(entry(1))
            running += taken(q, 1)
        elif running:
            q.release(running.pop(0), 0.01)
    for run in running:
        q.release(run, 0.01)

    assert q.statistics().memory == 0


@pytest.mark.parametrize("crashes", [{"crash_count": 3}, {"start_crashes": 3}, {"crash_count": 1, "start_crashes": 2}])
def test_a_suspect_runs_alone(crashes: dict[str, int]) -> None:
    q = queue()
    q.push(entry(1, rank=0.0))
    [other] = taken(q, 1)
    q.push(entry(1, key=7, rank=1.0, **crashes))
    assert q.pop() is None
    q.release(other, 0.01)
    [suspect] = taken(q, 1)
    q.push(entry(2, rank=0.0))

    assert suspect.invocation.key == 7
    assert q.pop() is None
    q.release(suspect, 0.01)
    assert q.pop() is not None


def test_a_parked_function_starts_only_synchronous_calls_until_it_is_unparked() -> None:
    q = queue()
    q.push(entry(1, key=1, rank=0.0))
    q.push(entry(1, key=2, rank=1.0))
    q.push(entry(2, key=3, rank=2.0))
    q.park(1)
    q.push(call(1))

    popped = [q.pop(), q.pop(), q.pop()]
    assert [item and (item.invocation.mode, item.invocation.function_id) for item in popped] == [
        (Mode.SYNC, 1),
        (Mode.ASYNC, 2),
        None,
    ]
    q.unpark()
    assert popped_keys(q, 2) == [1, 2]


def test_a_quiet_function_waits_for_one_run_of_a_busy_one_at_most() -> None:
    q = queue(slots=1, window_rows=5000)
    for _ in range(1000):
        q.push(entry(1, rank=0.0))
    popped_keys(q, 100)
    q.push(entry(2, key=99_999, rank=1e9))

    assert 99_999 in popped_keys(q, 2)


def test_slot_seconds_are_shared_by_weight() -> None:
    q = queue(slots=1)
    q.configure(1, weight=3.0, limit=-1, memory=0)
    q.configure(2, weight=1.0, limit=-1, memory=0)
    for _ in range(400):
        q.push(entry(1))
        q.push(entry(2))
    runs: Counter[int] = Counter()
    for _ in range(200):
        [chosen] = taken(q, 1)
        runs[chosen.invocation.function_id] += 1
        q.release(chosen, 0.01)

    assert abs(runs[1] - 150) <= 2


def test_a_function_of_long_runs_gets_no_more_time_than_one_of_short_runs() -> None:
    q = queue(slots=1, window_rows=5000)
    for _ in range(3000):
        q.push(entry(1))
        q.push(entry(2))
    used = {1: 0.0, 2: 0.0}
    for _ in range(2000):
        [chosen] = taken(q, 1)
        function_id = chosen.invocation.function_id
        seconds = 0.1 if function_id == 1 else 0.001
        used[function_id] += seconds
        q.release(chosen, seconds)

    assert abs(used[1] - used[2]) <= 0.2  # the length of two long runs


@given(st.integers(0, 9), st.integers(0, 9), st.floats(0, 1000))
def test_ageing_lets_a_priority_wait_one_step_a_level_at_most(low: int, high: int, step: float) -> None:
    """Check that an entry is never overtaken if it became due more than (difference of priority) x step earlier."""
    low, high = sorted((low, high))
    gap = (high - low) * step + 0.001
    old, new = waiting(due_at=0.0, rank=0.0 - low * step), waiting(due_at=gap, rank=gap - high * step)

    assert old.rank_key < new.rank_key


def test_while_the_windows_are_full_no_page_is_read_that_would_be_let_go_of_at_once() -> None:
    q = queue(window_rows=8, windows_size=100)
    q.push(entry(1, payload=b"x" * 101))
    rows = [entry(2, key=700 + n, rank=float(n), payload=b"y") for n in range(2)]
    q.expect(2)
    assert q.needs_refill() is not None
    q.refill(2, rows, complete=True)

    assert not q.is_low
    taken = [q.pop(), q.pop()]
    assert all(taken)
    assert q.needs_refill() == (2, rows[0].invocation.rank_key)


def test_an_entry_that_was_taken_out_and_came_back_is_counted_once() -> None:
    q = queue(window_rows=2)
    one, *others = (entry(key=710 + n, rank=float(n), payload=b"x") for n in range(5))
    q.push(one)
    assert q.remove(1, 710) is one
    for waiting_one in (one, *others):
        q.push(waiting_one)

    statistics = q.statistics()
    assert (statistics.waiting_in_memory, statistics.window_bytes) == (2, 2)


class QueueMachine(RuleBasedStateMachine):
    """Queue over a simulated disk, compared with a plain list: order, limits, each entry exactly once."""

    ROWS, LIMIT, SLOTS = 4, 2, 4
    PLACES = {1: 1, 2: 2}

    def __init__(self) -> None:
        super().__init__()
        self.queue = queue(
            slots=self.SLOTS, sync_slots=1, window_rows=self.ROWS, window_size=60, windows_size=150, memory=30
        )
        self.disk: dict[int, Entry] = {}  # waiting entries by key
        self.running: list[Entry] = []
        self.loading: tuple[int, list[Entry], bool] | None = None
        self.key = 0
        self.closed: set[int] = set()
        for function_id, concurrent_requests in self.PLACES.items():
            self.queue.configure(
                function_id,
                weight=1.0,
                limit=self.LIMIT * concurrent_requests,
                memory=10,
                concurrent_requests=concurrent_requests,
            )
        self.queue.expect(1)  # starts behind the horizon, as after a restart

    def waiting_of(self, function_id: int) -> list[Entry]:
        """Return the waiting entries in the order of the disk."""
        queues = [e for e in self.disk.values() if e.invocation.function_id == function_id]
        return sorted(queues, key=lambda e: e.invocation.rank_key)

    @rule(function_id=st.integers(1, 2), rank=st.integers(0, 5), size=st.integers(0, 40))
    def accept(self, function_id: int, rank: int, size: int) -> None:
        if function_id in self.closed:
            return  # the scheduler rejects them, too
        self.key += 1
        new = entry(function_id, key=self.key, rank=float(rank), payload=b"x" * size)
        self.disk[self.key] = new
        self.queue.push(new)

    @rule()
    def run_next(self) -> None:
        chosen = self.queue.pop()
        if chosen is None:
            return
        first = self.waiting_of(chosen.invocation.function_id)[0]
        assert chosen.invocation.key == first.invocation.key, "disk order = memory order"
        del self.disk[chosen.invocation.key]
        self.running.append(chosen)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def end_one(self, data: st.DataObject) -> None:
        ended = data.draw(st.sampled_from(self.running))
        self.running.remove(ended)
        self.queue.release(ended, 0.01)

    @precondition(lambda self: self.disk)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        gone = self.disk.pop(data.draw(st.sampled_from(sorted(self.disk))))
        self.queue.remove(gone.invocation.function_id, gone.invocation.key)
        if self.loading is not None:  # the scheduler does so with withheld entries
            function_id, page, complete = self.loading
            page = [e for e in page if e.invocation.key != gone.invocation.key]
            self.loading = (function_id, page, complete) if page or complete else None
            if self.loading is None:
                self.queue.refill_failed(function_id)

    @precondition(lambda self: self.disk)
    @rule(data=st.data())
    def cancel_in_vain(self, data: st.DataObject) -> None:
        kept = self.disk[data.draw(st.sampled_from(sorted(self.disk)))]
        out = self.queue.remove(kept.invocation.function_id, kept.invocation.key)
        if out is not None:
            self.queue.push(out)

    @precondition(lambda self: self.key > 9)
    @rule()
    def delete_a_function(self) -> None:
        self.closed.add(2)
        self.queue.drop(2)
        for gone in self.waiting_of(2):
            del self.disk[gone.invocation.key]
        if self.loading is not None and self.loading[0] == 2:
            self.loading = None  # the page is no longer used

    @precondition(lambda self: self.loading is None)
    @rule()
    def ask_for_a_page(self) -> None:
        needs_refill = self.queue.needs_refill()
        if needs_refill is not None:
            function_id, horizon = needs_refill
            behind = [e for e in self.waiting_of(function_id) if e.invocation.rank_key > horizon]
            page = [Entry(e.invocation) for e in behind[: self.ROWS]]
            self.loading = (function_id, page, len(behind) < self.ROWS)

    @precondition(lambda self: self.loading is not None)
    @rule()
    def get_the_page(self) -> None:
        assert self.loading is not None
        function_id, page, complete = self.loading
        self.loading = None
        self.queue.refill(function_id, page, complete=complete)

    @precondition(lambda self: self.loading is None)
    @rule()
    def get_all_that_is_asked_for(self) -> None:
        for _ in range(20):
            self.ask_for_a_page()
            if self.loading is None:
                return
            self.get_the_page()
        raise AssertionError("pages are read, and let go of again, for ever")

    @invariant()
    def limits_hold(self) -> None:
        counts = Counter(e.invocation.function_id for e in self.running)
        assert all(number <= self.LIMIT * self.PLACES[function_id] for function_id, number in counts.items())
        assert len(self.running) <= self.SLOTS - 1
        instances = sum(-(-number // self.PLACES[function_id]) for function_id, number in counts.items())
        assert self.queue.statistics().memory == 10 * instances <= 30

    def teardown(self) -> None:
        """Check that every accepted entry that was not cancelled runs once."""
        if self.loading is not None:
            self.get_the_page()
        for _ in range(10 * self.key + 10):
            while self.running:
                self.queue.release(self.running.pop(), 0.01)
            self.run_next()
            self.ask_for_a_page()
            if self.loading is not None:
                self.get_the_page()

        assert not self.disk
        statistics = self.queue.statistics()
        assert statistics.waiting_in_memory == statistics.window_bytes == 0


TestQueueMachine = QueueMachine.TestCase
