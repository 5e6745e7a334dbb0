"""Logs of an invocation, and live logs of a function (extension of the API). Each line has its time and stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from itertools import islice

import anyio
import msgspec
from msgspec import UNSET, Struct, UnsetType

from engine.asgi.streaming import EVENTS, HEARTBEAT, Stream, Write, event
from engine.asgi.wire import Reply
from engine.errors import BadQuery
from engine.executors.pool import Pool
from engine.functions.catalog import Catalog
from engine.functions.invocation_filter import record_of
from engine.http.api.routing import FUNCTION, JSON_LINES, ApiFamily, Call, read
from engine.http.api.times import exact_time
from engine.http.live_logs import AttemptEnd, Batch, FollowAttempts, LogQueue, attempt_end
from engine.logs.feed import LogBoard
from engine.logs.lines import TAIL, Line, decode
from engine.logs.lines import last as last_lines
from engine.model import Function, Invocation, Outcome, Record, State
from engine.model.identity import Identity
from engine.pipeline.dispatcher import Dispatcher
from engine.protocols import Records

STEP = 2_000  #: lines that are encoded at a time
LONG = 3600.0  #: seconds between checks whether an invocation has ended unnoticed


class LogItem(Struct, frozen=True, kw_only=True):
    """Line of a log, as replies describe it.

    ``stream`` is ``stdout``, ``stderr`` or ``logger``. A note of the engine about missing lines has ``engine``,
    and the error of a failed run ``error``.
    """

    time: str | None
    stream: str
    text: str
    request_id: str | UnsetType = UNSET  #: live logs only; empty for lines that belong to no request


class LogsApi(ApiFamily):
    def __init__(
        self,
        catalog: Catalog,
        records: Records,
        identity: Identity,
        runs: Dispatcher,
        feed: LogBoard,
        archive: Pool,
        follow_attempts: FollowAttempts,
    ) -> None:
        self._catalog, self._records, self._identity = catalog, records, identity
        self._runs, self._feed, self._archive, self._follow_attempts = runs, feed, archive, follow_attempts
        self._endless: set[LogQueue] = set()  #: of the streams of functions
        self._stopping = False

    def stop(self) -> None:
        """End the live logs of functions, because the engine stops. Those of invocations end with their invocations."""
        self._stopping = True
        for queue in self._endless:
            queue.end()

    @read(
        "ShowAsyncInvocationLogs",
        f"{FUNCTION}/async-invocations/{{request_id}}/logs",
        LogItem,
        query=("attempt",),
        content=JSON_LINES.decode(),
        own=True,
    )
    async def show(self, call: Call) -> Reply:
        """Return the log of an invocation's newest attempt as JSON lines, or that of the attempt ``attempt``.

        A request with ``Accept: text/event-stream`` gets server-sent events instead, until the invocation has ended.
        They go on with the lines of later attempts.
        """
        function = self._catalog.find(call.urn)
        record = await record_of(self._records, self._identity, function, call.part("request_id"))
        attempt = attempt_of(call, record)
        if _wants_events(call):
            if attempt is not None:
                raise BadQuery("attempt", str(attempt), "must be left out of a request for a live log")
            return Stream(content_type=EVENTS, run=lambda write: self._follow(write, function, record))
        return await _json_lines(decode(await log_of(self._archive, record, attempt)))

    @read("ShowFunctionLogs", f"{FUNCTION}/logs", LogItem, query=("attempts",), content=JSON_LINES.decode(), own=True)
    async def show_function(self, call: Call) -> Reply:
        """Return recent lines of the function that belong to no stored invocation, see ``Pool.instance_log``.

        A request with ``Accept: text/event-stream`` gets, as server-sent events, all lines that the function writes
        from then on. With ``attempts=true``, an event ``attempt`` tells the end of each attempt.
        """
        function = self._catalog.find(call.urn)
        if not _wants_events(call):
            lines = decode(await self._archive.instance_log(function.function_id))
            return await _json_lines(sorted(lines, key=lambda line: line.at))
        queue = LogQueue()
        attempts = self._attempts(call, function, queue)
        return Stream(content_type=EVENTS, run=lambda write: self._follow_function(write, function, queue, attempts))

    def _attempts(self, call: Call, function: Function, queue: LogQueue) -> AbstractContextManager[None]:
        """Return a block in which the ends of a function's attempts join the queue, if the query asks for them."""
        if call.text("attempts") != "true":
            return nullcontext()
        with_result = call.principal is None or call.principal.sees_payloads

        def put(function_of: Function, invocation: Invocation, outcome: Outcome) -> None:
            if function_of.function_id == function.function_id:
                queue.put(attempt_end(invocation, outcome, with_result=with_result))

        return self._follow_attempts(put)

    async def _follow_function(
        self, write: Write, function: Function, queue: LogQueue, attempts: AbstractContextManager[None]
    ) -> None:
        if self._stopping:
            queue.end()
        self._endless.add(queue)
        try:
            with self._feed.subscribed(queue.put, function_id=function.function_id), attempts:
                await write(HEARTBEAT)  # lets the client see that the stream has begun
                await _pass_on(queue, write)
        finally:
            self._endless.remove(queue)

    async def _follow(self, write: Write, function: Function, record: Record) -> None:
        queue = LogQueue(record.request_id)
        with self._feed.subscribed(queue.put, function_id=function.function_id):
            async with anyio.create_task_group() as tasks:
                lines = decode(await log_of(self._archive, record))
                if not await _write_events(write, record.request_id, lines):
                    await write(HEARTBEAT)
                tasks.start_soon(self._await_end, record.key, queue)
                await _pass_on(queue, write)
                tasks.cancel_scope.cancel()
            ended = await self._records.get(record.key) or record
            await write(event("end", {"request_id": ended.request_id, "status": ended.state}))

    async def _await_end(self, key: int, queue: LogQueue) -> None:
        while True:
            record = await self._records.get(key)
            if record is None or record.state.final:
                queue.end()
                return
            await self._runs.ended(key, LONG)


