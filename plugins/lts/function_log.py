"""What functions write becomes lines of their log streams, where a trigger of another function listens.

They wait in memory for a moment, and as long as the streams are full: those of the last quarter of a second go with a
killed engine, and beyond ``WAITING`` the newest are passed over, aloud. Once written they are as safe as what is sent.

No loops: what a function writes never calls itself; what it writes while it runs for lines of other functions calls
nothing (else functions that read each other's lines would multiply them); and a chain over destinations ends after
``HOPS`` functions. What an instance writes for no request in particular calls nothing, since it may be either. A
function that sends its lines over the API itself is not held up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from itertools import count, groupby

import anyio
import structlog

from engine import FunctionLines, Overloaded, Unavailable, log_target_of
from plugins.lts.groups import stream_name
from plugins.lts.items import Item, are_short, encoded
from plugins.lts.lines import Lines, Written

WAITING = 4 << 20  #: bytes of items
PAUSE = 0.25  #: seconds between two transactions
HOPS = 16

log = structlog.get_logger("functiond.lts")


class FunctionLog:
    def __init__(
        self, lines: Lines, listens: Callable[[str, str], bool], now: Callable[[], float], region: str, *, labels: bool
    ) -> None:
        self._lines, self._listens, self._now, self._region, self._labels = lines, listens, now, region, labels
        self._waiting: list[Written] = []
        self._size = self._missed = 0
        self._filled = asyncio.Event()
        self._numbers = count(1)

    def hear(self, told: FunctionLines) -> None:
        """A listener of the engine's feed."""
        if not told.request_id or told.hops >= HOPS or (told.source == "LTS" and told.hops > 0):
            return
        function, target = told.function, log_target_of(told.function)
        if function.details.get("enable_lts_log") is False:
            return
        stream = stream_name(function.project, target.group_id, target.stream_id)
        name = f"{function.package}:{function.name}"
        if self._listens(stream, name):
            items = list(encoded(self._items(told)))
            self._put(Written(stream=stream, items=items, function=name, hops=told.hops + 1))

    async def run(self) -> None:
        """Write what was heard, until cancelled; and then what is left, if that can be done at once."""
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
            if not self._missed:
                log.error("lines of functions are passed over: too many wait", stream=written.stream)
            self._missed += len(written.items)
            return
        self._waiting.append(written)
        self._size += size
        self._filled.set()

    async def _write(self) -> None:
        written, self._waiting, missed = self._waiting, [], self._missed
        self._size = self._missed = 0
        self._filled.clear()
        if missed:
            log.error("lines of functions were passed over", lines=missed)
        while written:
            try:
                await self._lines.append(list(_merged(written)))
            except (Overloaded, Unavailable) as problem:
                log.warning("lines of functions wait", problem=str(problem))
                await anyio.sleep(problem.retry_after)
            else:
                return

    def _items(self, told: FunctionLines) -> Iterator[Item]:
        function = told.function
        tags = function.details.get("lts_custom_tag", {})
        for line in told.lines:
            yield Item(
                message=line.text,
                time=int((line.at or self._now()) * 1000),
                host_name=function.name,
                ip="127.0.0.1",
                path=str(function.urn(self._region)),
                log_uid=told.request_id,
                line_no=next(self._numbers),
                labels=tags if self._labels and are_short(tags) else {},
            )


def _merged(written: list[Written]) -> Iterator[Written]:
    """Fewer, in their order: what one function wrote one after the other is together."""
    for (stream, function, hops), some in groupby(written, key=lambda one: (one.stream, one.function, one.hops)):
        items = [item for one in some for item in one.items]
        yield Written(stream=stream, items=items, function=function, hops=hops)
