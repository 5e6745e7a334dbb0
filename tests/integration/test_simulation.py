"""Simulation of the engine: breaks no promise, repeats itself, and finds faults that tests put into the engine."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from heapq import heappush
from itertools import count
from typing import Any

import pytest
from msgspec.structs import replace

from bench.proof.simulation import simulate
from bench.proof.simulation.witness import Witness
from engine.model import Code, Outcome, State
from engine.model.retry import RetryPolicy
from engine.pipeline.delivery import DeliveryWorker
from engine.pipeline.dispatcher import Dispatcher
from engine.pipeline.intake import Intake
from engine.pipeline.settling import Settling
from engine.resources.bound_trigger import BoundTrigger
from engine.scheduling.backlog import Backlog
from engine.scheduling.function_queue import FunctionQueue
from engine.scheduling.runqueue import RunQueue
from engine.scheduling.scheduler import Scheduler
from engine.scheduling.share import Share
from plugins.timer.source import TimerTrigger

#: Simulated hours without a fault, on tables and on the real storage, and the most with a fault.
SOUND_HOURS, STORED_HOURS, HOURS = 200.0, 60.0, 250.0
SEEN = ("DISCARD", "FAIL", "SUCCESS", "BacklogFull", "NotStored", "broken", "clock steps", "deliveries")


@pytest.mark.long
@pytest.mark.parametrize("seed", range(2))
def test_four_hundred_simulated_hours_break_no_promise(seed: int) -> None:
    report = simulate(seed, SOUND_HOURS)

    assert report.violations == (), f"seed {seed}, {SOUND_HOURS:g} hours"
    assert report.invocations >= 50_000 * SOUND_HOURS / 1000
    assert report.crashes >= 50 * SOUND_HOURS / 1000
    for seen in (*SEEN, "ordered attempts"):
        assert report.counts.get(seen, 0) > 0, seen


@pytest.mark.long
def test_simulated_hours_on_the_real_storage_break_no_promise() -> None:
    report = simulate(1, STORED_HOURS, stored=True)

    assert report.violations == ()
    assert report.crashes >= 10
    for seen in (*SEEN, "ordered attempts", "batches", "damaged ends", "damaged logs", "purged"):
        assert report.counts.get(seen, 0) > 0, seen


@pytest.mark.parametrize("stored", [False, True])
def test_another_process_repeats_the_same_events(stored: bool) -> None:
    program = f"from bench.proof.simulation import simulate; print(simulate(1, 5.0, stored={stored}).digest)"
    environment = {"PYTHONHASHSEED": "7", "PYTHONPATH": "."}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, timeout=120)

    report = simulate(1, 5.0, stored=stored)
    assert (done.stdout.decode().strip(), report.violations) == (report.digest, ())
    assert report.digest != simulate(2, 5.0).digest


# --- faults -------------------------------------------------------------------------------------------------

Patch = Callable[[type, str, Any], None]


def _nth(number: int) -> Callable[[], bool]:
    """Return a function that returns True at every ``number``-th call."""
    calls = count(1)
    return lambda: next(calls) % number == 0


def _lose_rows_at_a_crash(patch: Patch) -> None:
    end = Witness.process_ended

    def lose(witness: Witness) -> None:
        tables = witness.world.tables
        key = next((key for key in witness.open if tables.rows[key].ready), 0)
        if key:
            tables.end(tables.rows[key], State.FAIL, Outcome())
            tables.drop(key)
        end(witness)

    patch(Witness, "process_ended", lose)


def _run_again_after_the_end(patch: Patch) -> None:
    settled, hit = Settling._settled, _nth(50)

    def again(self: Settling, settlement: Any) -> None:
        settled(self, settlement)
        if settlement.retry is None and hit():
            self._scheduler.push(settlement.invocation)

    patch(Settling, "_settled", again)


def _skip_due_times(patch: Patch) -> None:
    fire, hit = TimerTrigger._fire, _nth(10)

    async def skip(self: TimerTrigger, context: Any, table: Any, position: Any, due: list[float], last: float) -> Any:
        return await fire(self, context, table, position, [] if hit() else due, last)

    patch(TimerTrigger, "_fire", skip)


def _miscount(patch: Patch) -> None:
    remove, hit = Backlog.remove, _nth(100)

    def forget(self: Backlog, function_id: int, size: int, *, rows: int = 1) -> None:
        if not hit():
            remove(self, function_id, size, rows=rows)

    patch(Backlog, "remove", forget)


def _discard_too_early(patch: Patch) -> None:
    run, hit = Dispatcher._run, _nth(50)

    async def discard(self: Dispatcher, invocation: Any, function: Any, now: float) -> tuple[Outcome, bool]:
        if hit():
            return Outcome(code=Code.EXPIRED, started_at=now, ended_at=now), False
        return await run(self, invocation, function, now)

    patch(Dispatcher, "_run", discard)


def _run_too_old_work(patch: Patch) -> None:
    patch(RetryPolicy, "too_old", lambda self, invocation, rules, now: False)


def _retry_too_often(patch: Patch) -> None:
    rules = RetryPolicy.rules
    patch(RetryPolicy, "rules", lambda self, settings: replace(rules(self, settings), retries=9))


def _retry_too_early(patch: Patch) -> None:
    patch(RetryPolicy, "delay", lambda self, attempt, jitter_sample: 0.1)


def _ignore_limits(patch: Patch) -> None:
    patch(Share, "full", property(lambda self: False))


def _ignore_memory(patch: Patch) -> None:
    patch(RunQueue, "_fits", lambda self, invocation, share: True)


def _take_reserved_slots(patch: Patch) -> None:
    init = RunQueue.__init__
    patch(RunQueue, "__init__", lambda self, **given: init(self, **{**given, "sync_slots": 0}))


def _reverse_the_order(patch: Patch) -> None:
    def add(self: FunctionQueue, entry: Any) -> None:
        self._members[entry.invocation.key] = entry
        heappush(self._heap, (-entry.invocation.rank, entry.invocation.key))
        self.size += entry.size

    patch(FunctionQueue, "_add", add)


def _forget_the_horizon(patch: Patch) -> None:
    trim = FunctionQueue.trim

    def forget(self: FunctionQueue, rows: int, size: int) -> None:
        trim(self, rows, size)
        self.horizon = None

    patch(FunctionQueue, "trim", forget)


def _prefer_a_function(patch: Patch) -> None:
    take, release = RunQueue._take, RunQueue.release

    def free(self: RunQueue, mode_queue: Any, queue: Any, share: Share) -> Any:
        entry = take(self, mode_queue, queue, share)
        share.virtual = 0.0
        return entry

    def unpaid(self: RunQueue, entry: Any, seconds: float) -> None:
        release(self, entry, seconds)
        self._shares[entry.invocation.function_id].virtual = 0.0

    patch(RunQueue, "_take", free)
    patch(RunQueue, "release", unpaid)


def _drop_deliveries(patch: Patch) -> None:
    attempt, hit = DeliveryWorker._try, _nth(20)

    async def drop(self: DeliveryWorker, pending: Any, record: Any, document: Any) -> None:
        if hit():
            await self._outbox.delivered(pending)
        else:
            await attempt(self, pending, record, document)

    patch(DeliveryWorker, "_try", drop)


def _forget_waiting_work_at_the_start(patch: Patch) -> None:
    patch(RunQueue, "expect", lambda self, function_id: None)


def _never_wake_for_delayed_work(patch: Patch) -> None:
    patch(Scheduler, "_set_alarm", lambda self, moment: None)


def _ignore_idempotency_keys(patch: Patch) -> None:
    accept = Intake.accept
    patch(Intake, "accept", lambda self, request: accept(self, replace(request, idempotency_key="")))


def _leave_cursors(patch: Patch) -> None:
    patch(BoundTrigger, "move", lambda self, before, positions: None)


def _run_held_work(patch: Patch) -> None:
    push = Scheduler.push
    patch(
        Scheduler,
        "push",
        lambda self, invocation, reply=None: push(self, replace(invocation, held=False), reply),
    )


def _swap_outcomes(patch: Patch) -> None:
    settle, hit = Settling.settle, _nth(200)

    def swap(self: Settling, invocation: Any, outcome: Outcome, **options: Any) -> None:
        settle(self, invocation, replace(outcome, code=0) if hit() else outcome, **options)

    patch(Settling, "settle", swap)


#: Faults that are found at the end of a simulation only, which is short for them.
AT_THE_END, SHORT = (_skip_due_times, _never_wake_for_delayed_work), 30.0


@pytest.mark.long
@pytest.mark.parametrize(
    ("fault", "found"),
    [
        (_lose_rows_at_a_crash, "is lost"),
        (_run_again_after_the_end, "after it has ended"),
        (_skip_due_times, "skipped its due time"),
        (_miscount, "the backlog"),
        (_discard_too_early, "before its age"),
        (_run_too_old_work, "after its age"),
        (_retry_too_often, "is retried after"),
        (_retry_too_early, "is retried after 0.1"),
        (_ignore_limits, "may"),
        (_ignore_memory, "MB"),
        (_take_reserved_slots, "of them asynchronous"),
        (_reverse_the_order, "runs before"),
        (_forget_the_horizon, "runs before"),
        (_prefer_a_function, "side by side"),
        (_drop_deliveries, "no destination has taken it"),
        (_forget_waiting_work_at_the_start, "nothing runs|runs before"),
        (_never_wake_for_delayed_work, "has not ended"),
        (_run_held_work, "same ordering key"),
        (_ignore_idempotency_keys, "got another id"),
        (_leave_cursors, "was accepted after event"),
        (_swap_outcomes, "but ran to"),
    ],
)
def test_a_fault_in_the_engine_is_found(
    fault: Callable[[Patch], None], found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault(monkeypatch.setattr)

    report = simulate(3, SHORT if fault in AT_THE_END else HOURS, first_only=True)

    assert [text for text in report.violations if re.search(found, text)], report.violations[:3]
