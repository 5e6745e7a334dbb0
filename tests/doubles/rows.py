"""Rows of the tables: invocations."""

from __future__ import annotations

from msgspec import Struct, field
from msgspec.structs import replace

from engine.model import Attempt, Invocation, Record, State


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
        return sum(len(attempt.log) for attempt in self.attempts.values())

    def crashed(self) -> Invocation:
        """Return the invocation of a running row, with a crash of the engine added to its counts."""
        invocation = self.invocation
        return replace(
            invocation,
            crash_count=invocation.crash_count + self.begun,
            start_crashes=invocation.start_crashes + (not self.begun),
        )


def to_record(row: Row) -> Record:
    invocation = row.invocation
    return Record(
        key=invocation.key,
        request_id=invocation.request_id,
        function_id=invocation.function_id,
        version=invocation.version,
        alias=invocation.alias,
        source=invocation.source,
        state=row.state,
        priority=invocation.priority,
        due_at=invocation.due_at,
        started_at=row.started_at,
        ended_at=row.ended_at,
        attempt=invocation.attempt,
        code=row.code,
        message=row.message,
        hops=invocation.hops,
        trace=invocation.trace,
        ordering_key=invocation.ordering_key,
        held=row.held,
        trigger_id=invocation.trigger_id,
        cause=invocation.cause,
        payload=invocation.payload,
        result=row.result,
        log=row.log,
        attempts=tuple(row.attempts[number] for number in sorted(row.attempts)),
    )
