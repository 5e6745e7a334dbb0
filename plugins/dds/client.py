"""Client of a document database: change streams of a collection, their reader in batches, and positions in them.

The next batch is read while one is being accepted by the engine.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC
from typing import Any, cast

import anyio
import msgspec
from bson import Timestamp, json_util
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from msgspec import Struct
from pymongo import AsyncMongoClient
from pymongo.asynchronous.change_stream import AsyncChangeStream
from pymongo.errors import ConnectionFailure, PyMongoError

from plugins.dds.options import DdsOptions, DdsSettings, Instance

#: name of a trigger's only cursor
NAME = "changes"

#: operation time of the server's log: seconds, and a count within the second
Moment = tuple[int, int]

RAW: CodecOptions[Any] = CodecOptions(document_class=RawBSONDocument)

#: Operations that end a stream. Always requested, even if the settings do not select them.
ENDINGS = ("drop", "rename", "dropDatabase", "invalidate")

#: Error codes for a position that the server's log does not have, or no longer has. The 5-digit ones: old servers.
LOST = frozenset({136, 260, 280, 286, 40576, 40585, 40615})
#: Error code for a change that, with its document, exceeds the size of a reply. Reading cannot continue past it.
TOO_LARGE = 10334

#: Seconds before the client is closed after a failure. The client probes a missing server each half second, also at its
#: timeout. If it were closed during a probe, the connection would remain until garbage collection.
LAST_PROBE = 0.2
#: Changes, of up to 16 MiB each, that are read ahead, in addition to those in the client's buffer.
AHEAD = 10
#: Minimum seconds between two requests without changes, for servers that answer these at once.
MIN_WAIT = 1.0


class ResumeToken(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Cursor of a trigger. Valid for one collection only, since the options may be changed to another collection."""

    place: str  #: instance and collection
    token: str = ""  #: JSON of the last read change's token; empty: no change was read
    moment: Moment = (0, 0)  #: start of the stream if there is no token; zeros: now
    since: float = 0.0  #: earlier changes are skipped, up to the first one that is not earlier
    invalid: bool = False  #: the token is that of a collection's end
    problem: str = ""  #: reason for which reading has stopped
    generation: int = 0  #: generation of the trigger when reading stopped

    def stopped(self, generation: int) -> bool:
        """Return whether reading has stopped and the trigger, now of this generation, has not been changed since."""
        return bool(self.problem) and self.generation == generation

    @property
    def known(self) -> bool:
        return bool(self.token) or self.moment != (0, 0)


def read(cursors: Mapping[str, bytes], place: str) -> ResumeToken:
    """Return the stored cursor if it is valid for the collection ``place``, otherwise an empty one."""
    token = msgspec.json.decode(cursors[NAME], type=ResumeToken) if NAME in cursors else None
    return token if token is not None and token.place == place else ResumeToken(place=place)


class Now(Struct, frozen=True, kw_only=True):
    """State of a database server at one moment: its time, and the position of its newest change."""

    last: Moment  #: moment of its newest change
    time: float  #: time by its clock
    alone: bool  #: replica set, not a sharded cluster: changes have times by the same clock


def next_of(place: str, now: Now) -> ResumeToken:
    """Return the cursor for the collection ``place`` after the server's newest change."""
    return ResumeToken(place=place, moment=(now.last[0], now.last[1] + 1))


def first_of(place: str, now: Now, waited: float) -> ResumeToken:
    """Return the first position in a collection: the time when its trigger was enabled, ``waited`` seconds ago.

    The trigger receives all changes since that time, even if the server could not be reached at first. Positions are
    whole seconds. Earlier changes of the first second are recognised and skipped by their own time, if the server
    reports it.
    """
    enabled = now.time - waited
    if enabled >= now.last[0] + 1:
        return next_of(place, now)
    return ResumeToken(place=place, moment=(int(enabled), 1), since=enabled if now.alone else 0.0)


