"""Audits of the simulated engine while it sleeps, and of everything at the end of a simulation."""

from __future__ import annotations

import math
from collections.abc import Iterator

from bench.proof.simulation.storage import SimulatedStorage
from bench.proof.simulation.witness import Witness
from bench.proof.simulation.world import AGE, EPOCH, HOUR, TIMERS, World
from engine.app.parts import EngineParts
from engine.model import State
from tests.doubles.rows import Row

#: Seconds between two audits, at least.
INTERVAL = 5.0
#: Seconds for which ready work may wait although nothing runs, for example until a failed read is repeated.
PATIENCE = 30.0
#: Entries of all windows in memory, and bytes.
WINDOW_ROWS, WINDOW_SIZE = 2 * 256, 64 << 20
#: Seconds after a step of the clock in which due times of timers may be skipped or repeated.
UNSTEADY = 2.1 * HOUR
#: Seconds by which an invocation may be pruned later than its age.
PRUNED_LATE = 4 * HOUR
#: Seconds by which a request of a timer may come later than its due time.
LATE = 120.0


class Auditor:
    """Audits of one process. ``look`` is called whenever the process is about to sleep."""

    def __init__(self, world: World, witness: Witness, storage: SimulatedStorage, engine: EngineParts) -> None:
        self._world, self._witness, self._storage, self._engine = world, witness, storage, engine
        self._next = 0.0
        self._idle_since: tuple[float, int] | None = None
        self.draining = False

    def look(self) -> None:
        now = self._world.time()
        self._witness.moment_ends()
        if now < self._next or self._storage.broken:
            return
        self._next = now + INTERVAL
        self._check_windows()
        if self._storage.writes.idle:
            self._witness.count["audits"] += 1
            self._check_counters()
        self._check_progress(now)

    def _check_counters(self) -> None:
        """Compare the counters in memory with a recount of the rows on disk."""
        backlog, tally = self._engine.backlog, self._world.tables.tally
        for function_id, sums in tally.items():
            if backlog.of(function_id) != sums:
                self._witness.violation(
                    f"the backlog of function {function_id} counts {backlog.of(function_id)}, but has {sums}"
                )
        rows, size = sum(rows for rows, _ in tally.values()), sum(size for _, size in tally.values())
        if (backlog.rows, backlog.size) != (rows, size):
            self._witness.violation(f"the backlog counts {backlog.rows} of {backlog.size} bytes, not {rows} of {size}")

    def _check_windows(self) -> None:
        queue = self._engine.scheduler.statistics()
        if queue.window_bytes > WINDOW_SIZE or queue.waiting_in_memory > WINDOW_ROWS * len(self._world.kinds):
            self._witness.violation(f"windows hold {queue.waiting_in_memory} rows of {queue.window_bytes} bytes")
        self._witness.count["largest window"] = max(self._witness.count["largest window"], queue.waiting_in_memory)

    def _check_progress(self, now: float) -> None:
        """Check that something runs while invocations are ready."""
        world, state = self._world, (now, self._witness.count["attempts"])
        stopped = world.deleted | world.disabled | world.pausing
        ready = any(line for function_id, line in world.tables.ready.items() if function_id not in stopped)
        if (
            not ready
            or self._witness.running
            or self._engine.clock.expiry.held
            or self._storage.writes.failure
            or self.draining
        ):
            self._idle_since = None
        elif self._idle_since is None or self._idle_since[1] != state[1]:
            self._idle_since = state
        elif now - self._idle_since[0] > PATIENCE:
            self._witness.violation(f"work has been ready for {now - self._idle_since[0]:.0f} s, but nothing runs")
            self._idle_since = None


def check_end(world: World, witness: Witness) -> None:
    """Check what must be true when no client sends anything any more and all work that is due has been done."""
    tables, now = world.tables, world.now()
    ordered = [row for row in tables.rows.values() if row.invocation.ordering_key and not row.invocation.held]
    blocking = {(row.invocation.function_id, row.invocation.ordering_key) for row in ordered if _is_delayed(row, now)}
    recount: dict[int, tuple[int, int]] = {}
    for key, row in tables.rows.items():
        tracked = witness.by_key.get(key)
        if tracked is None or tracked.state is not row.state:
            witness.violation(f"invocation {key} is {row.state} on disk")
        if not row.state.final:
            invocation = row.invocation
            rows, size = recount.get(invocation.function_id, (0, 0))
            recount[invocation.function_id] = rows + 1, size + row.payload_size
            waits = _is_delayed(row, now) or (
                invocation.held and (invocation.function_id, invocation.ordering_key) in blocking
            )
            if not waits and world.time() - tracked_since(witness, key) > LATE:
                witness.violation(f"invocation {key} of function {invocation.function_id} has not ended: {row.state}")
    if recount != {function_id: sums for function_id, sums in tables.tally.items() if sums[0]}:
        witness.violation("the counters on disk differ from a recount")
    for key in witness.open:
        if key not in tables.rows:
            witness.violation(f"invocation {key} was accepted, but is lost")
    for pending in tables.deliveries.values():
        if pending.due_at <= now:
            witness.violation(f"delivery {pending.delivery_id} is due, but has not been made")
    for row in tables.rows.values():
        if (row.ended_at or math.inf) <= now - AGE - PRUNED_LATE and not tables.undelivered[row.invocation.key]:
            witness.violation(f"invocation {row.invocation.key} is too old, but was not pruned")
    if witness.streamed != world.published:
        witness.violation(f"{witness.streamed} of {world.published} events of the stream were accepted")
    for problem in _timer_problems(world, witness):
        witness.violation(problem)


def _is_delayed(row: Row, now: float) -> bool:
    invocation = row.invocation
    return row.state is State.WAIT and invocation.delayed and not invocation.held and invocation.due_at > now


def tracked_since(witness: Witness, key: int) -> float:
    """Return the time of the last write about an invocation."""
    return witness.by_key[key].mono if key in witness.by_key else 0.0


def _timer_problems(world: World, witness: Witness) -> Iterator[str]:
    """Yield due times without a request, although the engine ran and the clock was not set."""
    for name, _, _, period in TIMERS:
        seen = witness.ticks.get(name, {})
        for begin, end in _steady(world):
            offset = next(offset for since, offset in reversed(world.steps) if since <= begin)
            due = (int((begin + offset - EPOCH) // period) + 1) * period + int(EPOCH)
            if period == 21_600:
                due = (int((begin + offset) // period) + 1) * period
            while due < end + offset:
                witness.count["due times checked"] += 1
                failing = any(at - LATE <= due - offset <= at + LATE for at in world.failures)
                if due not in seen and not failing:
                    yield f"the timer {name} skipped its due time {due}"
                due += period


def _steady(world: World) -> Iterator[tuple[float, float]]:
    """Yield spans of time in which a process ran and the clock was not set, without their unsteady beginnings."""
    steps = [(since, UNSTEADY) for since, _ in world.steps[1:]]
    for born, died in world.lives:
        begin = born + LATE
        if any(born - UNSTEADY < since <= born for since, _ in world.steps[1:]):
            begin = born + UNSTEADY
        for since, wait in [*steps, (died, 0.0)]:
            if since > born:
                end = min(since, died) - LATE
                if end > begin:
                    yield begin, end
            begin = max(begin, since + wait)
            if since >= died:
                break
