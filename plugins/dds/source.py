"""Reader of a collection's changes from its cursor on. Each batch and its cursor are stored in one transaction.

begin ──▶ stream ──▶ batch ──▶ batch … ──▶ collection removed, or position no longer in the server's log
            ▲                                        │ on_lost = restart              │ on_lost = stop: wait for
            └────────────────────────────────────────┘                                ▼ a change of the trigger
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

import anyio
import msgspec
from anyio.abc import TaskStatus
from bson.raw_bson import RawBSONDocument
from msgspec.structs import replace
from pymongo.asynchronous.change_stream import AsyncChangeStream
from pymongo.errors import OperationFailure

from engine import TriggerContext
from plugins.dds.client import (
    LOST,
    MIN_WAIT,
    NAME,
    TOO_LARGE,
    Database,
    Feed,
    ResumeToken,
    Seen,
    first_of,
    next_of,
    open_database,
    reachable,
    read,
)
from plugins.dds.options import DdsOptions, DdsSettings
from plugins.dds.records import Change, EventEncoder, change_of, extended_json

GONE = "no longer exists"
#: operations that end a collection, as words of messages
ENDS = {"drop": "was dropped", "rename": "was renamed", "dropDatabase": "was dropped with its database"}


class Stopped(Exception):
    """Exception that ends reading until a client changes the trigger."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"{problem}; change the trigger to continue")


class Reader:
    """Reader of a collection's changes from one start of the trigger's source to its end."""

    def __init__(self, options: DdsOptions, context: TriggerContext) -> None:
        self._options, self._context = options, context
        self._settings: DdsSettings = context.plugin.settings
        self._position = read(context.cursors, f"{options.instance_id}/{options.collection}")
        self._stored_at = anyio.current_time()
        self._end = GONE  #: reason of the collection's end, for messages
        self._encoder = EventEncoder(
            kind=context.kind,
            region=context.plugin.region,
            source_id=context.trigger_id,
            database=options.db_name,
            collection=options.collection_name,
            limit=self._settings.batch_bytes,
        )

    async def run(self, task_status: TaskStatus[None]) -> None:
        server = self._settings.server(self._options, self._context.kind.lower())
        async with open_database(server, self._options, self._settings) as database:
            await self._begin(database)
            started = False
            while True:
                try:
                    async with database.stream(self._position) as stream:
                        if not started:
                            task_status.started()
                            started = True
                        self._context.report_problem("")
                        await self._follow(stream)
                except OperationFailure as error:
                    await self._lost(database, error)

    # --- positions ------------------------------------------------------------------------------------------

    async def _begin(self, database: Database) -> None:
        """Store the first position, unless the cursor has a position.

        Raises Stopped if reading stopped earlier, the trigger has not been changed since, and ``on_lost`` is still
        ``stop``.
        """
        position = self._position
        if self._settings.on_lost == "stop" and position.stopped(self._context.generation):
            raise Stopped(position.problem)
        if position.known:
            return
        now = await database.now()
        waited = self._context.plugin.clock.now() - self._context.since
        await self._store(next_of(position.place, now) if position.problem else first_of(position.place, now, waited))

    async def _lost(self, database: Database, error: OperationFailure) -> None:
        """Move the cursor to the server's current position after a loss of changes, and report the loss.

        Raises Stopped if the setting ``on_lost`` is ``stop``; ``error`` itself if it does not mean that changes are
        lost.
        """
        if error.code not in LOST and error.code != TOO_LARGE:
            raise error
        why = "one is too large" if error.code == TOO_LARGE else "the server no longer has the cursor's position"
        problem = f"changes of {self._options.collection} behind the cursor are lost: {why} ({error.code})"
        if self._settings.on_lost == "stop":
            await self._stop(ResumeToken(place=self._position.place), problem)
        await self._store(next_of(self._position.place, await database.now()))
        self._context.report_lost(problem, 0)
        await anyio.sleep(MIN_WAIT)  # loses no change, and bounds the rate if the server drops this position as well

    async def _stop(self, position: ResumeToken, problem: str, changes: Sequence[Change] = ()) -> NoReturn:
        await self._store(replace(position, problem=problem, generation=self._context.generation), changes)
        raise Stopped(problem)

    # --- batches --------------------------------------------------------------------------------------------

    async def _follow(self, stream: AsyncChangeStream[RawBSONDocument]) -> None:
        """Accept changes until the collection is dropped or renamed.

        Raises Stopped if the setting ``on_lost`` is ``stop`` at that time, and the errors that end a stream.
        """
        settings, ended = self._settings, False
        feed = Feed(stream, most=self._options.batch_size, size=settings.batch_bytes, wait=settings.batch_wait)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(feed.run)
            while batch := await feed.batch():
                ended = await self._accept(batch)
            tasks.cancel_scope.cancel()
        if feed.failure is not None:
            with reachable():
                raise feed.failure
        if not ended:
            raise ConnectionError("the server has ended the stream")

    async def _accept(self, batch: Sequence[Seen]) -> bool:
        """Pass a batch of changes to the engine, together with the cursor after it.

        Return whether the collection was dropped or renamed at the batch's end. Raises Stopped if the setting
        ``on_lost`` is ``stop`` in this case.
        """
        changes = [change_of(seen.raw) for seen in batch if seen.raw]
        since = self._position.since
        fresh = [change for change in changes if change.made_at >= since]
        self._end = next((ENDS[change.operation] for change in changes if change.operation in ENDS), self._end)
        position, token = self._position, batch[-1].token
        if token:
            position = ResumeToken(place=position.place, token=extended_json(token), since=0.0 if fresh else since)
        if changes and changes[-1].operation == "invalidate":
            end = replace(position, token=changes[-1].token, invalid=True)
            if fresh:
                await self._pass_end(end, fresh)
            else:  # of a collection that was made anew before the trigger was enabled
                await self._store(end)
            return True
        due = anyio.current_time() - self._stored_at >= self._settings.keep_every
        if changes or (due and position != self._position):
            await self._store(position, fresh)
        return False

    async def _pass_end(self, end: ResumeToken, changes: Sequence[Change]) -> None:
        problem, self._end = f"collection {self._options.collection} {self._end}", GONE
        if self._settings.on_lost == "stop":
            await self._stop(end, problem, changes)
        self._context.report_problem(f"{problem}; a new collection of its name is read from its beginning")
        await self._store(end, changes)

    async def _store(self, position: ResumeToken, changes: Sequence[Change] = ()) -> None:
        wanted = [change for change in changes if change.operation in self._settings.operations]
        await self._context.accept_batch(self._encoder.events(wanted), {NAME: msgspec.json.encode(position)})
        self._position, self._stored_at = position, anyio.current_time()
