"""Tab of a function's log: the last lines of its newest invocations, and a stream of the lines that follow.

A stream begins with the last lines again, so that none is missing between page and stream. A stream that names the
position where an earlier one stopped continues there.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from urllib.parse import urlencode

import anyio
import anyio.to_thread
from msgspec import Struct

from engine.asgi.streaming import EVENTS, HEARTBEAT, Stream, Write, event
from engine.asgi.wire import Reply
from engine.errors import InvalidRequest, Unavailable, UnknownInvocation
from engine.executors.pool import Pool
from engine.functions.invocation_filter import record_of
from engine.http.api.logs import log_of
from engine.http.api.routing import Call
from engine.http.api.times import exact_time
from engine.http.console.functions.frame import FunctionFrame
from engine.http.console.pages import HEADERS, PageFamily, browser_of, get
from engine.http.console.paths import FUNCTION, path_of
from engine.http.live_logs import QUIET, Lines, LogTail, LogTails
from engine.logs.feed import LogBoard
from engine.logs.lines import Line, decode, last
from engine.model import Function, Record
from engine.model.identity import Identity
from engine.protocols import Records

LINES = 500  #: lines that a page, or the begin of a stream, shows
NEWEST = 20  #: invocations whose lines they are: so many running ones, and so many that have ended
TAIL = 8 << 10  #: bytes read of the log of each of them
WHOLE = 64 << 10  #: bytes read of the log of an invocation that was asked for
PAUSE = 0.1  #: seconds between two messages of a stream
STREAMED = 32  #: streams at the same time
EACH = 2  #: of one browser; its others end after ``BRIEF`` seconds, and the browser connects again
BRIEF = 1.0
_AGAIN = b"retry: 1000\n\n"  #: milliseconds until the browser connects again
#: Time and request id that a function's logger writes before the level; the line has both anyway.
_STAMP = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]{8,12}Z [0-9a-f-]{36} ")
_ERROR = re.compile(r"(ERROR|CRITICAL|FATAL)\b|Traceback \(most recent call last\)")


class FunctionLogs(PageFamily):
    """Tab of a function's log. A stream ends when ``is_valid`` no longer accepts the request that opened it."""

    def __init__(
        self,
        frame: FunctionFrame,
        records: Records,
        identity: Identity,
        archive: Pool,
        feed: LogBoard,
        is_valid: Callable[[Call], bool],
    ) -> None:
        self._frame, self._records, self._identity = frame, records, identity
        self._archive, self._tails, self._is_valid = archive, LogTails(feed), is_valid
        self._streams = Counter[str]()  #: by browser
        self._stopping = False

    def stop(self) -> None:
        """End all streams, because the engine stops. Later ones end at once, and browsers connect again."""
        self._stopping = True
        self._tails.wake()

    @get("ConsoleFunctionLogs", f"{FUNCTION}/logs")
    async def show(self, call: Call) -> Reply:
        function, request_id, text = self._frame.function_of(call), call.text("request_id").strip(), call.text("text")
        only_errors, error = bool(call.text("errors")), ""
        try:
            lines = await self._last(function, request_id)
        except UnknownInvocation:
            lines, error = [], "no invocation of this function has this request id"
        return await self._frame.show(
            call,
            "functions/logs.html",
            tab="logs",
            live=False,
            lines=[line for line in lines if _matches(line, text, only_errors)],
            limits={"lines": LINES, "newest": NEWEST},
            request_id=request_id,
            text=text,
            only_errors=only_errors,
            error=error,
            stream=path_of(function, f"/logs/stream?{urlencode({'request_id': request_id})}"),
        )

    @get("ConsoleFunctionLogStream", f"{FUNCTION}/logs/stream")
    async def stream(self, call: Call) -> Reply:
        """Return a stream of lines. Raises InvalidRequest unless the request accepts it, Unavailable at the limit."""
        function, request_id = self._frame.function_of(call), call.text("request_id").strip()
        if EVENTS not in call.headers.get(b"accept", b""):
            raise InvalidRequest("this path has the live log for its page; send Accept: text/event-stream")
        if self._streams.total() >= STREAMED:
            raise Unavailable(f"{STREAMED} pages show live logs already; close some")
        if request_id:
            await record_of(self._records, self._identity, function, request_id)
        return Stream(
            content_type=EVENTS, headers=HEADERS, run=lambda write: self._follow(call, write, function, request_id)
        )

    # --- inside ---------------------------------------------------------------------------------------------

    async def _follow(self, call: Call, write: Write, function: Function, request_id: str) -> None:
        browser = browser_of(call)
        self._streams[browser] += 1
        lasts = BRIEF if browser and self._streams[browser] > EACH else math.inf
        try:
            with self._tails.reading(function.function_id) as tail:
                await write(_AGAIN)
                if self._stopping:
                    return
                # The id of the last event that the browser has is in its own header, or in the page's query.
                position = tail.read(call.headers.get(b"last-event-id", b"").decode("latin-1") or call.text("after"))
                if position is None:
                    position, lines = await self._begin(tail, function, request_id)
                    await write(_message("begin", lines, tail.mark(position)))
                with anyio.move_on_after(lasts):
                    await self._pass_on(call, write, tail, position, request_id)
        finally:
            self._streams -= Counter([browser])

    async def _begin(self, tail: LogTail, function: Function, request_id: str) -> tuple[int, list[LogLine]]:
        """Return the last lines, and the position in the tail from which on later ones follow."""
        before = tail.end
        lines = await self._last(function, request_id)
        known = Counter(lines)
        new, position = tail.take(max(before, tail.start), tail.end - before)
        lines += (line for line in _chosen(new, request_id) if not _forget(known, line))
        return position, lines[-LINES:]

    async def _pass_on(self, call: Call, write: Write, tail: LogTail, position: int, request_id: str) -> None:
        """Write the lines from a position on, until the engine stops or the reader may no longer see them."""
        while not self._stopping and self._is_valid(call):
            if position == tail.end:
                with anyio.move_on_after(QUIET) as quiet:
                    await tail.wait()
                if quiet.cancelled_caught:
                    await write(HEARTBEAT)
                continue
            if (dropped := tail.start - position) > 0:
                position = tail.start
                await write(_message("dropped", {"lines": dropped}, tail.mark(position)))
            new, position = tail.take(position, LINES)
            if lines := list(_chosen(new, request_id)):
                await write(_message("lines", lines, tail.mark(position)))
            await asyncio.sleep(PAUSE if position == tail.end else 0)  # lines that come meanwhile are sent together

    async def _last(self, function: Function, request_id: str) -> list[LogLine]:
        """Return the last lines of an invocation, or of the newest invocations and of instances outside requests."""
        if request_id:
            records: Sequence[Record] = [await record_of(self._records, self._identity, function, request_id)]
        else:
            records = await self._records.newest_logs(function.function_id, NEWEST)
        size = WHOLE if request_id else TAIL

        async def read(record: Record) -> tuple[str, bytes]:
            return record.request_id, last(await log_of(self._archive, record), size)

        # Each turn of a busy event loop takes long, so all files are read at the same time.
        logs = await asyncio.gather(*map(read, records))
        if not request_id:
            logs.insert(0, ("", last(await self._archive.instance_log(function.function_id), TAIL)))
        return await anyio.to_thread.run_sync(_last_lines, logs)


