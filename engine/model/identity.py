"""Request ids: UUIDs that contain the key of the invocation, so that the journal needs an index of keys only.

A key is a 63-bit integer: 48 bits of milliseconds since the epoch, 9 bits of a counter, then 6 bits of the slot of the
engine that issued the key. Each new key is larger than all before, even when the clock is set back. After a restart, it
is larger than the keys of all stored invocations. Engines with different slots never issue the same key. The counter of
a millisecond that needs more than 512 keys continues in the next millisecond. Keys of earlier versions had a 15-bit
counter and no slot. They convert in the same way, because the conversion does not distinguish counter and slot.

The request id is a UUID of version 7: the milliseconds and the 15 low bits of the key, and 59 random bits that identify
the data directory. These bits are drawn when the data directory is created, and are stored in it.
"""

from __future__ import annotations

SLOT_BITS, COUNTER_BITS = 6, 9
_LOW_BITS = SLOT_BITS + COUNTER_BITS
_AFTER_VARIANT = 3  #: low bits of the key after the UUID's variant; the other 12 follow its version
_STEP = 1 << SLOT_BITS  #: distance between two keys of one engine in the same millisecond
NODE_BITS = 59


def key_at(moment: float) -> int:
    """Return the smallest key of an invocation accepted at ``moment``, in seconds since the epoch."""
    return int(moment * 1000) << _LOW_BITS


def accepted_at(key: int) -> float:
    """Return the time of acceptance of the invocation with this key: seconds since the epoch, to the millisecond."""
    return (key >> _LOW_BITS) / 1000


#: Seconds by which a stored time may be ahead of the clock. A time farther ahead was stored while the clock was wrong.
AHEAD = 86_400.0
#: No engine ran before this time (November 2023), so an earlier clock is wrong.
EARLIEST = 1_700_000_000.0


def true_end(ended_at: float, now: float) -> float:
    """Return the end of an invocation by which its age counts: ``now`` if the clock was ahead when it ended.

    A clock before ``EARLIEST`` changes no end, because then the clock is wrong now.
    """
    return now if ended_at > now + AHEAD and now >= EARLIEST else ended_at


class Identity:
    """Generator of keys for the invocations of one engine. Converts keys to request ids and back.

    All engines that share a storage have the same ``node``, so that each can convert the ids of the others. ``slot`` is
    0 to 63. Every key is larger than ``last_key``.
    """

    def __init__(self, node: int, last_key: int = 0, slot: int = 0) -> None:
        node &= (1 << NODE_BITS) - 1
        low = (f"{0b10 << 62 | count << NODE_BITS | node:016x}" for count in range(1 << _AFTER_VARIANT))
        #: Second half of a request id, by the lowest bits of the key.
        self._ends = [f"-{text[:4]}-{text[4:]}" for text in low]
        #: Name of the journal; a copy of the journal has the same name.
        self.name = self._ends[0][-12:]
        self._slot = slot
        self._last = slot  #: the slot is always in its low bits
        #: Milliseconds, and the first digits of the request ids made in them. One tuple, because threads share it.
        self._newest = (-1, "")
        self.pass_by(last_key)

    def next_key(self, now: float) -> int:
        key = int(now * 1000) << _LOW_BITS | self._slot
        if key <= self._last:
            key = self._last + _STEP
        self._last = key
        return key

    def pass_by(self, key: int) -> None:
        """Make all keys that are generated later larger than ``key``."""
        self._last = max(self._last, key & -_STEP | self._slot)

    def request_id(self, key: int) -> str:
        moment, beginning = self._newest
        if moment != key >> _LOW_BITS:
            moment = key >> _LOW_BITS
            text = f"{moment:012x}"
            beginning = f"{text[:8]}-{text[8:]}-7"
            self._newest = (moment, beginning)
        return f"{beginning}{key >> _AFTER_VARIANT & 0xFFF:03x}{self._ends[key & 0b111]}"

    def key_of(self, request_id: str) -> int | None:
        """Return the key that a request id contains; None if the text is no request id of this data directory."""
        text = request_id.lower().replace("-", "")
        if len(request_id) != 36 or len(text) != 32:
            return None
        try:
            high, low = int(text[:16], 16), int(text[16:], 16)
        except ValueError:
            return None
        key = (high >> 16) << _LOW_BITS | (high & 0xFFF) << _AFTER_VARIANT | (low >> NODE_BITS) & 0b111
        return key if self.request_id(key) == request_id.lower() else None

    def range_of(self, prefix: str) -> tuple[int, int] | None:
        """Return the smallest and the largest key of the request ids that begin with a text; None if none can."""
        text, parts = prefix.lower().replace("-", ""), [at for at, character in enumerate(prefix) if character == "-"]
        if not text or len(text) > 32 or not set(text) <= _HEX or parts != [at for at in _HYPHENS if at < len(prefix)]:
            return None
        ends = [int(text[:16].ljust(16, fill), 16) for fill in "0f"]
        if len(text) > 12 and text[12] != "7":
            return None
        first, last = ((end >> 16) << _LOW_BITS | (end & 0xFFF) << _AFTER_VARIANT for end in ends)
        keys = range(first, last + (1 << _AFTER_VARIANT))
        if len(text) > 16:  # at most eight keys are left
            matching = [key for key in keys if self.request_id(key).startswith(prefix.lower())]
            return (matching[0], matching[-1]) if matching else None
        return (keys[0], keys[-1])


_HEX = frozenset("0123456789abcdef")
_HYPHENS = (8, 13, 18, 23)  #: positions in a request id
