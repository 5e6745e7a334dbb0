"""What a trigger has accepted lately, so that a message that comes again calls nothing.

AMQP knows no offsets: a broker sends again whatever it holds no acknowledgement of. That may be much, since a broker
that is killed has forgotten the last second's acknowledgements. So marks of the messages of a batch are written in the
transaction of its requests, in one of several cursors by turns.

A message without an id has no mark: nothing tells a second delivery from a second message of the same content, and to
take a message twice is better than to miss one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b

#: Cursors with marks, and marks in one: it is written again with each batch until it has so many.
ROWS, FULL = 16, 1024
#: Bytes of a mark, and of the number before the marks of a row, by which rows are in order.
MARK, SERIAL = 8, 8


def mark_of(message_id: str, body: bytes) -> bytes:
    """The same id with other content is another message: publishers may know nothing of each other."""
    key = blake2b(message_id.encode(), digest_size=32).digest()
    return blake2b(body, digest_size=MARK, key=key).digest()


class Accepted:
    """``cursors`` are what is on disk, those of other names among them."""

    def __init__(self, cursors: Mapping[str, bytes]) -> None:
        self._rows = {name: value for name, value in cursors.items() if name.isdigit()}
        self._marks = {name: _marks(value) for name, value in self._rows.items()}
        self._last = max(self._rows, key=lambda name: self._rows[name][:SERIAL], default="")

    def __contains__(self, mark: bytes) -> bool:
        return any(mark in marks for marks in self._marks.values())

    def cursor(self, marks: Sequence[bytes]) -> dict[str, bytes]:
        """What is to be written with a batch, by its new marks."""
        if not marks:
            return {}
        row = self._rows.get(self._last, bytes(SERIAL))
        if len(row) >= SERIAL + FULL * MARK:
            row = (int.from_bytes(row[:SERIAL], "big") + 1).to_bytes(SERIAL, "big")
        return {str(int.from_bytes(row[:SERIAL], "big") % ROWS): row + b"".join(marks)}

    def note(self, cursor: Mapping[str, bytes]) -> None:
        """It is on disk."""
        for name, row in cursor.items():
            former = self._rows.get(name, b"")
            if former and row.startswith(former):
                self._marks[name] |= _marks(row, len(former))
            else:
                self._marks[name] = _marks(row)
            self._rows[name], self._last = row, name


def _marks(row: bytes, begin: int = SERIAL) -> set[bytes]:
    return {row[start : start + MARK] for start in range(begin, len(row), MARK)}
