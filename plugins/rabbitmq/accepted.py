"""What a trigger has accepted lately, so that a message that comes again calls nothing.

AMQP has no offsets: a broker sends again whatever it holds no acknowledgement of, after a crash on either side. So the
marks of each batch are written with its requests, in one of several cursors by turns; a broker may lose the last
acknowledgements, but not as many as that. Messages without an id have no mark: who can tell a second one from the
first? They come at least once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

import msgspec
from msgspec import Struct

#: Batches that are remembered.
KEPT = 16


class Batch(Struct, frozen=True, kw_only=True):
    serial: int
    marks: tuple[str, ...]


def mark(message_id: str, body: bytes) -> str:
    """Two publishers may use the same id; the same content under it is the same message."""
    return hashlib.blake2b(body, digest_size=16, key=message_id.encode()[:64]).hexdigest()


class Accepted:
    """``cursors`` are what is on disk."""

    def __init__(self, cursors: Mapping[str, bytes]) -> None:
        found = sorted(
            (msgspec.json.decode(value, type=Batch) for value in cursors.values()), key=lambda one: one.serial
        )
        self._batches = found[-KEPT:]

    def __contains__(self, mark: str) -> bool:
        return any(mark in batch.marks for batch in self._batches)

    def next(self, marks: Iterable[str]) -> Batch:
        serial = self._batches[-1].serial + 1 if self._batches else 0
        return Batch(serial=serial, marks=tuple(marks))

    def note(self, batch: Batch) -> None:
        """It is on disk."""
        self._batches = [*self._batches, batch][-KEPT:]


def cursor(batch: Batch) -> dict[str, bytes]:
    return {f"{batch.serial % KEPT}": msgspec.json.encode(batch)}
