"""Witness of a simulation: compares all that the engine does with what it has promised.

The witness learns of each change on disk from the storage, of each attempt from the executor, of each delivery from the
destinations, and of each promise from the clients. It knows the rules from the documents, not from the engine.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from heapq import heappop, heappush
from itertools import islice
from typing import Any

import msgspec

from bench.proof.simulation.fairness import Fairness
from bench.proof.simulation.requests import Requests
from bench.proof.simulation.rules import is_too_young, retry_problems
from bench.proof.simulation.tracked import Running, Tracked, Waiting
from bench.proof.simulation.world import FAIR, RETENTION, ROWS, STREAM, WRITING, World
from engine.model import Code, DestinationSpec, Function, Invocation, Mode, Outcome, PendingDelivery, State
from engine.model.retry import MAX_CRASHES, MAX_START_CRASHES
from engine.protocols import Settlement
from tests.doubles.observer import Observer
from tests.doubles.rows import Row

SLOTS, SYNC_SLOTS, MEMORY = 8, 2, 4096
DELIVERY_AGE = 86_400.0
#: Seconds of slots by which two functions with runs of up to 10 s may differ.
FAIR_BOUND = 1.0 * SLOTS * 10.0
KEPT = 50  #: violations that are kept in full


class Witness(Observer):
    """Checks of one simulation. If ``first_only``, the process ends at the first violation."""

    def __init__(self, world: World, *, first_only: bool = False) -> None:
        self.world, self.first_only = world, first_only
        self.violations: list[str] = []
        self.count: Counter[str] = Counter()
        self.deferred: set[int] = set()  #: others that had a slot already may run before them
        self.by_key: dict[int, Tracked] = {}
        self.open: dict[int, Tracked] = {}  #: acknowledged, and not ended
        self.running: dict[int, Running] = {}
        self.fairness = Fairness(world, FAIR, FAIR_BOUND)
        self.ticks: dict[str, dict[int, list[float]]] = {}  #: times at which each due time got a request, by timer
        self._waiting: dict[int, dict[int, Waiting]] = {}  #: invocations that may start, by function and key
        self._order: dict[int, list[tuple[float, int]]] = {}
        self._starts: list[Invocation] = []  #: since the time moved
        self._tokens: dict[tuple[int, str], tuple[int, float, float]] = {}
        self._lines: dict[tuple[int, str], dict[int, None]] = {}  #: unended invocations by function and ordering key
        self._confirmed: set[int] = set()  #: deliveries that their destination has taken
        self._purged: set[int] = set()  #: keys of pruned invocations, whose idempotency keys may still be known
        self.streamed = 0
        self.requests = Requests(self.violation)
        self.cancelling: Counter[int] = Counter()  #: cancellations of all waiting invocations, by function

    def violation(self, text: str) -> None:
        self.world.note("violation", text)
        self.count["violations"] += 1
        if self.first_only and self.world.loop is not None:
            self.world.loop.crash_soon(1)
        if len(self.violations) < KEPT:
            self.violations.append(f"{self.world.time():.3f} s: {text}")

    # --- processes ------------------------------------------------------------------------------------------

    def process_ended(self) -> None:
        """Forget what only the ended process knew, and check that all acknowledged work is still there."""
        self.running.clear()
        self._waiting.clear()
        self._order.clear()
        self._starts.clear()
        self.fairness.stop()
        self.requests.process_ended()
        self.cancelling.clear()
        rows = self.world.tables.rows
        for tracked in self.by_key.values():
            tracked.cancelling, tracked.outcome = 0, None
        for key, tracked in self.open.items():
            if key not in rows or rows[key].state.final:
                self.violation(f"{_name(tracked.invocation)} was accepted, but is lost")

    def count_crashes(self) -> None:
        """Count the end of the process for each invocation that is running on disk."""
        for key in self.world.tables.running:
            run, tracked = self.running.get(key), self.by_key[key]
            if run is None or run.handler:
                tracked.begun_crashes += 1
            else:
                tracked.start_crashes += 1

    # --- storage --------------------------------------------------------------------------------------------

    def stored(self, invocation: Invocation, idempotency_key: str) -> None:
        self.world.note("stored", invocation.key)
        self.count["invocations"] += 1
        self.by_key[invocation.key] = Tracked(invocation, self.world.time())
        if invocation.ordering_key:
            self._lines.setdefault((invocation.function_id, invocation.ordering_key), {})[invocation.key] = None
        if invocation.source == "API":
            self.requests.stored(invocation.payload)
        if idempotency_key:
            self._check_token(invocation, idempotency_key)
        if invocation.source == "TIMER":
            self._note_tick(invocation)
        elif invocation.function_id == 7 and invocation.source == "SIMULATED":
            number = msgspec.json.decode(invocation.payload)["n"]
            if number != self.streamed:
                self.violation(f"event {number} of the {STREAM} was accepted after event {self.streamed - 1}")
            self.streamed = number + 1

    def available(self, invocation: Invocation) -> None:
        waiting = self._waiting.setdefault(invocation.function_id, {})
        if invocation.key not in waiting:
            waiting[invocation.key] = Waiting(self.world.time(), invocation.rank_key)
            heappush(self._order.setdefault(invocation.function_id, []), invocation.rank_key)
            self.fairness.waits(invocation.function_id, len(waiting))

    def started(self, invocation: Invocation, before: State, *, begun: bool) -> None:
        if before is not (State.RUNNING if begun else State.WAIT):
            self.violation(f"an attempt of {_name(invocation)} starts in state {before}")
        self.by_key[invocation.key].state = State.RUNNING

    def settled(self, settlement: Settlement) -> None:
        before, state = settlement.invocation, settlement.state
        self.world.note("settled", before.key, state, settlement.outcome.code)
        tracked = self.by_key[before.key]
        self._check_end(tracked, settlement)
        tracked.state = state
        if settlement.retry is not None:
            self.count["retries"] += 1
            tracked.invocation, tracked.mono = settlement.retry, self.world.time()
            return
        self._end(tracked, state)
        expected = self._destination(settlement)
        if settlement.deliver_to != expected and before.function_id not in self.world.deleted:
            self.violation(f"{_name(before)} ended as {state} and owes {settlement.deliver_to}, not {expected}")

    def ended(self, row: Row) -> None:
        """Note the end of an invocation without an attempt: it was cancelled, or its function was deleted."""
        tracked = self.by_key[row.invocation.key]
        self.world.note("ended", row.invocation.key, row.state)
        invocation, function_id = row.invocation, row.invocation.function_id
        if row.state is State.FAIL and not tracked.cancelling and not self.cancelling[function_id]:
            self.violation(f"{_name(invocation)} was cancelled by nobody")
        expired = row.code == Code.EXPIRED and self.world.expired(
            invocation.first_due_at + self._max_age(invocation), tracked.mono
        )
        if row.state is State.DISCARD and function_id not in self.world.deleted and not expired:
            self.violation(f"{_name(invocation)} was discarded with {row.code}, but its function exists")
        self._end(tracked, row.state)

    def delivered(self, pending: PendingDelivery, appended: Invocation | None) -> None:
        self.world.note("delivered", pending.delivery_id)
        self.count["deliveries"] += 1
        if appended is None and pending.delivery_id not in self._confirmed:
            self.violation(f"delivery {pending.delivery_id} was removed, but no destination has taken it")
        if appended is not None and pending.delivery_id in self._confirmed:
            self.violation(f"delivery {pending.delivery_id} started a second invocation")
        self._confirmed.add(pending.delivery_id)

    def postponed(self, pending: PendingDelivery, due_at: float | None) -> None:
        self.count["failed deliveries"] += 1
        if due_at is not None:
            return
        self.count["deliveries given up"] += 1
        row, since = self.world.tables.rows[pending.key], self.by_key[pending.key].mono
        if is_too_young(self.world, row, since, DELIVERY_AGE):
            self.violation(f"delivery {pending.delivery_id} was given up before its age")

    def purged(self, rows: Sequence[Row], kept: int) -> None:
        """Note that invocations were pruned, when ``kept`` ended ones were stored."""
        self.count["purged"] += len(rows)
        for row in rows:
            kept -= 1
            key = row.invocation.key
            tracked = self.by_key.pop(key)
            self._purged.add(key)
            if not tracked.state.final:
                self.violation(f"invocation {key} was purged before its end")
                continue
            if kept < ROWS and is_too_young(self.world, row, tracked.mono):
                self.violation(f"invocation {key} was purged before its age")

    # --- executor -------------------------------------------------------------------------------------------

    def begins(self, function: Function, invocation: Invocation) -> None:
        self.world.note("begins", invocation.key, invocation.attempt)
        self.count["attempts"] += 1
        self.running[invocation.key] = Running(invocation, self.world.time())
        unfair = self.fairness.begins(invocation.function_id)
        if unfair:
            self.violation(unfair)
        self._check_capacity(invocation)
        if invocation.mode is Mode.ASYNC:
            self._check_start(invocation)

    def handler_begins(self, invocation: Invocation) -> None:
        self.running[invocation.key].handler = True

    def finishes(self, invocation: Invocation, outcome: Outcome | None) -> None:
        """Note the end of a run, with its outcome unless the process stops."""
        running = self.running.pop(invocation.key)
        self.fairness.ends(invocation.function_id, running.began)
        if invocation.mode is Mode.ASYNC and outcome is not None:
            self.by_key[invocation.key].outcome = outcome

    def moment_ends(self) -> None:
        """Check the order of starts. The order within one moment does not matter."""
        for invocation in self._starts:
            self._check_order(invocation)
        self._starts.clear()

    # --- destinations and clients ---------------------------------------------------------------------------

    def takes(self, pending: PendingDelivery, record: bytes) -> None:
        """Note that a destination has confirmed a delivery."""
        tracked = self.by_key[pending.key]
        if not tracked.state.final:
            self.violation(f"{_name(tracked.invocation)} was delivered in state {tracked.state}")
        if (pending.condition == "success") != (tracked.state is State.SUCCESS):
            self.violation(f"{_name(tracked.invocation)} was delivered as {pending.condition}, but is {tracked.state}")
        if msgspec.json.decode(record)["request_context"]["request_id"] != tracked.invocation.request_id:
            self.violation(f"delivery {pending.delivery_id} has the record of another invocation")
        self._confirmed.add(pending.delivery_id)

    def acknowledged(self, key: int | None, payload: bytes) -> None:
        """Note that a client was promised the run of a request."""
        tracked = self.by_key.get(key or 0)
        self.count["acknowledged"] += 1
        if key in self._purged:
            return
        if tracked is None or tracked.invocation.payload != payload:
            self.violation(f"a client got the id of key {key}, which is not its request")
            return
        if not tracked.acknowledged:
            tracked.acknowledged = True
            if not tracked.state.final:
                self.open[tracked.invocation.key] = tracked

    def repeated(self, token: str, earlier: int | None, since: float) -> None:
        """Note that a request with the idempotency key of an acknowledged one got another id."""
        tracked = self.by_key.get(earlier or 0)
        if tracked is not None and not self.world.expired(
            tracked.invocation.accepted_on_clock + RETENTION, since - WRITING
        ):
            self.violation(f"the idempotency key {token} got another id within its retention")

    def cancelled(self, tracked: Tracked, cancelled: bool) -> None:
        """Note the answer to a client that cancelled an invocation."""
        tracked.cancelling -= 1
        if cancelled and tracked.state is not State.FAIL:
            self.violation(f"{_name(tracked.invocation)} is {tracked.state}, although a client cancelled it")

    # --- checks ---------------------------------------------------------------------------------------------

    def _end(self, tracked: Tracked, state: State) -> None:
        tracked.state = state
        self.count[str(state)] += 1
        invocation = tracked.invocation
        if invocation.ordering_key:
            del self._lines[invocation.function_id, invocation.ordering_key][invocation.key]
        self.open.pop(tracked.invocation.key, None)
        waiting = self._waiting.get(tracked.function_id, {})
        if waiting.pop(tracked.invocation.key, None) is not None:
            self.fairness.waits(tracked.function_id, len(waiting))

    def _check_capacity(self, invocation: Invocation) -> None:
        kind, runs = self.world.kinds[invocation.function_id], self.running.values()
        own = sum(1 for run in runs if run.function_id == kind.id)
        if own > kind.limit:
            self.violation(f"{own} invocations of {kind.name} run, {kind.limit} may")
        asynchronous = sum(1 for run in runs if run.invocation.mode is Mode.ASYNC)
        if len(runs) > SLOTS or asynchronous > SLOTS - SYNC_SLOTS:
            self.violation(f"{len(runs)} invocations run, {asynchronous} of them asynchronous")
        if self._memory() > MEMORY and len(runs) > 1:
            self.violation(f"running invocations take {self._memory()} MB")

    def _memory(self) -> int:
        counts = Counter(run.function_id for run in self.running.values())
        kinds = self.world.kinds
        return sum(
            -(-count // kinds[function_id].requests) * kinds[function_id].memory
            for function_id, count in counts.items()
        )

    def _check_start(self, invocation: Invocation) -> None:
        tracked = self.by_key[invocation.key]
        if tracked.state.final:
            self.violation(f"{_name(invocation)} runs after it has ended as {tracked.state}")
        if invocation.payload != tracked.invocation.payload:
            self.violation(f"{_name(invocation)} runs with {invocation.payload!r}, not {tracked.invocation.payload!r}")
        if tracked.tried == (self.world.life, invocation.attempt):
            self.violation(f"attempt {invocation.attempt} of {_name(invocation)} runs twice")
        tracked.tried, tracked.outcome = (self.world.life, invocation.attempt), None
        tracked.runs += 1
        line = self._lines.get((invocation.function_id, invocation.ordering_key), ())
        firsts = list(islice(line, self.world.kinds[invocation.function_id].per_key))
        if invocation.ordering_key and invocation.key not in firsts:
            self.violation(f"{_name(invocation)} runs before the end of {firsts}, which have the same ordering key")
        self.count["ordered attempts"] += bool(invocation.ordering_key)
        if invocation.function_id in self.world.paused:
            self.violation(f"{_name(invocation)} runs, but its function is paused")
        if self.world.now() > invocation.first_due_at + self._max_age(invocation):
            self.violation(f"{_name(invocation)} runs after its age")
        if not self.world.reached(invocation.due_at, tracked.mono - WRITING):
            self.violation(f"{_name(invocation)} runs before it is due")
        others = [run for run in self.running.values() if run.invocation.mode is Mode.ASYNC]
        if len(others) > 1 and any(run.invocation.crashes >= MAX_CRASHES for run in others):
            self.violation(f"{_name(invocation)} runs beside an invocation that must run alone")
        if tracked.begun_crashes + tracked.start_crashes > MAX_CRASHES + MAX_START_CRASHES + 1:
            self.violation(f"{_name(invocation)} runs after {tracked.begun_crashes} crashes")
        self._leave_order(invocation)

    def _leave_order(self, invocation: Invocation) -> None:
        waiting = self._waiting.get(invocation.function_id, {})
        if waiting.pop(invocation.key, None) is None:
            self.violation(f"{_name(invocation)} runs, but does not wait")
        self.fairness.waits(invocation.function_id, len(waiting))
        self._starts.append(invocation)

    def _check_order(self, invocation: Invocation) -> None:
        """Check that no invocation of the function with a smaller rank has waited since before this moment."""
        waiting = self._waiting.get(invocation.function_id, {})
        order = self._order.get(invocation.function_id, [])
        while order and (order[0][1] not in waiting or waiting[order[0][1]].rank_key != order[0]):
            heappop(order)
        if not order or order[0] >= invocation.rank_key:
            return
        place, first = waiting[order[0][1]], self.by_key[order[0][1]]
        settings = self.world.kinds[invocation.function_id].settings  # hold also if a deletion has failed
        expires = first.invocation.first_due_at + (settings.max_age if settings else math.inf)
        expired = self.world.reached(expires, place.since)
        damaged = first.invocation.key in self.world.damaged  # ends without a run
        exempt = first.cancelling or expired or damaged or first.invocation.key in self.deferred
        if place.since < self.world.time() and not exempt:
            self.violation(f"{_name(invocation)} runs before {_name(first.invocation)}")

    def _check_end(self, tracked: Tracked, settlement: Settlement) -> None:
        before, outcome = settlement.invocation, settlement.outcome
        if not settlement.ran:
            self._check_discard(before, outcome)
        elif before.key in self.world.damaged:
            if outcome.code != Code.ENGINE or settlement.retry is not None:
                self.violation(f"{_name(before)} is damaged on disk, but ends with {outcome.code}")
            self.count["damaged ends"] += 1
        elif tracked.outcome is None:
            crashes = tracked.begun_crashes, tracked.start_crashes
            if outcome.code != Code.ENGINE or (crashes[0] <= MAX_CRASHES and sum(crashes) <= MAX_START_CRASHES):
                self.violation(f"{_name(before)} ends with {outcome.code} after {crashes} crashes, but did not run")
            self.count["poisoned"] += 1
        elif outcome.code == Code.CANCELLED:
            if not tracked.cancelling:
                self.violation(f"{_name(before)} was cancelled by nobody")
        elif outcome.code != tracked.outcome.code:
            self.violation(f"{_name(before)} ends with {outcome.code}, but ran to {tracked.outcome.code}")
        else:
            held = self.world.clock is not None and self.world.clock.expiry.held
            if before.function_id not in self.world.deleted and not held:
                for problem in retry_problems(self.world.kinds[before.function_id], settlement):
                    self.violation(f"{_name(before)} {problem}")

    def _check_discard(self, before: Invocation, outcome: Outcome) -> None:
        if before.function_id in self.world.deleted:
            return
        if outcome.code == Code.EXPIRED:
            latest = before.first_due_at + self._max_age(before)
            if outcome.ended_at <= latest or not self.world.expired(latest, self.by_key[before.key].mono):
                self.violation(f"{_name(before)} was discarded before its age")
        else:
            self.violation(f"{_name(before)} was discarded with {outcome.code}")

    def _destination(self, settlement: Settlement) -> DestinationSpec | None:
        kind = self.world.kinds[settlement.invocation.function_id]
        if kind.settings is None or settlement.outcome.code == Code.CANCELLED:
            return None
        return kind.settings.on_success if settlement.state is State.SUCCESS else kind.settings.on_failure

    def _max_age(self, invocation: Invocation) -> float:
        kind = self.world.kinds[invocation.function_id]
        return math.inf if kind.settings is None or kind.id in self.world.deleted else kind.settings.max_age

    def _check_token(self, invocation: Invocation, token: str) -> None:
        name = (invocation.function_id, token)
        earlier = self._tokens.get(name)
        if earlier is not None and not self.world.expired(earlier[1] + RETENTION, earlier[2] - WRITING):
            self.violation(f"the idempotency key {token} started {_name(invocation)} besides key {earlier[0]}")
        self._tokens[name] = invocation.key, invocation.accepted_on_clock, self.world.time()

    def _note_tick(self, invocation: Invocation) -> None:
        event: dict[str, Any] = msgspec.json.decode(invocation.payload)
        due = int(datetime.fromisoformat(event["time"]).timestamp())
        self.count["timer events"] += 1
        self.ticks.setdefault(event["trigger_name"], {}).setdefault(due, []).append(self.world.time())


def _name(invocation: Invocation) -> str:
    return f"invocation {invocation.key} of function {invocation.function_id}"
