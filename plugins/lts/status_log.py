"""Log streams for the states of asynchronous invocations: the engine writes a line at each change.

A group or stream that was deleted is created again at the next line. Lines about states call no function. Otherwise the
invocations that they cause would write further lines, without end.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count

from engine import StatusLines, WriteRows
from plugins.lts.groups import Groups, stream_name
from plugins.lts.items import Item, encoded
from plugins.lts.lines import STATES, Lines, Written


class StatusStreams:
    """Storage of lines about states. ``plugin`` names the table of this plugin in the settings."""

    plugin = "lts"

    def __init__(self, groups: Groups, lines: Lines) -> None:
        self._groups, self._lines = groups, lines
        self._numbers = count(1)

    async def store(self, written: Sequence[StatusLines], write: WriteRows) -> None:
        for one in written:
            await self._groups.ensure(one.project, one.target, again=True)
        await self._lines.append([self._converted(one) for one in written], write)

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
