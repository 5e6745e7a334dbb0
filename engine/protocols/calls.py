"""Store of calls: invocations that code queued, with what links them to a parent, a chain or a group."""

from __future__ import annotations

from collections.abc import Awaitable, Collection, Sequence
from enum import IntEnum
from typing import Protocol

from msgspec import Struct

from engine.errors import FunctiondError
from engine.model.invocation import Invocation, Record
from engine.model.signal import Signal
from engine.protocols.cursors import BatchWritten

CALL = "CALL"  #: source of calls


class GroupState(IntEnum):
    """State of a group, by its number on disk."""

    OPEN = 0
    DECIDED = 1  #: the engine releases or ends its continuation next
    CANCELLING = 2  #: the engine ends its continuation and its members
    SUCCESS = 3
    FAIL = 4
    CANCELLED = 5
    ABANDONED = 6


class NewCall(Struct, frozen=True, kw_only=True):
    """Call to be stored: an invocation, and the continuations that follow it, each of them held."""

    project: str
    invocations: tuple[Invocation, ...]
    expires: tuple[float | None, ...]  #: times at which those that still wait are discarded
    key: str = ""  #: idempotency key; it belongs to the function of the last invocation
    content: bytes = b""  #: all that a repetition with the same key must repeat
    token: bytes = b""  #: content and number among the calls of the parent, if there is no key
    only: bytes = b""  #: function and event, if no other such call may wait or run


class NewGroup(Struct, frozen=True, kw_only=True):
    key: int
    project: str
    need_all: bool
    created: float
    token: str = ""  #: key by which its creation may be repeated; empty: none
    continuation: NewCall | None = None  #: its first invocation has the key of the group


class Membership(Struct, frozen=True, kw_only=True):
    group: int
    project: str
    first: int  #: place of the first call


class Group(Struct, frozen=True, kw_only=True):
    """Group as it is stored. A step of a chain is a group of one call."""

    key: int
    project: str
    chain: bool  #: the continuation gets the result of the only member
    need_all: bool  #: the first failure decides
    created: float
    total: int | None  #: None: not sealed
    stored: int
    done: int
    failed: int
    state: GroupState
    ended: float | None
    message: str
    last: int = 0  #: key of the last continuation; 0: it has none


class Decided(Struct, frozen=True, kw_only=True):
    """Group to be ended."""

    group: Group
    continuation: Invocation | None  #: None: it has none that waits
    member: Record | None  #: the first that failed, or the only one of a chain; with its result


class Links(Struct, frozen=True, kw_only=True):
    """Links of an invocation with others. 0: none."""

    parent: int = 0
    children: int = 0  #: number of invocations that it has queued
    group: int = 0  #: group of which it is a member
    place: int = 0
    waits_for: Group | None = None  #: it is the continuation of this group


class Calls(Protocol):
    """Store of calls and groups. Members count in the commit that ends them, wherever they end."""

    def append(
        self,
        calls: Sequence[NewCall],
        *,
        parent: int = 0,
        most_depth: int,
        group: Membership | None = None,
        then: BatchWritten,
    ) -> Awaitable[Sequence[str | FunctiondError]]:
        """Store calls in one commit. Return for each the request id of its last invocation, or its error.

        A repeated call is not stored: one whose key, token or place is in use gets the id of the earlier one, and one
        that is unique that of the one that has not ended. With a group, all are stored or none, and an error is raised.
        ``then`` is as for ``Cursors.append``. Raises InvalidField if the calls of the parent would be too deep.
        """
        ...

    def create(
        self, group: NewGroup, *, parent: int = 0, most_depth: int, then: BatchWritten
    ) -> Awaitable[tuple[int, int]]:
        """Store a group with its continuations. Return the keys of the group and its last continuation, or 0.

        If a group with the token exists, its keys are returned.
        """
        ...

    async def seal(self, key: int, project: str, total: int) -> None:
        """Take no further members. Raises UnknownGroup, or GroupConflict if fewer than ``total`` are stored.

        There may be more, which an earlier run of the same parent has queued.
        """
        ...

    async def cancel(self, key: int, project: str) -> None:
        """Let the engine end a group and its members, unless the group has ended. Raises UnknownGroup."""
        ...

    async def group(self, key: int) -> Group | None: ...

    async def members(self, key: int, after: int, limit: int, size: int) -> tuple[Sequence[tuple[int, Record]], bool]:
        """Return places and records with results, behind the place ``after``, and whether more follow.

        The results have up to ``size`` bytes together, unless the first one has more.
        """
        ...

    async def ended(self, keys: Collection[int], size: int) -> tuple[Sequence[Record], int, frozenset[int]]:
        """Return records of those invocations that have ended, with up to ``size`` bytes of results as ``members``.

        Also return how many have ended, and the keys of those that do not exist.
        """
        ...

    async def links(self, key: int) -> Links: ...

    async def children(self, key: int, after: int, limit: int) -> Sequence[tuple[int, Record]]:
        """Return invocations that the run of another has queued, with keys above ``after``, and numbers of theirs."""
        ...

    async def unended(self, root: int, limit: int) -> Sequence[Record]:
        """Return invocations that have not ended, of the tree whose root is the invocation with this key."""
        ...

    # --- work of the engine ---

    @property
    def groups_decided(self) -> Signal[[]]:
        """Signal that a commit of ends has decided groups."""
        ...

    async def decided(self, limit: int, without: Collection[int]) -> Sequence[Decided]:
        """Return groups in the states DECIDED and CANCELLING, except those with the keys ``without``."""
        ...

    async def end(
        self, key: int, state: GroupState, message: str, now: float, release: tuple[bytes, float] | None = None
    ) -> int:
        """Store the end of a group. ``release`` makes its continuation due: its payload, and the priority step.

        Return the bytes by which the payload of the continuation grows.
        """
        ...

    async def members_to_end(self, key: int, limit: int) -> Sequence[Record]:
        """Return members of a cancelled group that have not ended, and cancel those that are groups."""
        ...

    async def expired(self, now: float, limit: int) -> tuple[Sequence[Record], float | None]:
        """Return calls that expire now and wait, and the time of the next to expire."""
        ...

    async def clear_expired(self, now: float) -> None:
        """Forget the times up to ``now`` at which calls expire."""
        ...

    async def abandon(self, before: float) -> float | None:
        """Let the engine end groups that were created before a time and not sealed.

        Return when the next such group was created.
        """
        ...
