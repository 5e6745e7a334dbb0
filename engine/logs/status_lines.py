"""Lines about the states of asynchronous invocations, on their way from the engine to the service of log streams."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

from msgspec import Struct

from engine.logs.target import LogTarget

#: Writes rows to a table of the service's plugin, and removes the states that they contain from the engine's storage,
#: in one transaction. Must be called once. Raises Unavailable if nothing was written.
WriteRows = Callable[[str, Mapping[str, bytes]], Awaitable[None]]


class StatusLine(Struct, frozen=True, kw_only=True):
    text: str  #: JSON, as the platform writes it
    at: float  #: time of the change
    request_id: str


class StatusLines(Struct, frozen=True, kw_only=True):
    """Lines for one log stream, in their order."""

    project: str
    target: LogTarget
    lines: tuple[StatusLine, ...]


class StatusLineStore(Protocol):
    """Service that stores lines about states in log streams."""

    @property
    def plugin(self) -> str:
        """Name of the plugin's table in the settings, under which its rows are stored."""
        ...

    async def store(self, written: Sequence[StatusLines], write: WriteRows) -> None:
        """Append lines to their log streams by one call of ``write``. Streams that do not exist are created.

        Raises Overloaded if the streams have no room.
        """
        ...
