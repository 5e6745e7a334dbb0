"""Events of asynchronous invocations with their options, and their division into batches."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from functiond.codec import encode
from functiond.errors import BadArgument

BATCH_EVENTS, BATCH_BYTES = 1_000, 6 << 20  #: limits of the engine
FRAME = len(b'{"events":[]}')
LONGEST_DELAY = 604_800  #: seconds; limit of the engine
#: Headers by the names of their options.
HEADERS = {
    "key": "Idempotency-Key",
    "delay": "X-Functiond-Delay",
    "priority": "X-Functiond-Priority",
    "ordering_key": "X-Functiond-Ordering-Key",
}


class Event(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Event for ``enqueue_many``, with options of its own.

    ``key``: events with equal keys create one invocation. ``delay``: seconds before the first run. ``priority``: 0 to
    9, higher ones run sooner. ``ordering_key``: invocations with equal ones run one at a time, in order.
    """

    event: Any = None  #: None: the engine's default, an empty object
    key: str | None = None
    delay: float | None = None
    priority: int | None = None
    ordering_key: str | None = None

    def with_key(self) -> Event:
        """Return the event with an idempotency key, so that a repeated request does not create a second invocation."""
        return replace(self, key=uuid.uuid4().hex) if self.key is None else self

    @property
    def headers(self) -> dict[str, str]:
        """Headers that have the options. Raises BadArgument if one has characters that headers do not allow."""
        self._check()
        found = {name: str(value) for name in HEADERS if (value := getattr(self, name)) is not None}
        for name, value in found.items():
            if not (value.isascii() and value.isprintable()):
                raise BadArgument(f"{name} is {value!r}: it may have printable ASCII characters only")
        return {HEADERS[name]: value for name, value in found.items()}

    def item(self) -> bytes:
        """Return the event as an item of the body of a batch. Raises BadArgument if it cannot be sent."""
        self._check()
        return msgspec.json.encode(self if self.event is None else replace(self, event=msgspec.Raw(self.body())))

    def _check(self) -> None:
        """Raise BadArgument for numbers that the engine refuses by the name of their header."""
        if self.delay is not None and not 0 <= self.delay <= LONGEST_DELAY:
            raise BadArgument(f"delay is {self.delay}: give seconds, 0 to {LONGEST_DELAY}")
        if self.priority is not None and self.priority not in range(10):
            raise BadArgument(f"priority is {self.priority}: give 0 to 9")

    def body(self) -> bytes:
        return b"" if self.event is None else encode(self.event)


class Item(Struct, frozen=True):
    position: int  #: in the list of all events
    body: bytes


def batches(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    """Divide items into batches that the engine accepts. An item that is too large is a batch of its own."""
    start, size = 0, FRAME
    for end, item in enumerate(items):
        more = len(item.body) + 1
        if end > start and (size + more > BATCH_BYTES or end - start == BATCH_EVENTS):
            yield items[start:end]
            start, size = end, FRAME
        size += more
    if start < len(items):
        yield items[start:]
