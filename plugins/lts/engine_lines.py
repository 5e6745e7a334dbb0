"""Lines that the engine writes to log streams: those of functions, and the states of asynchronous invocations.

Lines of functions wait in memory for a quarter of a second, and as long as the streams have no space. Waiting lines are
lost if the engine is killed. If more than ``WAITING`` bytes wait, the newest lines are dropped, with an error in the
engine's log. Stored lines are as durable as lines that clients send.

Loops are prevented as follows:

- Lines of a function never call the function itself.
- Lines of an invocation that was itself called for lines of functions call nothing. Otherwise functions that read each
  other's lines would increase their number without end.
- A chain of functions over destinations ends after ``HOPS`` functions.
- Lines that an instance writes outside of a request call nothing, since their cause is unknown.
- Lines about states call nothing. The invocations that they cause would write further lines, without end.

Lines that a function sends through the API are not restricted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from itertools import count, groupby

import anyio
import structlog

from engine import FunctionLines, Overloaded, StatusLines, Unavailable, WriteRows, log_target_of
from plugins.lts.groups import Groups, stream_name
from plugins.lts.lines import STATES, Item, Lines, Written, are_short, encoded

WAITING = 4 << 20  #: bytes of items
PAUSE = 0.25  #: seconds between two transactions
HOPS = 16

log = structlog.get_logger("functiond.lts")


class FunctionLog:
    """Buffer of lines that functions have written and that are not stored in the log streams yet."""

    def __init__(
        self, lines: Lines, listens: Callable[[str, str], bool], now: Callable[[], float], region: str, *, labels: bool
    ) -> None:
        self._lines, self._listens, self._now, self._region, self._labels = lines, listens, now, region, labels
        self._waiting: list[Written] = []
        self._size = self._dropped = 0
        self._filled = asyncio.Event()
        self._numbers = count(1)

    def collect(self, written: FunctionLines) -> None:
        """Buffer lines that a function has written.

        Lines are ignored if no trigger reads them, if they could cause a loop, or if the function's ``enable_lts_log``
        is false.
        """
        if not written.request_id or written.hops >= HOPS or (written.source == "LTS" and written.hops > 0):
            return
        function, target = written.function, log_target_of(written.function)
        if function.details.get("enable_lts_log") is False:
            return
        stream = stream_name(function.project, target.group_id, target.stream_id)
        name = f"{function.package}:{function.name}"
        if self._listens(stream, name):
            items = list(encoded(self._items(written)))
            self._put(Written(stream=stream, items=items, function=name, hops=written.hops + 1))

    async def run(self) -> None:
        """Store buffered lines until cancelled, and then the remaining ones within a second."""
        try:
            while True:
                await self._filled.wait()
                await anyio.sleep(PAUSE)
                await self._write()
        finally:
            with anyio.move_on_after(1, shield=True):
                await self._write()

    def _put(self, written: Written) -> None:
        size = sum(map(len, written.items))
        if self._size + size > WAITING:
            if not self._dropped:
                log.error("dropping lines of functions: too many wait", stream=written.stream)
            self._dropped += len(written.items)
            return
        self._waiting.append(written)
        self._size += size
        self._filled.set()

    async def _write(self) -> None:
        written, self._waiting, dropped = self._waiting, [], self._dropped
        self._size = self._dropped = 0
        self._filled.clear()
        if dropped:
            log.error("lines of functions were dropped", lines=dropped)
        while written:
            try:
                await self._lines.append(list(_merged(written)))
            except (Overloaded, Unavailable) as problem:
                log.warning("lines of functions wait", problem=str(problem))
                await anyio.sleep(problem.retry_after)
            else:
                return

    def _items(self, written: FunctionLines) -> Iterator[Item]:
        function = written.function
        tags = function.details.get("lts_custom_tag", {})
        for line in written.lines:
            yield Item(
                message=line.text,
                time=int((line.at or self._now()) * 1000),
                host_name=function.name,
                ip="127.0.0.1",
                path=str(function.urn(self._region)),
                log_uid=written.request_id,
                line_no=next(self._numbers),
                labels=tags if self._labels and are_short(tags) else {},
            )


def _merged(written: list[Written]) -> Iterator[Written]:
    """Yield the lines in their order. Consecutive entries of the same function, stream and hops are joined into one."""
    for (stream, function, hops), some in groupby(written, key=lambda part: (part.stream, part.function, part.hops)):
        items = [item for part in some for item in part.items]
        yield Written(stream=stream, items=items, function=function, hops=hops)


class StatusStreams:
    """Storage of lines about states. ``plugin`` names the table of this plugin in the settings.

    A group or stream that was deleted is created again at the next line.
    """

    plugin = "lts"

    def __init__(self, groups: Groups, lines: Lines) -> None:
        self.create, self._lines = groups.ensure, lines
        self._numbers = count(1)

    async def store(self, written: Sequence[StatusLines], write: WriteRows) -> None:
        for lines in written:
            await self.create(lines.project, lines.target, again=True)
        await self._lines.append([self._converted(lines) for lines in written], write)

    def _converted(self, written: StatusLines) -> Written:
        target = written.target
        stream = stream_name(written.project, target.group_id, target.stream_id)
        return Written(stream=stream, items=list(encoded(self._items(written))), function=STATES)

    def _items(self, written: StatusLines) -> Iterator[Item]:
        for line in written.lines:
            yield Item(
                message=line.text,
                time=int(line.at * 1000),
                host_name="functiond",
                ip="127.0.0.1",
                path="",
                log_uid=line.request_id,
                line_no=next(self._numbers),
            )
