"""Explanation of an invocation's state: why it waits, and how many others start before it.

The place is read from disk, the reasons from memory. An engine that takes over gives the reasons that hold there.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from engine.model import Record, State
from engine.model.clock import Clock, rfc3339
from engine.model.identity import Identity
from engine.protocols import Records
from engine.protocols.calls import Calls
from engine.scheduling.runqueue import Obstacles
from engine.scheduling.scheduler import Scheduler

MOST_AHEAD = 10_000  #: invocations that are counted


class Reason(Struct, frozen=True):
    """Reason for which an invocation does not run, or does not end."""

    reason: str  #: such as ``paused``; programs may compare it
    text: str  #: the same for people, with the values that matter and the next step


class Explanation(Struct, frozen=True, kw_only=True):
    record: Record
    ahead: int | None  #: ready invocations of the function that start before it; None: it is not ready
    reasons: tuple[Reason, ...]  #: the one to look at first is first; empty: it starts next, or has ended


class Explainer:
    def __init__(self, records: Records, calls: Calls, scheduler: Scheduler, clock: Clock, identity: Identity) -> None:
        self._records, self._calls, self._scheduler = records, calls, scheduler
        self._clock, self._identity = clock, identity

    async def explain(self, record: Record) -> Explanation:
        """Explain the state of an invocation, as ``record`` has it."""
        if record.state.final:
            return Explanation(record=record, ahead=None, reasons=())
        standing = await self._records.standing(record.key, MOST_AHEAD)
        if record.state is State.RUNNING:
            starting = Reason("starting", "its instance is being started, or initialized")
            runs = Reason("running", f"attempt {record.attempt} runs") if standing.begun else starting
            return Explanation(record=record, ahead=None, reasons=(runs,))
        if standing.predecessor is not None:
            reasons = [*self._own(record), self._held(record, standing.predecessor)]
            return Explanation(record=record, ahead=None, reasons=tuple(reasons))
        if record.held and (group := (await self._calls.links(record.key)).waits_for) is not None:
            counts = f"{group.done} of {group.stored if group.total is None else group.total} calls have ended"
            text = f"it runs after others: {counts}{'' if group.total is not None else ', and more may be added'}"
            return Explanation(record=record, ahead=None, reasons=(Reason("held", text),))
        reasons = [*self._own(record), *self._of_function(record.function_id)]
        if standing.ahead:
            reasons.append(Reason("order", _order(standing.ahead)))
        return Explanation(record=record, ahead=standing.ahead, reasons=tuple(reasons))

    def reasons_of(self, function_id: int) -> Sequence[Reason]:
        """Return why no ready invocation of a function starts now; empty: the first one starts next."""
        pause = self._pause(function_id)
        return [pause] if pause else self._of_function(function_id)

    # --- inside ---------------------------------------------------------------------------------------------

    def _pause(self, function_id: int) -> Reason | None:
        pause = self._scheduler.pause_reason(function_id)
        if pause is None:
            return None
        why = f" ({pause})" if pause else ""
        return Reason("paused", f"the function is paused{why}; resume it")

    def _own(self, record: Record) -> list[Reason]:
        """Return the reasons that do not depend on the capacity of the engine."""
        pause = self._pause(record.function_id)
        reasons = [pause] if pause else []
        if record.due_at > self._clock.now():
            due = f"due at {rfc3339(record.due_at)}"
            again = record.attempt > 1
            reasons.append(Reason("retry", f"{due}, as attempt {record.attempt}") if again else Reason("delay", due))
        return reasons

    def _held(self, record: Record, predecessor: int) -> Reason:
        before = self._identity.request_id(predecessor)
        order = f"in the order of their key {record.ordering_key!r}"
        return Reason("held", f"{before} comes before it {order}; explain that one")

    def _of_function(self, function_id: int) -> list[Reason]:
        held, now = sorted(self._scheduler.held), self._scheduler.obstacles(function_id)
        reasons = [Reason("engine", f"the engine starts no asynchronous work: {reason}") for reason in held]
        if now.parked:
            text = "the engine doubts its clock, and cannot tell the age; correct the clock, or accept it"
            reasons.append(Reason("clock", text))
        return reasons + _capacity(now)


def _order(ahead: int) -> str:
    if ahead == 1:
        return "one invocation of the function starts before it"
    more = " or more" if ahead == MOST_AHEAD else ""
    return f"{ahead}{more} invocations of the function start before it"


def _capacity(now: Obstacles) -> list[Reason]:
    reasons = []
    if now.full:
        text = f"{now.running} invocations of the function run, and its limit is {now.limit}; raise max_instances"
        reasons.append(Reason("limit", text))
    if now.scarce:
        reasons.append(Reason("capacity", "waits for capacity: no node has room for another instance of the function"))
    if now.next_token is not None:
        reasons.append(Reason("rate", "the function has used up its rate of starts; raise rate, or wait"))
    if now.alone:
        reasons.append(Reason("alone", "an invocation that met crashes of the engine runs alone"))
    elif not now.slot_free:
        advice = "raise executor.slots, or lower executor.sync_slots"
        state = "are busy"
        if now.slots_kept > 0:
            advice, state = "raise executor.slots, or lower executor.other_slots", "are busy or kept for other projects"
        reasons.append(Reason("slots", f"all {now.slots} slots for asynchronous work {state}; {advice}"))
    elif now.memory > now.memory_free:
        text = f"an instance needs {now.memory} MiB, and {max(0, now.memory_free)} MiB are free; raise executor.memory"
        reasons.append(Reason("memory", text))
    return reasons
