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
SEEN = ("DISCARD", "FAIL", "SUCCESS", "BacklogFull", "NotStored", "broken", "clock steps", "deliveries", "deferred")


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
    report = simulate(3, STORED_HOURS, stored=True)

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


def _replaced(owner: type, name: str, replacement: Callable[[Any], Any]) -> Callable[[Patch], None]:
    """Return the fault of one attribute; ``replacement`` gets what is there."""
    return lambda patch: patch(owner, name, replacement(getattr(owner, name)))


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

    async def discard(self: Dispatcher, invocation: Any, function: Any, now: float) -> tuple[Outcome | None, bool]:
        if hit():
            return Outcome(code=Code.EXPIRED, started_at=now, ended_at=now), False
        return await run(self, invocation, function, now)

    patch(Dispatcher, "_run", discard)


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


def _prefer_a_project(patch: Patch) -> None:
    def free(self: RunQueue, *given: Any, take: Any = RunQueue._take) -> Any:
        entry = take(self, *given)
        self._shares[entry.invocation.function_id].project.virtual = 0.0
        return entry

    patch(RunQueue, "_take", free)


def _drop_deliveries(patch: Patch) -> None:
    attempt, hit = DeliveryWorker._try, _nth(20)

    async def drop(self: DeliveryWorker, pending: Any, record: Any, document: Any) -> None:
        if hit():
            await self._outbox.delivered(pending)
        else:
            await attempt(self, pending, record, document)

    patch(DeliveryWorker, "_try", drop)


def _swap_outcomes(patch: Patch) -> None:
    settle, hit = Settling.settle, _nth(200)

    def swap(self: Settling, invocation: Any, outcome: Outcome, **options: Any) -> None:
        settle(self, invocation, replace(outcome, code=0) if hit() else outcome, **options)

    patch(Settling, "settle", swap)


#: Faults by name, and words of the violation that each is found by.
FAULTS: dict[str, tuple[Callable[[Patch], None], str]] = {
    "rows are lost at a crash": (_lose_rows_at_a_crash, "is lost"),
    "work runs again after its end": (_run_again_after_the_end, "after it has ended"),
    "due times are skipped": (_skip_due_times, "skipped its due time"),
    "the backlog is miscounted": (_miscount, "the backlog"),
    "work is discarded too early": (_discard_too_early, "before its age"),
    "work that is too old runs": (_replaced(RetryPolicy, "too_old", lambda _: lambda *_: False), "after its age"),
    "work is retried too often": (
        _replaced(RetryPolicy, "rules", lambda rules: lambda *given: replace(rules(*given), retries=9)),
        "is retried after",
    ),
    "work is retried too early": (
        _replaced(RetryPolicy, "delay", lambda _: lambda self, attempt, jitter_sample: 0.1),
        "is retried after 0.1",
    ),
    "limits are ignored": (_replaced(Share, "full", lambda _: property(lambda self: False)), "may"),
    "memory is ignored": (_replaced(RunQueue, "_fits", lambda _: lambda *_: True), "MB"),
    "reserved slots are taken": (
        _replaced(RunQueue, "__init__", lambda init: lambda self, **given: init(self, **{**given, "sync_slots": 0})),
        "of them asynchronous",
    ),
    "the order is reversed": (_reverse_the_order, "runs before"),
    "the horizon is forgotten": (_forget_the_horizon, "runs before"),
    "a function is preferred": (_prefer_a_function, r"\(\d+, \d+\) waited side by side"),
    "a project is preferred": (_prefer_a_project, r"\('.*'\) waited side by side"),
    "deliveries are dropped": (_drop_deliveries, "no destination has taken it"),
    "waiting work is forgotten at the start": (
        _replaced(RunQueue, "expect", lambda _: lambda *_: None),
        "nothing runs|runs before",
    ),
    "delayed work wakes nobody": (_replaced(Scheduler, "_set_alarm", lambda _: lambda *_: None), "has not ended"),
    "held work runs": (
        _replaced(
            Scheduler,
            "push",
            lambda push: lambda self, invocation, reply=None: push(self, replace(invocation, held=False), reply),
        ),
        "same ordering key",
    ),
    "idempotency keys are ignored": (
        _replaced(
            Intake,
            "accept",
            lambda accept: lambda self, request: accept(self, replace(request, idempotency_key="")),
        ),
        "got another id",
    ),
    "cursors stay": (_replaced(BoundTrigger, "move", lambda _: lambda *_: None), "was accepted after event"),
    "outcomes are swapped": (_swap_outcomes, "but ran to|was discarded with 0"),
}
#: Faults that are found at the end of a simulation only, which is short for them.
AT_THE_END, SHORT = ("due times are skipped", "delayed work wakes nobody"), 30.0


@pytest.mark.long
@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_in_the_engine_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fault, found = FAULTS[name]
    fault(monkeypatch.setattr)

    seed, hours = (1, SHORT) if name in AT_THE_END else (4, HOURS)
    report = simulate(seed, hours, first_only=True)

    assert [text for text in report.violations if re.search(found, text)], report.violations[:3]
