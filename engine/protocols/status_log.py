"""Status log: changes of the states of invocations, on their way to log streams."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from msgspec import Struct

from engine.logs.target import LogTarget
from engine.model.invocation import State
from engine.model.signal import Signal

#: Changes that wait for their log stream. Later ones are dropped and counted.
MOST_ENTRIES = 200_000
#: Characters of a message in an entry.
LONGEST_MESSAGE = 1000


class StatusTarget(Struct, frozen=True, kw_only=True):
    """Version of a function whose states are logged, and the log stream for them."""

    function_id: int
    version: str
    project: str
    urn: str
    log: LogTarget


class StatusEntry(Struct, frozen=True, kw_only=True):
    """Change of the state of an invocation."""

    entry_id: int
    target: StatusTarget
    request_id: str
    state: State
    at: float
    code: int
    message: str


class StatusLogStatistics(Struct, frozen=True, kw_only=True):
    waiting: int  #: entries that are not in their stream yet, about
    dropped: int  #: changes that were not logged since the start, because too many entries waited


class StatusLog(Protocol):
    """Entries about the states of invocations, written in the transaction that changes the state.

    Entries are added for the versions that ``follow`` names, by each write of the storage: acceptance and return to
    WAIT, start, retry and end. An engine that takes over finds the versions and the entries as they were stored.

    At most ``MOST_ENTRIES`` entries wait. Further changes are counted and not logged, so that the storage stays bounded
    and invocations never wait for their log.
    """

    @property
    def added(self) -> Signal[[]]:
        """Signal that entries were submitted. A later call of ``read`` sees them."""
        ...

    async def load(self) -> Collection[int]:
        """Read the followed versions, and return the ids of their functions. Call this before any other method.

        Versions of deleted functions may be forgotten as soon as all of their invocations have ended.
        """
        ...

    async def follow(self, function_id: int, targets: Sequence[StatusTarget]) -> None:
        """Log the states of these versions of a function, and of no others, from now on.

        Entries that exist already keep the stream for which they were made.
        """
        ...

    async def read(self, rows: int) -> Sequence[StatusEntry]:
        """Return the oldest entries, at most ``rows``, in the order in which the states changed."""
        ...

    async def hand_over(self, until: int, plugin: str, table: str, put: Mapping[str, bytes]) -> None:
        """Write rows to a table of a plugin, and remove all entries up to ``until``, in one transaction."""
        ...

    def statistics(self) -> StatusLogStatistics: ...
