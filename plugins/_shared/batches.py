"""Events for the messages of brokers (Kafka, RabbitMQ), and ordering keys of records.

An event holds several messages in order, grouped by topic. With the option ``ordering``, a batch becomes one invocation
for each key of its records.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from sys import maxsize
from types import SimpleNamespace
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta

from engine import Event
from plugins._shared.outcomes import HOPS, read_hops

T = TypeVar("T")

#: ``record_key``: a batch becomes one invocation for each key of its records, with this key as ordering key
Ordering = Annotated[
    Literal["", "record_key"],
    Meta(
        extra={
            "help": "By key: invocations of records with the same key run one after another.",
            "labels": {"": "None", "record_key": "By key"},
        }
    ),
]
LONGEST = 200  #: characters of an ordering key

#: ``text``: a message is its value (FunctionGraph's documented event); ``record``: an object with all that Kafka stores
Format = Literal["text", "record"]


def ordering_key(key: bytes, partition: str) -> str:
    """Return the ordering key for a record: its key, or ``partition`` if it has none.

    A text that an ordering key cannot be, because it is too long or not printable ASCII, is replaced by its hash.
    """
    text = key.decode("latin-1") or partition
    if len(text) <= LONGEST and text.isascii() and text.isprintable():
        return text
    return f"sha256:{sha256(key or partition.encode()).hexdigest()}"


def packed(items: Iterable[T], size_of: Callable[[T], int], limit: int, most: int = maxsize) -> Iterator[list[T]]:
    """Yield the items in groups, in their order: as few as possible, each of up to ``most`` items and ``limit`` bytes.

    An item that needs more bytes is a group alone.
    """
    group, size = list[T](), 0
    for item in items:
        more = size_of(item)
        if group and (len(group) == most or size + more > limit):
            yield group
            group, size = [], 0
        group.append(item)
        size += more
    if group:
        yield group


def by_key(records: Iterable[T], key_of: Callable[[T], str]) -> dict[str, list[T]]:
    """Group records by their ordering keys. Groups, and records of each group, keep their order."""
    groups: dict[str, list[T]] = {}
    for record in records:
        groups.setdefault(key_of(record), []).append(record)
    return groups


def envelope(now: float, region: str, trigger_type: str, instance_id: str) -> dict[str, Any]:
    """Return the fields of a broker's event other than its messages."""
    return {
        "event_version": "v1.0",
        "event_time": int(now),
        "trigger_type": trigger_type,
        "region": region,
        "instance_id": instance_id,
    }


def example_of(trigger_type: str, instance_id: str) -> bytes:
    """Return an event with two messages of one topic, as an example."""
    around = envelope(1_772_346_600.0, "local-1", trigger_type, instance_id)
    records = [SimpleNamespace(topic="orders", value=b'{"order": %d}' % number) for number in (7, 8)]
    return events(records, around, 1000)[0].payload


def events(
    records: Iterable[Any],
    around: Mapping[str, Any],
    limit: int,
    message_format: Format = "text",
    key_of: Callable[[Any], str] | None = None,
    hops: int = 0,
) -> list[Event]:
    """Return events that hold the messages: as few as possible, each of at most ``limit`` bytes.

    A single message that needs more bytes is an event alone. Records have ``topic`` and ``value`` (bytes or None), for
    the format ``record`` the other fields of Kafka's records, too. ``around`` contains the other fields of each event.
    With ``key_of``, which returns the ordering key of a record, no event has records of two keys.
    """
    head = msgspec.json.encode(around)[:-1] + b',"records":['
    encode = _text if message_format == "text" else _record
    return [
        Event(payload=_payload(head, some), ordering_key=key, hops=hops)
        for key, group in (by_key(records, key_of) if key_of else {"": records}).items()
        for some in _parts(((record.topic, encode(record)) for record in group), limit - len(head) - 2)
    ]


def hops_of(record: Any) -> int:
    """Return the number of functions that led to a record of Kafka."""
    return max((read_hops(value) for name, value in record.headers if name == HOPS), default=0)


def _text(record: Any) -> bytes:
    """Return the value as JSON text. Bytes that are not UTF-8 become U+FFFD; a missing value the empty string."""
    return msgspec.json.encode((record.value or b"").decode("utf-8", "replace"))


def _record(record: Any) -> bytes:
    """Return a record of Kafka as a JSON object."""
    headers = [{"key": name} | _member("value", value) for name, value in record.headers]
    place = {"headers": headers, "timestamp": record.timestamp, "partition": record.partition, "offset": record.offset}
    return msgspec.json.encode(_member("key", record.key) | _member("value", record.value) | place)


def _member(name: str, data: bytes | None) -> dict[str, str | None]:
    """Return a member for bytes that may be missing. Bytes that are not UTF-8 are base64, and a member says so."""
    try:
        return {name: None if data is None else data.decode()}
    except UnicodeDecodeError:
        return {name: b64encode(data or b"").decode(), f"{name}_encoding": "base64"}


def _parts(messages: Iterable[tuple[str, bytes]], room: int) -> Iterator[Mapping[str, Sequence[bytes]]]:
    """Yield groups of JSON messages, keyed by topic. A group has as many messages as fit into ``room`` bytes."""
    group: dict[str, list[bytes]] = {}
    size = 0
    for topic, message in messages:
        more = len(message) + 1 + (0 if topic in group else _topic_size(topic))
        if group and size + more > room:
            yield group
            group, size = {}, 0
            more = len(message) + 1 + _topic_size(topic)
        group.setdefault(topic, []).append(message)
        size += more
    if group:
        yield group


def _topic_size(topic: str) -> int:
    return len(_topic(topic, ())) + 1


def _topic(topic: str, messages: Iterable[bytes]) -> bytes:
    return b'{"messages":[%b],"topic_id":%b}' % (b",".join(messages), msgspec.json.encode(topic))


def _payload(head: bytes, messages: Mapping[str, Sequence[bytes]]) -> bytes:
    return head + b",".join(_topic(topic, some) for topic, some in messages.items()) + b"]}"
