"""Request ids: UUIDs that contain the key of the invocation, so that the journal needs an index of keys only.

A key is a 63-bit integer: 48 bits of milliseconds since the epoch, then a 15-bit counter. Each new key
is larger than all before, even after a restart or when the clock is set back. The request id is a UUID of version 7:
the milliseconds and counter of the key, and 59 random bits that identify the data directory. These bits are drawn when
the data directory is created, and are stored in it.
"""

from __future__ import annotations

COUNTER_BITS = 15
_LOW_COUNTER = 3  #: counter bits after the UUID's variant; the other 12 follow its version
NODE_BITS = 59


def key_at(moment: float) -> int:
    """Return the smallest key of an invocation accepted at ``moment``, in seconds since the epoch."""
    return int(moment * 1000) << COUNTER_BITS


def accepted_at(key: int) -> float:
    """Return the time of acceptance of the invocation with this key: seconds since the epoch, to the millisecond."""
    return (key >> COUNTER_BITS) / 1000


class Identity:
    """Generator of keys for the invocations of one data directory. Converts keys to request ids and back."""

    def __init__(self, node: int, last_key: int = 0) -> None:
        node &= (1 << NODE_BITS) - 1
        low = (f"{0b10 << 62 | count << NODE_BITS | node:016x}" for count in range(1 << _LOW_COUNTER))
        #: Second half of a request id, by the low bits of the counter.
        self._ends = [f"-{text[:4]}-{text[4:]}" for text in low]
        #: Name of the journal; a copy of the journal has the same name.
        self.name = self._ends[0][-12:]
        self._last = last_key

    def next_key(self, now: float) -> int:
        self._last = max(self._last + 1, key_at(now))
        return self._last

    def pass_by(self, key: int) -> None:
        """Make all keys that are generated later larger than ``key``."""
        self._last = max(self._last, key)

    def request_id(self, key: int) -> str:
        counter = key & ((1 << COUNTER_BITS) - 1)
        text = f"{key >> COUNTER_BITS << 16 | 0x7000 | counter >> _LOW_COUNTER:016x}"
        return f"{text[:8]}-{text[8:12]}-{text[12:]}{self._ends[counter & 0b111]}"

    def key_of(self, request_id: str) -> int | None:
        """Return the key that a request id contains; None if the text is no request id of this data directory."""
        text = request_id.lower().replace("-", "")
        if len(request_id) != 36 or len(text) != 32:
            return None
        try:
            high, low = int(text[:16], 16), int(text[16:], 16)
        except ValueError:
            return None
        counter = (high & 0xFFF) << _LOW_COUNTER | (low >> NODE_BITS) & 0b111
        key = (high >> 16) << COUNTER_BITS | counter
        return key if self.request_id(key) == request_id.lower() else None
