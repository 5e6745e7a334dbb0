"""Client of a document database, which opens change streams of a collection."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC
from typing import Any, cast

import anyio
from bson import Timestamp, json_util
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from pymongo import AsyncMongoClient
from pymongo.asynchronous.change_stream import AsyncChangeStream
from pymongo.errors import ConnectionFailure

from plugins.dds.options import DdsOptions
from plugins.dds.resume_token import Now, ResumeToken
from plugins.dds.settings import DdsSettings, Instance

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
