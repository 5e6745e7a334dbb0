"""Tab of a function's log: the last lines of its newest invocations, and a stream of the lines that follow.

The stream sends the last lines again when it begins, so that none is missing between page and stream, nor after a
connection was lost.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from urllib.parse import urlencode

import anyio
from msgspec import Struct

from engine.asgi.streaming import EVENTS, HEARTBEAT, Stream, Write, event
from engine.asgi.wire import Reply
from engine.errors import InvalidRequest, Unavailable, UnknownInvocation
from engine.functions.invocation_filter import record_of
from engine.http.api.logs import QUIET, LogArchive, log_of
from engine.http.api.routing import Call, Handler
from engine.http.api.times import exact_time
from engine.http.console.function_frame import FunctionFrame
from engine.http.console.pages import HEADERS, Action
from engine.http.console.paths import FUNCTION
from engine.http.log_queue import LogQueue
from engine.logs.feed import LogFeed
from engine.logs.lines import Line, decode, last
from engine.model import Function, Record, State
from engine.model.identity import Identity
from engine.protocols import Records, Selection

LINES = 500  #: lines that a page, or the begin of a stream, shows
NEWEST = 20  #: invocations whose lines they are: so many running ones, and so many that have ended
TAIL = 8 << 10  #: bytes read of the log of each of them
WHOLE = 64 << 10  #: bytes read of the log of an invocation that was asked for
PAUSE = 0.1  #: seconds between two messages of a stream
STREAMED = 32  #: streams at the same time
_ENDED = frozenset({State.SUCCESS, State.FAIL, State.DISCARD})
#: Time and request id that a function's logger writes before the level; the line has both anyway.
_STAMP = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]{8,12}Z [0-9a-f-]{36} ")
_ERROR = re.compile(r"(ERROR|CRITICAL|FATAL)\b|Traceback \(most recent call last\)")


class LogLine(Struct, frozen=True, kw_only=True):
    """Line of a log as the page shows it."""

    time: str  #: UTC; empty if unknown
    stream: str
    text: str
    request_id: str  #: empty: it belongs to no request
    error: bool


class FunctionLogs:
    """Tab of a function's log. A stream ends when ``is_valid`` no longer accepts the request that opened it."""

    def __init__(
        self,
        frame: FunctionFrame,
        records: Records,
        identity: Identity,
        archive: LogArchive,
        feed: LogFeed,
        is_valid: Callable[[Call], bool],
    ) -> None:
        self._frame, self._records, self._identity = frame, records, identity
        self._archive, self._feed, self._is_valid = archive, feed, is_valid
        self._streams = 0

    def pages(self) -> Mapping[str, Handler]:
        return {f"{FUNCTION}/logs": self.show, f"{FUNCTION}/logs/stream": self.stream}

    def actions(self) -> Mapping[str, Action]:
        return {}

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
            lines=[one for one in lines if _matches(one, text, only_errors)],
            limits={"lines": LINES, "newest": NEWEST},
            request_id=request_id,
            text=text,
            only_errors=only_errors,
            error=error,
            stream=self._frame.page_path(function, f"/logs/stream?{urlencode({'request_id': request_id})}"),
        )

    async def stream(self, call: Call) -> Reply:
        """Return a stream of lines. Raises InvalidRequest unless the request accepts it, Unavailable at the limit."""
        function, request_id = self._frame.function_of(call), call.text("request_id").strip()
        if EVENTS not in call.headers.get(b"accept", b""):
            raise InvalidRequest("this path has the live log for its page; send Accept: text/event-stream")
        if call.method == "HEAD":
            return Reply(headers=HEADERS, content_type=EVENTS)
        if self._streams >= STREAMED:
            raise Unavailable(f"{STREAMED} pages show live logs already; close some")
        if request_id:
            await record_of(self._records, self._identity, function, request_id)
        return Stream(
            content_type=EVENTS, headers=HEADERS, run=lambda write: self._follow(call, write, function, request_id)
        )

    # --- inside ---------------------------------------------------------------------------------------------

    async def _follow(self, call: Call, write: Write, function: Function, request_id: str) -> None:
        queue = LogQueue(request_id)
        self._streams += 1
        try:
            with self._feed.subscribed(queue.put, function_id=function.function_id):
                known = await self._last(function, request_id)
                await write(event("begin", known))
                await self._pass_on(call, write, queue, Counter(known))
        finally:
            self._streams -= 1

    async def _pass_on(self, call: Call, write: Write, queue: LogQueue, known: Counter[LogLine]) -> None:
        """Write new lines until the reader may no longer see them. Lines that the first read has found are left out."""
        while True:
            taken = None
            with anyio.move_on_after(QUIET):
                taken = await queue.take()
            if not self._is_valid(call):
                return
            if taken is None:
                await write(HEARTBEAT)
                known.clear()
                continue
            if taken.dropped:
                await write(event("dropped", {"lines": taken.dropped}))
            batches = (_shown(batch.lines, batch.request_id) for batch in taken.batches)
            lines = (one for batch in batches for one in batch if not _forget(known, one))
            while step := list(islice(lines, LINES)):
                await write(event("lines", step))
            await asyncio.sleep(PAUSE)  # lines that come meanwhile are sent together

    async def _last(self, function: Function, request_id: str) -> list[LogLine]:
        """Return the last lines of an invocation, or of the newest invocations and of instances outside requests."""
        if request_id:
            records: Sequence[Record] = [await record_of(self._records, self._identity, function, request_id)]
            found = []
        else:
            records = [*await self._newest(function, frozenset({State.RUNNING})), *await self._newest(function, _ENDED)]
            outside = last(await self._archive.instance_log(function.function_id), TAIL)
            found = list(_shown(decode(outside), ""))
        for record in records:
            whole = record if request_id or not record.state.final else await self._records.get(record.key)
            log = await log_of(self._archive, whole or record)
            found += _shown(decode(last(log, WHOLE if request_id else TAIL)), record.request_id)
            await asyncio.sleep(0)  # other requests come between
        return sorted(found, key=lambda one: one.time)[-LINES:]

    async def _newest(self, function: Function, states: frozenset[State]) -> Sequence[Record]:
        selection = Selection(function_id=function.function_id, states=states, counted=False, limit=NEWEST)
        return (await self._records.list(selection))[0]


def _forget(known: Counter[LogLine], line: LogLine) -> bool:
    """Return whether a line is known, and forget it once."""
    if not known[line]:
        return False
    known[line] -= 1
    return True


def _shown(lines: Iterable[Line], request_id: str) -> Iterator[LogLine]:
    for line in lines:
        text = _STAMP.sub("", line.text, count=1) if line.stream == "logger" else line.text
        yield LogLine(
            time=exact_time(line.at) if line.at else "",
            stream=line.stream,
            text=text,
            request_id=request_id,
            error=line.stream == "stderr" or _ERROR.match(text) is not None,
        )


def _matches(line: LogLine, text: str, only_errors: bool) -> bool:
    return (line.error or not only_errors) and text.casefold() in line.text.casefold()
