"""Rows of storages without a disk: the double of the storage in this package, and that of simulations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec
from msgspec import Struct, field
from msgspec.structs import replace

from engine.model import Attempt, DestinationSpec, Invocation, PendingDelivery, Record, State
from engine.model.identity import accepted_at, key_at
from engine.model.retry import MAX_CRASHES, MAX_START_CRASHES
from engine.protocols import CursorMove, StoredResource


class Row(Struct, kw_only=True):
    """Stored invocation with its state, result and attempts."""

    invocation: Invocation
    state: State = State.WAIT
    begun: bool = False  #: of a running row: the handler of its attempt has begun
    started_at: float | None = None
    ended_at: float | None = None
    code: int = 0
    message: str = ""
    result: bytes = b""
    log: bytes = b""
    attempts: dict[int, Attempt] = field(default_factory=dict)

    @property
    def ready(self) -> bool:
        return self.state is State.WAIT and not self.invocation.delayed and not self.invocation.held

    @property
    def delayed(self) -> bool:
        return self.state is State.WAIT and self.invocation.delayed and not self.invocation.held

    @property
    def held(self) -> bool:
        return self.state is State.WAIT and self.invocation.held

    @property
    def payload_size(self) -> int:
        return len(self.invocation.payload)

    @property
    def size(self) -> int:
        return self.payload_size + len(self.result) + len(self.log) + self.attempts_size

    @property
    def attempts_size(self) -> int:
        return sum(len(one.log) for one in self.attempts.values())

    def crashed(self) -> Invocation:
        """Return the invocation of a running row, with a crash of the engine added to its counts."""
        one = self.invocation
        return replace(
            one, crash_count=one.crash_count + self.begun, start_crashes=one.start_crashes + (not self.begun)
        )


def released(held: Invocation, now: float) -> Invocation:
    """Return a held invocation as the end of its predecessor releases it."""
    due_at = held.due_at if held.delayed else min(held.due_at, now)
    return replace(held, held=False, delayed=True, due_at=due_at)


def poisoned(crashed: Invocation) -> bool:
    """Return whether an invocation met too many crashes to run again."""
    return crashed.crash_count > MAX_CRASHES or crashed.start_crashes > MAX_START_CRASHES


def to_record(row: Row) -> Record:
    one = row.invocation
    return Record(
        key=one.key,
        request_id=one.request_id,
        function_id=one.function_id,
        version=one.version,
        alias=one.alias,
        source=one.source,
        state=row.state,
        priority=one.priority,
        due_at=one.due_at,
        started_at=row.started_at,
        ended_at=row.ended_at,
        attempt=one.attempt,
        code=row.code,
        message=row.message,
        hops=one.hops,
        trace=one.trace,
        ordering_key=one.ordering_key,
        held=row.held,
        trigger_id=one.trigger_id,
        cause=one.cause,
        payload=one.payload,
        result=row.result,
        log=row.log,
        attempts=tuple(row.attempts[number] for number in sorted(row.attempts)),
    )


def newest(keys: Iterable[int], before: float) -> float | None:
    """Return the time of the newest invocation that was accepted before a time."""
    return max((accepted_at(key) for key in keys if key < key_at(before)), default=None)


def new_delivery(
    delivery_id: int, invocation: Invocation, state: State, spec: DestinationSpec, due_at: float
) -> PendingDelivery:
    return PendingDelivery(
        delivery_id=delivery_id,
        key=invocation.key,
        function_id=invocation.function_id,
        condition="success" if state is State.SUCCESS else "failure",
        destination=spec,
        due_at=due_at,
    )


def move_problem(trigger: StoredResource | None, stored: Mapping[str, bytes], move: CursorMove) -> str:
    """Return why a cursor must not move; an empty text if it may."""
    generation = msgspec.json.decode(trigger.body, type=dict[str, object]).get("generation") if trigger else None
    if trigger is None or (trigger.owner, generation) != (move.owner, move.generation):
        return "the trigger was changed or deleted meanwhile"
    moved = next((name for name, position in move.expected.items() if stored.get(name) != position), None)
    return "" if moved is None else f"its cursor {moved!r} is not at the expected position"
