"""Recently accepted messages of a trigger, which are skipped when a broker delivers them again.

AMQP has no offsets: a broker delivers every message without acknowledgement again. Such messages can be many, since a
killed broker loses the acknowledgements of its last second. Each message with an id has a mark, a hash. The marks of a
batch's messages are stored in the transaction that accepts the batch, in several cursors in rotation.

A message without an id has no mark, because a repeated delivery cannot be distinguished from a second message with the
same content. Such a message may be accepted twice, but is never lost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b

#: Number of cursors, and of marks in each. A cursor is written again with each batch until it is full.
ROWS, FULL = 16, 1024
#: Bytes of a mark, and of the serial number at the beginning of a cursor, which orders the cursors.
MARK, SERIAL = 8, 8


def mark_of(message_id: str, body: bytes) -> bytes:
    """Return the mark of a message: a hash of its id and content, since several publishers may use the same id."""
    key = blake2b(message_id.encode(), digest_size=32).digest()
    return blake2b(body, digest_size=MARK, key=key).digest()


class Accepted:
    """Marks of accepted messages. ``cursors`` are all cursors of the trigger; cursors without marks are ignored."""

    def __init__(self, cursors: Mapping[str, bytes]) -> None:
        self._rows = {name: value for name, value in cursors.items() if name.isdigit()}
        self._marks = {name: _marks(value) for name, value in self._rows.items()}
        self._last = max(self._rows, key=lambda name: self._rows[name][:SERIAL], default="")

    def __contains__(self, mark: bytes) -> bool:
        return any(mark in marks for marks in self._marks.values())

    def cursor(self, marks: Sequence[bytes]) -> dict[str, bytes]:
        """Return the cursor to store with a batch that has these new marks, or no cursor if there are no marks."""
        if not marks:
            return {}
        row = self._rows.get(self._last, bytes(SERIAL))
        if len(row) >= SERIAL + FULL * MARK:
            row = (int.from_bytes(row[:SERIAL], "big") + 1).to_bytes(SERIAL, "big")
        return {str(int.from_bytes(row[:SERIAL], "big") % ROWS): row + b"".join(marks)}

    def note(self, cursor: Mapping[str, bytes]) -> None:
        """Add the marks of a cursor after it has been stored."""
        for name, row in cursor.items():
            former = self._rows.get(name, b"")
            if former and row.startswith(former):
                self._marks[name] |= _marks(row, len(former))
            else:
                self._marks[name] = _marks(row)
            self._rows[name], self._last = row, name


def _marks(row: bytes, begin: int = SERIAL) -> set[bytes]:
    return {row[start : start + MARK] for start in range(begin, len(row), MARK)}