def _last_lines(logs: Iterable[tuple[str, bytes]]) -> list[LogLine]:
    """Return the last lines of logs, each with a request id."""
    lines = [line for request_id, log in logs for line in shown_lines(decode(log), request_id)]
    return sorted(lines, key=lambda line: line.time)[-LINES:]


def _forget(known: Counter[LogLine], line: LogLine) -> bool:
    """Return whether a line is known, and forget it once."""
    if not known[line]:
        return False
    known[line] -= 1
    return True


def _chosen(batches: Iterable[Lines], request_id: str) -> Iterator[LogLine]:
    """Yield the lines of a request, or all if the id is empty."""
    for batch in batches:
        if request_id in ("", batch.request_id):
            yield from shown_lines(batch.lines, batch.request_id)


def _message(name: str, data: object, mark: str) -> bytes:
    """Return an event whose id is the position after its lines: the browser asks for what follows."""
    return b"id: %b\n%b" % (mark.encode(), event(name, data))


def _matches(line: LogLine, text: str, only_errors: bool) -> bool:
    return (line.error or not only_errors) and text.casefold() in line.text.casefold()


class LogLine(Struct, frozen=True, kw_only=True):
    """Line of a log as a page shows it."""

    time: str  #: UTC; empty if unknown
    stream: str
    text: str
    request_id: str  #: empty: it belongs to no request
    error: bool


def shown_lines(lines: Iterable[Line], request_id: str) -> Iterator[LogLine]:
    for line in lines:
        text = _STAMP.sub("", line.text, count=1) if line.stream == "logger" else line.text
        yield LogLine(
            time=exact_time(line.at) if line.at else "",
            stream=line.stream,
            text=text,
            request_id=request_id,
            error=line.stream in ("stderr", "error") or _ERROR.match(text) is not None,
        )
