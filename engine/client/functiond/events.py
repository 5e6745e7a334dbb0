"""Events of invocations with their options, and events and results as JSON."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import PurePath
from typing import Any, TypedDict

import msgspec
from msgspec import Struct
from msgspec.structs import asdict

from functiond.errors import BadArgument, BadResult

BATCH_EVENTS, BATCH_BYTES = 1_000, 6 << 20  #: limits of the engine
FRAME = 256  #: bytes of a batch that are no events, at most
LONGEST_DELAY = 604_800  #: seconds; limit of the engine
#: Headers by the names of their options.
HEADERS = {
    "key": "Idempotency-Key",
    "delay": "X-Functiond-Delay",
    "priority": "X-Functiond-Priority",
    "ordering_key": "X-Functiond-Ordering-Key",
}


def encode(value: object) -> bytes:
    """Return a value as JSON. Raise BadArgument if JSON has no form for it."""
    try:
        return msgspec.json.encode(value, enc_hook=_encode_other)
    except (TypeError, ValueError, NotImplementedError, RecursionError, msgspec.EncodeError) as error:
        raise BadArgument(f"the value cannot be written as JSON: {error}") from None


def decode(text: bytes | str, kind: Any) -> Any:
    """Return the value of a JSON text as an object of the type ``kind``. Raise msgspec.DecodeError if it does not fit.

    ValidationError, a subclass, says which part of the text does not fit.
    """
    return msgspec.json.decode(text, type=kind, dec_hook=_decode_other)


def decode_result(text: str, kind: Any, request_id: str) -> Any:
    """Return what a function returned, as an object of the type ``kind``. Raise BadResult if it does not fit.

    If any type will do, a text that is not JSON is returned as it is: engines store texts without quotes.
    """
    try:
        return decode(text or "null", kind)
    except msgspec.DecodeError as error:
        if kind is Any:
            return text
        if not text:
            hint = "of queued calls, results of more than 256 KiB are not kept"
            raise BadResult(f"the engine has no result of {request_id}: {hint}") from None
        raise BadResult(f"the result of {request_id} does not fit the return annotation: {error}") from None
    except (TypeError, NotImplementedError) as error:
        raise BadResult(f"the return annotation for {request_id} cannot be used: {error}") from None


def _encode_other(value: Any) -> Any:
    if isinstance(value, PurePath):
        return str(value)
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    raise NotImplementedError(f"an object of type {type(value).__name__} has no form in JSON")


def _decode_other(kind: Any, value: Any) -> Any:
    if isinstance(kind, type) and issubclass(kind, PurePath):
        if not isinstance(value, str):
            raise ValueError(f"Expected a path, got `{type(value).__name__}`")
        return kind(value)
    if hasattr(kind, "model_validate"):
        return kind.model_validate(value)
    raise NotImplementedError(f"values of type {kind} have no form in JSON")


class Options(TypedDict, total=False):
    """Options of a queued call, which ``Event`` describes."""

    key: str | None
    delay: float | None
    at: datetime | None
    expires: float | timedelta | datetime | None
    priority: int | None
    ordering_key: str | None
    unique: bool | None


class Event(Struct, frozen=True, kw_only=True):
    """Event for ``enqueue_many``, with options of its own.

    ``key``: events with equal keys create one invocation. ``delay``: seconds before the first run; ``at``: its time.
    ``expires``: the invocation is discarded if it has not begun by then; seconds count from its acceptance.
    ``priority``: 0 to 9, higher ones run sooner. ``ordering_key``: invocations with equal ones run one at a time, in
    order. ``unique``: nothing is queued while an invocation of the function with the same event has not ended.
    """

    event: Any = None  #: None: the engine's default, an empty object
    key: str | None = None
    delay: float | None = None
    at: datetime | None = None
    expires: float | timedelta | datetime | None = None
    priority: int | None = None
    ordering_key: str | None = None
    unique: bool | None = None

    def __post_init__(self) -> None:
        """Raise BadArgument for options that the engine would refuse."""
        if self.delay is not None and not 0 <= self.delay <= LONGEST_DELAY:
            raise BadArgument(f"delay is {self.delay}: give seconds, 0 to {LONGEST_DELAY}")
        if self.priority is not None and self.priority not in range(10):
            raise BadArgument(f"priority is {self.priority}: give 0 to 9")
        for name, time in (("at", self.at), ("expires", self.expires)):
            if isinstance(time, datetime) and time.tzinfo is None:
                raise BadArgument(f"{name} is {time}, without a time zone: give datetime(..., tzinfo=UTC)")
        if self.at is not None and self.delay is not None:
            raise BadArgument("delay and at exclude each other")
        if self.unique and self.key is not None:
            raise BadArgument("unique and key exclude each other")

    @property
    def headers(self) -> dict[str, str]:
        """Headers that have the options. Raises BadArgument if one has characters that headers do not allow."""
        given = {name: str(value) for name in HEADERS if (value := getattr(self, name)) is not None}
        for name, value in given.items():
            if not (value.isascii() and value.isprintable()):
                raise BadArgument(f"{name} is {value!r}: it may have printable ASCII characters only")
        return {HEADERS[name]: value for name, value in given.items()}

    def item(self, *, keyed: bool = False, **more: object) -> bytes:
        """Return the event as an item of the body of a batch, with ``more`` fields. Raises BadArgument.

        If it is ``keyed``, it has a key, so that a repeated request does not create a second invocation.
        """
        fields = {name: value for name, value in asdict(self).items() if value is not None}
        if self.event is not None:
            fields["event"] = msgspec.Raw(self.body())
        if self.expires is not None:
            fields["expires"] = _seconds(self.expires)
        if keyed and self.key is None and not self.unique:
            fields["key"] = uuid.uuid4().hex
        return msgspec.json.encode({**more, **fields})

    def body(self) -> bytes:
        return b"" if self.event is None else encode(self.event)


def _seconds(expires: float | timedelta | datetime) -> float:
    """Return the seconds from now after which a call expires. Raises BadArgument if the time has passed."""
    left = expires - datetime.now(UTC) if isinstance(expires, datetime) else expires
    seconds = left.total_seconds() if isinstance(left, timedelta) else left
    if not 0 < seconds <= LONGEST_DELAY:
        raise BadArgument(f"expires is {expires}: give up to {LONGEST_DELAY} seconds, or a time within them")
    return seconds


class Link(Struct, frozen=True):
    """Call of a function in a chain, and the type of its result."""

    function: str
    event: Event
    returns: Any = Any

    def item(self, *, keyed: bool = False, **more: object) -> bytes:
        return self.event.item(keyed=keyed, function=self.function, **more)


class Chain(Struct, frozen=True):
    """Calls, of which each gets the result of the one before."""

    links: tuple[Link, ...]

    @property
    def is_plain(self) -> bool:
        """The call is a single one, with options that headers and the batch of a function have."""
        event = self.links[0].event
        return len(self.links) == 1 and event.at is None and event.expires is None and not event.unique

    def item(self, *, keyed: bool = False) -> bytes:
        """Return the chain as an item of the body of a batch of calls. Raises BadArgument."""
        first, *others = self.links
        then = {"then": [msgspec.Raw(link.item()) for link in others]} if others else {}
        return first.item(keyed=keyed, **then)


class Item(Struct, frozen=True):
    position: int  #: in the list of all events, or number of a line
    body: bytes


def batches(items: Iterable[Item]) -> Iterator[list[Item]]:
    """Divide items into batches that the engine accepts. An item that is too large is a batch of its own."""
    batch: list[Item] = []
    size = FRAME
    for item in items:
        more = len(item.body) + 1
        if batch and (size + more > BATCH_BYTES or len(batch) == BATCH_EVENTS):
            yield batch
            batch, size = [], FRAME
        batch.append(item)
        size += more
    if batch:
        yield batch
