"""Rows of the tables: invocations, and entries of the status log."""

from __future__ import annotations

import time

from msgspec import Struct, field
from msgspec.structs import replace

from engine.model import Attempt, Invocation, Record, State
from engine.model.signal import Signal
from engine.protocols import StatusEntry, StatusTarget
from engine.protocols.status_log import LONGEST_MESSAGE, MOST_ENTRIES


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


class MemoryStates:
    """Entries of the status log, and the versions whose states are logged."""

    def __init__(self) -> None:
        self.added: Signal[[]] = Signal()
        self.targets: dict[tuple[int, str], StatusTarget] = {}
        self.entries: list[StatusEntry] = []
        self.dropped = self._last_id = 0

    def note(
        self, invocation: Invocation, state: State, at: float | None = None, code: int = 0, message: str = ""
    ) -> None:
        """Add an entry if the version of the invocation is followed. Without ``at``, the entry has the present time."""
        target = self.targets.get((invocation.function_id, invocation.version))
        if target is None:
            return
        if len(self.entries) >= MOST_ENTRIES:
            self.dropped += 1
            return
        self._last_id += 1
        entry = StatusEntry(
            entry_id=self._last_id,
            target=target,
            request_id=invocation.request_id,
            state=state,
            at=time.time() if at is None else at,
            code=code,
            message=message[:LONGEST_MESSAGE],
        )
        self.entries.append(entry)
        self.added()
