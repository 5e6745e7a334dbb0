"""Kinds of storage for the contract suites, with builders of stored invocations."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any, Protocol
from unittest.mock import patch

import pytest
from msgspec.structs import replace

from engine.model import Code, DestinationSpec, Invocation, Outcome, Record, State
from engine.protocols import Settlement, Storage, WaitingEnd
from engine.storage import StorageOptions, open_storage
from engine.storage.data_directory import locked
from engine.storage.sqlite import database
from tests.doubles import MemoryStorage
from tests.support.disk import FSYNC, FULL, Disk, connection_on

NOW = 1_700_000_000.0
BEGINNING = (float("-inf"), 0)  #: rank and key before those of all invocations
ROOM = 1 << 20  #: bytes; more than any test stores
SINK = DestinationSpec(destination="FunctionGraph", param='{"func_urn":"urn:x"}')
RETENTION = 100.0  #: seconds for which idempotency keys are stored


class Opened(Protocol):
    """Opener of one storage: ``async with opened() as storage``. A second call opens the same data again."""

    def __call__(self) -> AbstractAsyncContextManager[Storage]: ...

    def fail(self) -> None:
        """Let writes fail until ``heal``."""
        ...

    def heal(self) -> None: ...

    def break_down(self) -> None:
        """Let writes fail in a way that only a restart can cure. The next write may be needed to notice it."""
        ...


class SQLiteKind:
    def __init__(self, directory: Path) -> None:
        self._directory, self._disk = directory, Disk()
        self.fail = lambda: self._disk.fail(FULL, "BEGIN")
        self.heal = self._disk.heal
        self.break_down = lambda: self._disk.fail(FSYNC)

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[Storage]:
        self._disk.heal()
        with locked(self._directory), patch.object(database, "WritingConnection", connection_on(self._disk)):
            options = StorageOptions(directory=self._directory, idempotency_retention=RETENTION)
            async with open_storage(options) as storage:
                yield storage


class MemoryKind:
    def __init__(self, directory: Path) -> None:
        storage = MemoryStorage(idempotency_retention=RETENTION)
        self._opened = storage.opened
        self.fail, self.heal, self.break_down = storage.fail, storage.heal, storage.break_down

    def __call__(self) -> AbstractAsyncContextManager[Storage]:
        return self._opened()


#: Kinds by name. Another kind needs an entry here only.
KINDS: dict[str, Callable[[Path], Opened]] = {"sqlite": SQLiteKind, "memory": MemoryKind}

#: Mark of tests of what the storage in memory leaves out, because no test above the storage needs it.
on_sqlite = pytest.mark.parametrize("opened", ["sqlite"], indirect=True)


_seconds = count()


def made(storage: Storage, function_id: int = 1, *, at: float | None = None, **fields: Any) -> Invocation:
    """Return a new invocation accepted at ``at``; by default one second after the previous one."""
    at = NOW + next(_seconds) if at is None else at
    key = storage.identity.next_key(at)
    fields = {"due_at": at, "first_due_at": at, "rank": at, "payload": b"{}", **fields}
    return Invocation(key=key, request_id=storage.identity.request_id(key), function_id=function_id, **fields)


async def stored(storage: Storage, function_id: int = 1, **fields: Any) -> Invocation:
    """Store and return a waiting invocation."""
    invocation = made(storage, function_id, **fields)
    await storage.journal.append(invocation)
    return invocation


async def started(storage: Storage, function_id: int = 1, *, begun: bool = True, **fields: Any) -> Invocation:
    """Store and return a running invocation; its state, and whether its handler has begun, are committed."""
    invocation = await stored(storage, function_id, **fields)
    storage.journal.start(invocation, invocation.due_at, begun=begun)
    await storage.window.ready(function_id, (0.0, 0), 0, 0)  # written after the start, in the same or a later commit
    return invocation


async def record_of(storage: Storage, invocation: Invocation) -> Record:
    record = await storage.records.get(invocation.key)
    assert record is not None
    return record


async def ready_of(storage: Storage, function_id: int = 1, limit: int = 1000) -> Sequence[Invocation]:
    """Return the ready invocations of a function, in order."""
    return (await storage.window.ready(function_id, BEGINNING, limit, ROOM)).invocations


async def settled(storage: Storage, invocation: Invocation, outcome: Outcome, **fields: Any) -> None:
    """Settle the invocation and return when that is committed."""
    done = asyncio.get_running_loop().create_future()
    fields.setdefault("state", State.SUCCESS if outcome.ok else State.FAIL)
    storage.journal.settle(Settlement(invocation=invocation, outcome=outcome, **fields), then=done.set_result)
    await done


async def ended(
    storage: Storage, function_id: int = 1, *, deliver_to: DestinationSpec | None = None, **fields: Any
) -> Invocation:
    """Store an invocation that ran successfully and return it."""
    invocation = await started(storage, function_id, **fields)
    await settled(storage, invocation, success(invocation), deliver_to=deliver_to)
    return invocation


async def retried(
    storage: Storage, invocation: Invocation, outcome: Outcome, after: float = 10.0, **fields: Any
) -> Invocation:
    """Settle the invocation with a retry; return the waiting one."""
    due_at = invocation.due_at + after
    retry = replace(invocation, attempt=invocation.attempt + 1, failures=1, due_at=due_at, rank=due_at, delayed=True)
    await settled(storage, invocation, outcome, state=State.WAIT, retry=retry, **fields)
    return retry


def success(invocation: Invocation, **fields: Any) -> Outcome:
    return Outcome(started_at=invocation.due_at, ended_at=invocation.due_at + 1, **fields)


def failure(invocation: Invocation, **fields: Any) -> Outcome:
    fields = {"code": Code.USER_EXCEPTION, "message": "no", "result": b'{"errorMessage":"no"}', **fields}
    return Outcome(started_at=invocation.due_at, ended_at=invocation.due_at + 1, **fields)


def cancelled(moment: float = NOW) -> Outcome:
    return Outcome(code=Code.CANCELLED, message="canceled", ended_at=moment)


CANCELLED = WaitingEnd(state=State.FAIL, outcome=cancelled())


def discarded(moment: float = NOW) -> Outcome:
    return Outcome(code=Code.FUNCTION_MISSING, message="gone", started_at=moment, ended_at=moment)
