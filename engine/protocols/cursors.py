"""Cursors of trigger sources, which move together with the requests made from events, and what they belong to."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

from msgspec import Struct

from engine.errors import SourceReplaced
from engine.model.invocation import Invocation


class CursorMove(Struct, frozen=True, kw_only=True):
    """Change of a trigger's cursors from expected to new positions.

    The change is refused with CursorMoved if the trigger was deleted, if it has another owner or generation, or if its
    cursors are not at ``expected``.
    """

    trigger_id: str
    owner: str  #: owner of the stored trigger
    generation: int  #: field ``generation`` in the body of the stored trigger
    expected: Mapping[str, bytes | None]  #: positions before the move, by cursor name; None: no position
    positions: Mapping[str, bytes]  #: positions after the move, by cursor name


#: Function that is called with the invocations of a batch that were stored, and with the others.
BatchWritten = Callable[[Sequence[Invocation], Sequence[Invocation]], None]


def divide(requests: Sequence[tuple[Invocation, str]], ids: Sequence[str]) -> tuple[list[Invocation], list[Invocation]]:
    """Return the invocations that got their own request ids, and the others."""
    stored: list[Invocation] = []
    others: list[Invocation] = []
    for (invocation, _), request_id in zip(requests, ids, strict=True):
        (stored if request_id == invocation.request_id else others).append(invocation)
    return stored, others


class Cursors(Protocol):
    """Store of the cursors of trigger sources. When a trigger is deleted, its cursors are deleted too."""

    async def read(self, trigger_id: str) -> Mapping[str, bytes]: ...

    async def read_all(self) -> dict[str, dict[str, bytes]]:
        """Return the cursors of all triggers by trigger id."""
        ...

    def append(
        self,
        requests: Sequence[tuple[Invocation, str]],
        move: CursorMove | None = None,
        *,
        then: BatchWritten | None = None,
    ) -> Awaitable[Sequence[str]]:
        """Store invocations and move the cursors in one commit. Return a request id for each request.

        Each request is an invocation with an idempotency key, which may be empty. If the key was used with the same
        payload, the request is not stored and gets the earlier request id. If the key was used with another payload,
        the request is not stored and gets an empty id. If a ContentKey was used with other content, nothing is stored,
        and IdempotencyConflict is raised. ``then(stored, others)`` is called once, as soon as the write
        has succeeded or failed, with the invocations that were stored and those that were not.

        Raises CursorMoved if the move is refused.
        """
        ...


class SourceIdentity:
    """Identity that one run of a source has found, such as the id of a stream or the device and inode of a folder.

    Streams, queues, folders and the like can be deleted and made again under the same name. A cursor of the earlier one
    must not be used for the later one, whose events would be skipped.

    Store ``text`` with the cursors, or as their name, and use only cursors that have it. Call ``check`` after each
    wait, and pass it to ``TriggerContext.accept_batch``. If it raises SourceReplaced, the engine runs the source anew,
    at once and without a failure.
    """

    def __init__(self, text: str, look: Callable[[], Awaitable[str]]) -> None:
        """``look`` returns the present identity."""
        self.text, self._look = text, look

    async def check(self) -> None:
        """Raise SourceReplaced if the identity is another now. Errors of ``look`` pass."""
        if (now := await self._look()) != self.text:
            raise SourceReplaced(self.text, now)