async def log_of(archive: Pool, record: Record, attempt: int | None = None) -> bytes:
    """Return the log of an attempt of an invocation; without a number, that of the newest attempt that has begun."""
    running = archive.running_log(record.key, attempt)
    if running is not None:
        return running
    stored = {past.attempt: past.log for past in record.attempts}
    last = max(stored, default=record.attempt or 1)
    number = last if attempt is None else attempt
    tail = record.log if number == last else stored.get(number, b"")
    whole = await archive.log(record.function_id, record.request_id, number)
    if whole is None and number == last > 1 and len(tail) > TAIL // 2:
        # Before attempts had logs of their own, the newest had the file without a number.
        first = await archive.log(record.function_id, record.request_id, 1) or b""
        whole = first if last_lines(first, TAIL) == tail else None
    return tail if whole is None else whole


def attempt_of(call: Call, record: Record) -> int | None:
    """Return the number of the attempt that the query asks for. Raise BadQuery if it has no log."""
    text = call.text("attempt")
    if not text:
        return None
    known = {attempt.attempt for attempt in record.attempts} or {1}
    if record.state is State.RUNNING:
        known.add(record.attempt)
    if text not in map(str, known):
        numbers = str(max(known)) if len(known) == 1 else f"from {min(known)} to {max(known)}"
        raise BadQuery("attempt", text, f"must be the number of an attempt that has begun: {numbers}")
    return int(text)


async def _json_lines(lines: Iterable[Line]) -> Reply:
    steps = [step async for step in _encoded(lines, lambda line: msgspec.json.encode(_item(line)) + b"\n")]
    return Reply(body=b"".join(steps), content_type=JSON_LINES)


async def _encoded(lines: Iterable[Line], encode: Callable[[Line], bytes]) -> AsyncIterator[bytes]:
    """Yield the encoded lines, many at a time. Between two steps, the event loop serves others."""
    rest = iter(lines)
    while step := [encode(line) for line in islice(rest, STEP)]:
        yield b"".join(step)
        await asyncio.sleep(0)


async def _pass_on(queue: LogQueue, write: Write) -> None:
    """Write lines and ends of attempts from the queue as server-sent events until the queue has ended."""

    async def send(batch: Batch) -> None:
        if isinstance(batch, AttemptEnd):
            await write(event("attempt", batch))
        await _write_events(write, batch.request_id, batch.lines)

    await queue.pass_on(write, send)


async def _write_events(write: Write, request_id: str, lines: Iterable[Line]) -> bool:
    """Write lines as server-sent events. Return whether there were any."""
    written = False
    async for step in _encoded(lines, lambda line: event("line", _item(line, request_id))):
        await write(step)
        written = True
    return written


def _item(line: Line, request_id: str | UnsetType = UNSET) -> LogItem:
    time = exact_time(line.at) if line.at else None
    return LogItem(time=time, stream=line.stream, text=line.text, request_id=request_id)


def _wants_events(call: Call) -> bool:
    return EVENTS in call.headers.get(b"accept", b"").lower()
