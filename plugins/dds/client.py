"""The client of a document database, and the streams that it opens."""

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

#: What a stream ends with, and has to be heard of whatever is told.
ENDINGS = ("drop", "rename", "dropDatabase", "invalidate")

#: The server can't read on from a place: it is no longer in its log, or was never. The later ones are of old servers.
LOST = frozenset({136, 260, 280, 286, 40576, 40585, 40615})
#: A change and its document are larger together than a reply may be: nobody reads past it.
TOO_LARGE = 10334


#: Seconds. The client looks for a missing server each half second, also at the moment it gives up; cut off in that look
#: it would leave a connection for the garbage collector to close.
LAST_LOOK = 0.2


class Database:
    def __init__(self, client: AsyncMongoClient[dict[str, Any]], options: DdsOptions, settings: DdsSettings) -> None:
        self._client, self._options, self._settings = client, options, settings

    async def now(self) -> Now:
        """Raises ConnectionError if it has no change streams."""
        with reachable():
            await self._client.admin.command("ping")  # connects, so that the next answer is not old when it is read
            told = await self._client.admin.command("hello")
        moment = told.get("operationTime")
        if moment is None or not ("setName" in told or told.get("msg") == "isdbgrid"):
            raise ConnectionError("this server has no change streams: they need a replica set or a sharded cluster")
        time = told["localTime"].replace(tzinfo=UTC).timestamp()
        return Now(last=(moment.time, moment.inc), time=time, alone="setName" in told)

    @asynccontextmanager
    async def stream(self, position: ResumeToken) -> AsyncIterator[AsyncChangeStream[RawBSONDocument]]:
        """What has changed since. Raises OperationFailure, also while it is read."""
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
        # One look at each server now and then; more would keep an idle engine awake.
        serverMonitoringMode="poll",
        heartbeatFrequencyMS=max(silence, 500),
        **instance.connection,
    )
    try:
        yield Database(client, options, settings)
    except ConnectionError:
        await anyio.sleep(LAST_LOOK)
        raise
    finally:
        with anyio.move_on_after(1, shield=True) as run_now:
            await client.close()
        if run_now.cancelled_caught:  # it has waited for a server to be told goodbye, which it does once only
            with anyio.move_on_after(1, shield=True):
                await client.close()


@contextmanager
def reachable() -> Iterator[None]:
    """The client tells all that it knows of the servers; the reason is enough."""
    try:
        yield
    except ConnectionFailure as error:
        raise ConnectionError(str(error).partition(" (configured timeouts")[0].partition(", Timeout:")[0]) from None


def _start(position: ResumeToken) -> dict[str, Any]:
    if position.token:
        return {"start_after" if position.invalid else "resume_after": json_util.loads(position.token)}
    return {"start_at_operation_time": Timestamp(*position.moment)}
