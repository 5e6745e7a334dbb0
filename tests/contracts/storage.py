"""Storage interfaces for the contract suites, on SQLite and in memory, with builders of stored invocations."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any, Protocol

import anyio
from msgspec import Struct
from msgspec.structs import replace

from engine.model import Code, DestinationSpec, Invocation, Outcome, State
from engine.model.identity import Identity
from engine.protocols import CatalogStore, Cursors, Journal, Outbox, Records, ResourceStore, Settlement, Store, Window
from engine.storage.sqlite import locked, open_storage
from engine.testing import MemoryCursors, MemoryStorage, MemoryStore
from engine.testing.resources import MemoryResourceStore

NOW = 1_700_000_000.0
ROOM = 1 << 20  #: bytes; more than any test stores
SINK = DestinationSpec(destination="FunctionGraph", param='{"func_urn":"urn:x"}')
KINDS = ("sqlite", "memory")


class JournalWithWindow(Journal, Window, Protocol):
    pass


class Seams(Struct, frozen=True, kw_only=True):
    journal: JournalWithWindow
    records: Records
    outbox: Outbox
    catalog: CatalogStore
    identity: Identity
    resources: ResourceStore
    cursors: Cursors
    store: Callable[[str], Store]  #: store of a plugin, by its name


#: Opens the storage; a second call reopens the same data.
Storage = Callable[[], AbstractAsyncContextManager[Seams]]


def storage_of(kind: str, directory: Path) -> Storage:
    memory = MemoryStorage(idempotency_retention=100.0)
    resources, stores = MemoryResourceStore(), defaultdict[str, MemoryStore](MemoryStore)
    cursors = MemoryCursors(memory, resources)

    @asynccontextmanager
    async def on_disk() -> AsyncIterator[Seams]:
        with locked(directory):
            async with (
                open_storage(directory, idempotency_retention=100.0) as opened,
                anyio.create_task_group() as tasks,
            ):
                await tasks.start(opened.writer.run)
                try:
                    yield _seams(opened, opened.resources, opened.cursors, opened.store)
                finally:
                    opened.writer.close()

    @asynccontextmanager
    async def in_memory() -> AsyncIterator[Seams]:
        yield _seams(memory, resources, cursors, stores.__getitem__)

    return on_disk if kind == "sqlite" else in_memory


def _seams(storage: Any, resources: ResourceStore, cursors: Cursors, store: Callable[[str], Store]) -> Seams:
    return Seams(
        journal=storage.journal,
        records=storage.records,
        outbox=storage.outbox,
        catalog=storage.catalog,
        identity=storage.identity,
        resources=resources,
        cursors=cursors,
        store=store,
    )


_seconds = count()


def made(seams: Seams, function_id: int = 1, *, at: float | None = None, **fields: Any) -> Invocation:
    """Return a new invocation accepted at ``at``; by default one second after the previous one."""
    at = NOW + next(_seconds) if at is None else at
    key = seams.identity.next_key(at)
    fields = {"due_at": at, "first_due_at": at, "rank": at, "payload": b"{}", **fields}
    return Invocation(key=key, request_id=seams.identity.request_id(key), function_id=function_id, **fields)


async def stored(seams: Seams, function_id: int = 1, **fields: Any) -> Invocation:
    """Store and return a waiting invocation."""
    invocation = made(seams, function_id, **fields)
    await seams.journal.append(invocation)
    return invocation


async def started(seams: Seams, function_id: int = 1, **fields: Any) -> Invocation:
    """Store and return a running invocation; its state is committed."""
    invocation = await stored(seams, function_id, **fields)
    seams.journal.start(invocation, invocation.due_at)
    await seams.journal.ready(function_id, (0.0, 0), 0, 0)  # written after the start, in the same or a later commit
    return invocation


async def settled(seams: Seams, invocation: Invocation, outcome: Outcome, **fields: Any) -> None:
    """Settle the invocation and return when that is committed."""
    done = asyncio.get_running_loop().create_future()
    fields.setdefault("state", State.SUCCESS if outcome.ok else State.FAIL)
    seams.journal.settle(Settlement(invocation=invocation, outcome=outcome, **fields), then=done.set_result)
    await done


async def ended(
    seams: Seams, function_id: int = 1, *, deliver_to: DestinationSpec | None = None, **fields: Any
) -> Invocation:
    """Store an invocation that ran successfully and return it."""
    invocation = await started(seams, function_id, **fields)
    await settled(seams, invocation, success(invocation), deliver_to=deliver_to)
    return invocation


async def retried(seams: Seams, invocation: Invocation, outcome: Outcome, after: float = 10.0) -> Invocation:
    """Settle the invocation with a retry; return the waiting one."""
    due_at = invocation.due_at + after
    retry = replace(invocation, attempt=invocation.attempt + 1, failures=1, due_at=due_at, rank=due_at, delayed=True)
    await settled(seams, invocation, outcome, state=State.WAIT, retry=retry)
    return retry


def success(invocation: Invocation, **fields: Any) -> Outcome:
    return Outcome(started_at=invocation.due_at, ended_at=invocation.due_at + 1, **fields)


def failure(invocation: Invocation, **fields: Any) -> Outcome:
    fields = {"code": Code.USER_EXCEPTION, "message": "no", "result": b'{"errorMessage":"no"}', **fields}
    return Outcome(started_at=invocation.due_at, ended_at=invocation.due_at + 1, **fields)


def cancelled(moment: float = NOW) -> Outcome:
    return Outcome(code=Code.CANCELLED, message="canceled", ended_at=moment)


def discarded(moment: float = NOW) -> Outcome:
    return Outcome(code=Code.FUNCTION_MISSING, message="gone", started_at=moment, ended_at=moment)
