"""Journal of invocations, and the window through which the scheduler reads waiting ones.

The promises of ``engine.protocols.storage`` about durability, order, callbacks and failures hold for both.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from msgspec import Struct

from engine.model.invocation import DestinationSpec, Invocation, Outcome, State
from engine.model.retry_rules import Decision
from engine.model.signal import Signal


class Settlement(Struct, frozen=True, kw_only=True):
    """End of an attempt: state of the invocation, outcome, next attempt, and destination. Stored in one commit."""

    invocation: Invocation  #: invocation as it was when the attempt began
    state: State  #: WAIT: will be retried
    outcome: Outcome
    retry: Invocation | None = None  #: next attempt, if the state is WAIT
    deliver_to: DestinationSpec | None = None  #: destination of the outcome; None: no delivery
    ran: bool = True  #: False: ended without an attempt (too old, function deleted)
    decision: Decision | None = None  #: when to retry, or why not; kept with the attempt

    @property
    def in_history(self) -> bool:
        """True if the history keeps the attempt: all that ran but a success at the first attempt without progress."""
        return self.ran and (self.invocation.attempt > 1 or not self.outcome.ok or self.outcome.progress is not None)


class Recovery(Struct, frozen=True, kw_only=True):
    """Summary of the stored invocations, made once at the start of the engine."""

    #: Invocations that have not ended and bytes of their payloads, by function id. Under 0: invocations that have
    #: ended, and bytes of their payloads, results and logs; logs of earlier attempts count as soon as they are stored.
    backlog: dict[int, tuple[int, int]]
    waiting: frozenset[int]  #: functions with ready rows
    #: Invocations that met more than ``model.retry.MAX_CRASHES`` crashes with a begun handler, or more than
    #: ``MAX_START_CRASHES`` before it began. The counts include the last crash. The caller ends them as FAIL.
    poisoned: tuple[Invocation, ...]
    next_due: float | None  #: due time of the earliest delayed row
    revived: int  #: number of invocations put back to WAIT because they were running at a crash


class WaitingEnd(Struct, frozen=True, kw_only=True):
    """End of invocations that wait, which all of them share."""

    state: State  #: FAIL or DISCARD
    outcome: Outcome
    deliver_to: DestinationSpec | None = None  #: destination of the outcome; None: no delivery


class Page(Struct, frozen=True, kw_only=True):
    """Ready invocations of a function that were read from disk together, in the order of execution."""

    invocations: tuple[Invocation, ...]
    complete: bool  #: the function has no further ready rows; False: it may have some


class Journal(Protocol):
    """Durable record of invocations.

    ``settle`` and ``release`` may be called right after ``start``. If other calls about one invocation overlap, either
    may take effect first.

    Invocations of one function with the same ordering key are ready, delayed or running one at a time, or as many as
    ``per_key`` has for the function, in the order in which they were appended. Further ones are *held*: ``then`` gets
    an invocation with ``held`` set, and no window has it. The commit that ends an invocation releases the next of its
    key, and more if the number has grown. A released one becomes delayed, due now or when its own delay is over, and
    ``released()`` announces that ``Window.promote`` may find it.
    """

    @property
    def released(self) -> Signal[[]]: ...

    @property
    def per_key(self) -> dict[int, int]:
        """Numbers of invocations of one ordering key that run at a time, by function id. Functions without one have 1.

        The event loop changes them, and the next append or end uses them.
        """
        ...

    def append(
        self,
        invocation: Invocation,
        *,
        idempotency_key: str = "",
        then: Callable[[Invocation, bool], None] | None = None,
    ) -> Awaitable[str]:
        """Store an invocation and return its request id.

        If ``idempotency_key`` was used before with the same payload, nothing is stored and the earlier request id is
        returned. A key belongs to one function. After the retention with which the storage was opened, it can be used
        anew. Its age is ``expires_others_at`` of the later invocation minus ``accepted_on_clock`` of the earlier one.
        ``then(invocation, stored)`` is called as soon as the write has succeeded or failed. ``stored`` is False if it
        failed or the earlier id is returned.

        Raises IdempotencyConflict if the key was used with another payload.
        """
        ...

    def start(
        self,
        invocation: Invocation,
        started_at: float,
        *,
        begun: bool = False,
        then: Callable[[], None] | None = None,
    ) -> None:
        """Record that an attempt of an invocation was dispatched. Return before the record is on disk. Never raise.

        A further call with ``begun`` records that its handler begins. Both calls share one row if they follow each
        other at once. ``then`` is called when the record is on disk, or the end of the attempt.
        """
        ...

    def settle(self, settlement: Settlement, *, then: Callable[[Settlement], None] | None = None) -> None:
        """Store the end of an attempt, then call ``then(settlement)``. Return before that. Never raise.

        After a failure of the write, retry until it is stored. The record of the invocation keeps result and log of the
        last attempt, and the newest ``model.retry.HISTORY`` attempts, each with its own log, decision and
        progress. A success at the first attempt is not among them, unless it reported progress.
        """
        ...

    def end_all(
        self,
        keys: Sequence[int],
        end: WaitingEnd,
        *,
        then: Callable[[Sequence[tuple[int, int]], bool], None] | None = None,
    ) -> Awaitable[Sequence[tuple[int, int]]]:
        """End waiting invocations in one transaction. Return key and payload size of those that waited.

        ``then(ended, stored)`` is called as soon as the write has succeeded or failed. ``ended`` is the returned value,
        empty after a failure.
        """
        ...

    async def release(self, invocations: Sequence[Invocation]) -> None:
        """Put these invocations back to WAIT if they are running. Used when the engine stops.

        Unlike after a crash, their counts of crashes stay unchanged.
        """
        ...

    async def recover(self) -> Recovery:
        """Put invocations that were running at a crash of the engine back to WAIT, and return a summary.

        A crash counts for ``Invocation.crash_count`` if the handler had begun, otherwise for ``start_crashes``.
        *Poisoned* invocations stay running until the caller ends them. Call this once, before any other method.
        """
        ...


class Window(Protocol):
    """Access of the scheduler to waiting invocations on disk, one page at a time."""

    async def ready(self, function_id: int, after: tuple[float, int], rows: int, size: int) -> Page:
        """Return ready invocations of a function in the order of execution, from behind the position ``after``.

        A position is (rank, key). The page has at most ``rows`` invocations with about ``size`` bytes of payload in
        total. The page has all ready invocations that were submitted before this call, and none whose start or end was
        submitted before. Invocations may be in the page whose start or end was submitted after this call.
        """
        ...

    async def promote(self, now: float, rows: int, size: int) -> tuple[tuple[Invocation, ...], float | None]:
        """Make delayed invocations that are due at ``now`` ready.

        At most ``rows`` invocations with about ``size`` bytes of payload in total are made ready, those due first
        before others. Return them, and the due time of the earliest invocation that is still delayed (None: no
        invocation is).
        """
        ...
