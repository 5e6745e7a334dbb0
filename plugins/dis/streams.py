"""Streams that the engine serves itself, their stored records, and partition cursors.

Every change is on disk before its request is answered. Each partition of a stream has one log of rows.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence

import anyio
import msgspec
from msgspec import Struct
from msgspec.structs import replace

from engine import PluginContext
from plugins._shared.rows import RowLogs, decoded_rows
from plugins.dis.access import Entry, Layout, Page, Part, Put, Record, Span, Start
from plugins.dis.problems import (
    BAD_REQUEST,
    EXPIRED_CURSOR,
    OUT_OF_RANGE,
    STREAM_EXISTS,
    DisProblem,
    no_stream,
)
from plugins.dis.shape import OpenPartitions, Partition, Stream, evenly, partition_id, scaled

TABLE, RECORDS = "streams", "records"
PUT_LIMIT = 5 << 20  #: bytes of all records of a request
MOST_PARTITIONS = 50  #: open ones of a stream
SWEEP = 3600.0  #: seconds between deletions of expired records
REMEMBERED = 100  #: deleted streams whose numbers of records are known
CURSOR_LIFE = 300.0  #: seconds for which a cursor is valid (DIS API: GetCursor)


class Row(Struct, frozen=True, array_like=True):
    """Row of a stored record."""

    at: int
    key: str | None
    data: bytes
    hops: int = 0

    @property
    def size(self) -> int:
        return len(self.data)


class _Cursor(Struct, frozen=True, array_like=True):
    """Cursor of a partition, from which clients of the streams API read. Its text encodes all its data."""

    stream_id: str
    number: int  #: number of the partition
    position: int  #: sequence number of the next record
    made_at: float

    def __str__(self) -> str:
        return base64.urlsafe_b64encode(msgspec.msgpack.encode(self)).decode().rstrip("=")


def log_of(stream_id: str, number: int) -> str:
    """Return the name of a partition's log. It begins with the stream's id and a ``/``."""
    return f"{stream_id}/{number:010}"


class Streams:
    """Streams of all projects, for readers and for the API. ``load`` must be called before other methods."""

    fresh_for = 0.0  #: seconds for which a reader may use a layout that it has read

    def __init__(self, context: PluginContext) -> None:
        self._store, self._clock = context.store, context.clock
        self._logs = RowLogs(context.store, RECORDS, Row, context.clock.now)
        self._streams: dict[tuple[str, str], Stream] = {}  #: keyed by project and name
        self._by_id: dict[str, Stream] = {}
        self._changing = anyio.Lock()
        self._deleted: asyncio.Queue[str] = asyncio.Queue()  #: ids of deleted streams that may still have rows
        self._ended: dict[str, Mapping[str, Span]] = {}  #: of the last deleted streams, by id
        self._created = asyncio.Event()  #: set when the next stream is created

    async def load(self) -> None:
        async for _, stream in decoded_rows(self._store, TABLE, Stream):
            await self._open(stream)
        stored = dict.fromkeys(name.partition("/")[0] for name in await self._logs.names())
        for stream_id in stored.keys() - self._by_id.keys():
            self._deleted.put_nowait(stream_id)
        await self._expire()

    async def run(self) -> None:
        """Delete expired records, and the records of deleted streams. Runs until cancelled."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._sweep)
            while True:
                stream_id = await self._deleted.get()
                await self._logs.purge(stream_id)

    # --- streams --------------------------------------------------------------------------------------------

    def names(self, project: str) -> list[str]:
        return sorted(name for owner, name in self._streams if owner == project)

    def find(self, project: str, name: str) -> Stream:
        stream = self._streams.get((project, name))
        if stream is None:
            raise no_stream(name, project)
        return stream

    def by_id(self, project: str, stream_id: str) -> Stream:
        stream = self._by_id.get(stream_id)
        if stream is None or stream.project != project:
            raise no_stream(stream_id, project)
        return stream

    async def create(
        self, project: str, name: str, *, partitions: int, retention: int, stream_type: str, data_type: str
    ) -> None:
        async with self._changing:
            if (project, name) in self._streams:
                raise DisProblem(STREAM_EXISTS, f"Stream already exists. [{name}][{project}]")
            now = self._clock.now()
            stream = Stream(
                stream_id=uuid.uuid4().hex[:20],
                project=project,
                name=name,
                created_at=now,
                modified_at=now,
                retention=retention,
                stream_type=stream_type,
                data_type=data_type,
                partitions=evenly(partitions),
            )
            await self._save(stream)
            await self._open(stream)
        created, self._created = self._created, asyncio.Event()
        created.set()

    async def change(self, project: str, name: str, *, retention: int | None, data_type: str | None) -> None:
        async with self._changing:
            stream = self.find(project, name)
            stream = replace(
                stream,
                retention=retention or stream.retention,
                data_type=data_type or stream.data_type,
                modified_at=self._clock.now(),
            )
            await self._save(stream)
            self._remember(stream)

    async def scale(self, project: str, name: str, count: int) -> int:
        """Change the number of a stream's open partitions, and return the earlier number."""
        async with self._changing:
            old = self.find(project, name)
            new = scaled(old, count, self._clock.now())
            await self._save(new)
            for partition in new.partitions[len(old.partitions) :]:
                await self._logs.load(log_of(new.stream_id, partition.number))
            self._remember(new)
        for partition in old.partitions:
            self._logs.notify(log_of(old.stream_id, partition.number))
        return len(old.open)

    async def delete(self, project: str, name: str) -> None:
        async with self._changing:
            stream = self.find(project, name)
            await self._store.write(TABLE, delete=[_key(stream)])
            del self._streams[project, name], self._by_id[stream.stream_id]
        spans = {
            partition.id: self._logs.forget(log_of(stream.stream_id, partition.number))
            for partition in stream.partitions
        }
        self._ended[stream.stream_id] = spans
        if len(self._ended) > REMEMBERED:
            del self._ended[next(iter(self._ended))]
        self._deleted.put_nowait(stream.stream_id)

    def span(self, stream: Stream, partition: Partition) -> tuple[int, int]:
        """Return the sequence numbers of a partition's first readable record and of the next one to be stored."""
        return self._logs.span(log_of(stream.stream_id, partition.number))

    def expired(self, stream: Stream, partition: Partition) -> bool:
        closed = partition.closed_at
        return bool(closed) and closed + stream.retention * 3600 < self._clock.expiry.now()

    # --- for readers, as ``RemoteStreams`` has it -----------------------------------------------------------

    async def layout(self, project: str, stream: str) -> Layout:
        stored = self.find(project, stream)
        parts = (
            Part(id=partition.id, open=partition.open, parents=tuple(map(partition_id, partition.parents)))
            for partition in stored.partitions
        )
        return Layout(stream_id=stored.stream_id, parts=tuple(parts))

    async def cursor(self, project: str, stream: str, partition_id: str, start: Start) -> str:
        """Return a cursor for reading a partition from ``start`` on. A cursor is valid for five minutes."""
        stored = self.find(project, stream)
        partition = stored.present(partition_id)
        position = await self._position(log_of(stored.stream_id, partition.number), start)
        return self._cursor(stored.stream_id, partition.number, position)

    async def read(self, project: str, cursor: str, max_bytes: int) -> Page:
        """Return records from a cursor on, at most ``max_bytes`` in total, but at least one record if one exists.

        Raises DisProblem if the cursor is invalid or expired, or if its stream does not exist in the project.
        """
        decoded = _read_cursor(cursor, self._clock.now())
        stream = self.by_id(project, decoded.stream_id)
        log = log_of(stream.stream_id, stream.present(str(decoded.number)).number)
        rows, position = await self._logs.read(log, max(decoded.position, self._logs.span(log)[0]), max_bytes)
        cursor = self._cursor(stream.stream_id, decoded.number, position)
        return Page(records=[_record(*row) for row in rows], next_partition_cursor=cursor)

    def ended(self, stream_id: str) -> Mapping[str, Span] | None:
        """Return the records that the partitions of a deleted stream had; None if they are unknown."""
        return self._ended.get(stream_id)

    async def put(self, project: str, stream: str, entries: Sequence[Entry], hops: int = 0) -> Sequence[Put]:
        """Store records, and return one result for each, in the same order.

        A record that is refused has an error as its result; the others are stored. Raises DisProblem if the stream does
        not exist, or if all records together are too large.
        """
        if sum(len(entry.data) for entry in entries) > PUT_LIMIT:
            raise DisProblem(BAD_REQUEST, f"records may have {PUT_LIMIT} bytes together: send fewer at a time")
        stored = self.find(project, stream)
        placement = OpenPartitions(stored)
        targets = [placement.find(entry) for entry in entries]
        valid = [
            (log_of(stored.stream_id, target.number), Row(0, entry.partition_key, entry.data, hops))
            for target, entry in zip(targets, entries, strict=True)
            if isinstance(target, Partition)
        ]
        sequences = iter(await self._logs.append(valid) if valid else ())
        return [
            Put(partition_id=target.id, sequence_number=str(next(sequences)))
            if isinstance(target, Partition)
            else target
            for target in targets
        ]

    def news(self, project: str, stream: str, partition_id: str, interval: float) -> Callable[[], Awaitable[object]]:
        """Return a function that waits until the partition changes after this call.

        Changes are new records, a split or merge, and the creation of the stream.
        """
        stored = self._streams.get((project, stream))
        partition = stored.partition(partition_id) if stored else None
        if stored is None or partition is None:
            return self._created.wait
        return self._logs.news(log_of(stored.stream_id, partition.number)).wait

    # --- inside ---------------------------------------------------------------------------------------------

    async def _position(self, log: str, start: Start) -> int:
        earliest, next_ = self._logs.span(log)
        if start.type == "TRIM_HORIZON":
            return earliest
        if start.type == "LATEST":
            return next_
        if start.type == "AT_TIMESTAMP":
            return await self._logs.seek(log, start.timestamp)
        text = start.sequence_number
        position = int(text) if text.isascii() and text.isdigit() and len(text) < 19 else -1
        position += position >= 0 and start.type == "AFTER_SEQUENCE_NUMBER"
        if not earliest <= position <= next_:
            raise DisProblem(OUT_OF_RANGE, f"Sequence_number out of range. [{text}] of [{earliest} : {next_}]")
        return position

    def _cursor(self, stream_id: str, number: int, position: int) -> str:
        return str(_Cursor(stream_id, number, position, self._clock.now()))

    async def _save(self, stream: Stream) -> None:
        await self._store.write(TABLE, {_key(stream): msgspec.json.encode(stream)})

    def _remember(self, stream: Stream) -> None:
        self._streams[stream.project, stream.name] = self._by_id[stream.stream_id] = stream

    async def _open(self, stream: Stream) -> None:
        for partition in stream.partitions:
            await self._logs.load(log_of(stream.stream_id, partition.number))
        self._remember(stream)

    async def _sweep(self) -> None:
        while True:
            await anyio.sleep(SWEEP)
            await self._expire()

    async def _expire(self) -> None:
        for stream in list(self._by_id.values()):
            moment = int((self._clock.expiry.now() - stream.retention * 3600) * 1000)
            for partition in stream.partitions:
                if stream.stream_id in self._by_id:  # may have been deleted meanwhile
                    log = log_of(stream.stream_id, partition.number)
                    position = await self._logs.seek(log, moment)
                    if stream.stream_id in self._by_id:
                        await self._logs.cut(log, position)


def _key(stream: Stream) -> str:
    return f"{stream.project}/{stream.name}"


def _record(sequence: int, row: Row) -> Record:
    return Record(sequence_number=str(sequence), data=row.data, partition_key=row.key, timestamp=row.at, hops=row.hops)


def _read_cursor(text: str, now: float) -> _Cursor:
    """Return the decoded cursor. Raises DisProblem if it is invalid, or older than ``CURSOR_LIFE`` seconds."""
    try:
        padded = text.encode("ascii") + b"=" * (-len(text) % 4)
        cursor = msgspec.msgpack.decode(base64.urlsafe_b64decode(padded), type=_Cursor)
    except (UnicodeError, binascii.Error, msgspec.DecodeError):
        raise DisProblem(BAD_REQUEST, "partition-cursor is invalid: request one at cursors") from None
    if now - cursor.made_at > CURSOR_LIFE:
        life = f"it is valid for {CURSOR_LIFE:.0f} s, request a new one"
        raise DisProblem(EXPIRED_CURSOR, f"Expired partition cursor: {life}")
    return cursor