class Database:
    """Connected client for the collection of one trigger."""

    def __init__(self, client: AsyncMongoClient[dict[str, Any]], options: DdsOptions, settings: DdsSettings) -> None:
        self._client, self._options, self._settings = client, options, settings

    async def now(self) -> Now:
        """Return the server's time and the position of its newest change.

        Raises ConnectionError if the server cannot be reached or has no change streams.
        """
        with reachable():
            await self._client.admin.command("ping")  # connects first, so that the next answer is fresh
            hello = await self._client.admin.command("hello")
        moment = hello.get("operationTime")
        if moment is None or not ("setName" in hello or hello.get("msg") == "isdbgrid"):
            raise ConnectionError("this server has no change streams: they need a replica set or a sharded cluster")
        time = hello["localTime"].replace(tzinfo=UTC).timestamp()
        return Now(last=(moment.time, moment.inc), time=time, alone="setName" in hello)

    @asynccontextmanager
    async def stream(self, position: ResumeToken) -> AsyncIterator[AsyncChangeStream[RawBSONDocument]]:
        """Open the stream of changes after a position.

        Raises ConnectionError if the server cannot be reached; OperationFailure if the server rejects the position or
        another part of the request, also later while the stream is read.
        """
        collection = self._client[self._options.db_name][self._options.collection_name].with_options(RAW)
        wanted = sorted({*self._settings.operations, *ENDINGS})
        with reachable():
            stream = await collection.watch(
                [{"$match": {"operationType": {"$in": wanted}}}],
                full_document="updateLookup" if self._settings.update_lookup else None,
                max_await_time_ms=int(self._settings.check_every * 1000),
                batch_size=self._options.batch_size,
                **_start(position),
            )
        async with stream:
            yield cast(AsyncChangeStream[RawBSONDocument], stream)


@asynccontextmanager
async def open_database(instance: Instance, options: DdsOptions, settings: DdsSettings) -> AsyncIterator[Database]:
    timeout, silence = int(settings.timeout * 1000), int(settings.check_every * 1000)
    client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(
        appname="functiond",
        serverSelectionTimeoutMS=timeout,
        connectTimeoutMS=timeout,
        socketTimeoutMS=timeout + silence,
        # Poll each server rarely; the default streaming mode would keep an idle engine awake.
        serverMonitoringMode="poll",
        heartbeatFrequencyMS=max(silence, 500),
        **instance.connection,
    )
    try:
        yield Database(client, options, settings)
    except ConnectionError:
        await anyio.sleep(LAST_PROBE)
        raise
    finally:
        with anyio.move_on_after(1, shield=True) as run_now:
            await client.close()
        if run_now.cancelled_caught:  # it waited for a server while ending sessions, which a second call skips
            with anyio.move_on_after(1, shield=True):
                await client.close()


@contextmanager
def reachable() -> Iterator[None]:
    """Convert the client's connection errors to ConnectionError, without the long description of all servers."""
    try:
        yield
    except ConnectionFailure as error:
        raise ConnectionError(str(error).partition(" (configured timeouts")[0].partition(", Timeout:")[0]) from None


def _start(position: ResumeToken) -> dict[str, Any]:
    if position.token:
        return {"start_after" if position.invalid else "resume_after": json_util.loads(position.token)}
    return {"start_at_operation_time": Timestamp(*position.moment)}


class Seen(Struct, frozen=True, kw_only=True):
    """Item read from a change stream: a change, or only the position up to which there are no changes."""

    raw: bytes  #: BSON of the change; empty: no change
    token: Mapping[str, Any] | None  #: position after the change, unless the server has not sent one yet


class Feed:
    """Queue of the items that were read from a change stream and are not yet in a batch."""

    def __init__(self, stream: AsyncChangeStream[RawBSONDocument], *, most: int, size: int, wait: float) -> None:
        self._stream, self._most, self._size, self._wait = stream, most, size, wait
        self._queue: asyncio.Queue[Seen | None] = asyncio.Queue(AHEAD)
        self._ended = False
        #: error that ended the stream, unless the collection ended
        self.failure: PyMongoError | None = None

    async def run(self) -> None:
        """Read the change stream into the queue until the stream ends.

        An error of the client library is stored in ``failure``, not raised.
        """
        try:
            while self._stream.alive:
                await self._step()
        except PyMongoError as error:
            self.failure = error
        await self._queue.put(None)

    async def batch(self) -> list[Seen]:
        """Wait for the next item, and return it with those that follow shortly after it.

        Return an empty list at the stream's end.
        """
        batch: list[Seen] = []
        size = await self._take(batch)
        with anyio.move_on_after(self._wait):
            while not self._ended and len(batch) < self._most and size < self._size:
                size += await self._take(batch)
        return batch

    async def _take(self, batch: list[Seen]) -> int:
        """Move the next item from the queue to ``batch``, unless the stream has ended.

        Return the item's size in bytes, or 0 if the stream has ended.
        """
        seen = None if self._ended else await self._queue.get()
        if seen is None:
            self._ended = True
            return 0
        batch.append(seen)
        return len(seen.raw)

    async def _step(self) -> None:
        soonest = anyio.current_time() + MIN_WAIT
        change = await self._stream.try_next()
        token = self._stream.resume_token
        await self._queue.put(Seen(raw=bytes(change.raw) if change is not None else b"", token=token))
        if change is None and self._stream.alive:
            await anyio.sleep_until(soonest)
