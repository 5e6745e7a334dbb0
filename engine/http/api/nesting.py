"""Depth of a JSON text, found in one pass before the text is decoded.

Each block of the text is reduced to its brackets: escapes are taken out, then everything but brackets and quotes, then
what stands between quotes. Brackets are looked up eight at a time. Nothing but one block is held.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from itertools import accumulate
from operator import add

BLOCK = 1 << 16  #: bytes that are reduced at a time

#: Brackets become binary digits; quotes stay.
_DIGITS = bytes.maketrans(b"{[}]", b"1100")
_OTHERS = bytes(set(range(256)) - set(b'{[}]"'))


def _heights(brackets: int) -> list[int]:
    """Levels after each of eight brackets, counted from what comes before them."""
    return list(accumulate(1 if brackets >> place & 1 else -1 for place in reversed(range(8))))


#: Of eight brackets as the bits of a byte: how far they lead up, as a signed byte, and how far up they go on the way.
_RISES = bytes(_heights(brackets)[-1] & 0xFF for brackets in range(256))
_PEAKS = bytes(max(0, *_heights(brackets)) for brackets in range(256))


def is_deeper(text: bytes, levels: int) -> bool:
    """Return whether lists and objects are nested in more than ``levels`` levels.

    Of a text that is not JSON, only what comes before its first fault counts for certain.
    """
    if text.count(b"[") + text.count(b"{") <= levels:
        return False
    depth, quoted = 0, False
    for block in _blocks(text):
        parts = _reduced(block).split(b'"')
        digits = b"".join(parts[quoted::2])
        quoted ^= len(parts) % 2 == 0
        opening = digits.count(b"1")
        if depth + opening > levels and _peak(digits, depth) > levels:
            return True
        depth += 2 * opening - len(digits)
    return False


def _blocks(text: bytes) -> Iterator[bytes]:
    """Parts of ``text``; none ends within an escape."""
    start = 0
    while start < len(text):
        block = text[start : start + BLOCK]
        if (len(block) - len(block.rstrip(b"\\"))) % 2:
            block += text[start + BLOCK : start + BLOCK + 1]
        yield block
        start += len(block)


def _reduced(block: bytes) -> bytes:
    """Digits and quotes of ``block``; quotes with nothing left between them are taken out."""
    if b"\\" in block:
        block = block.replace(b"\\\\", b"").replace(b'\\"', b"")
    return block.translate(_DIGITS, _OTHERS).replace(b'""', b"")


def _peak(digits: bytes, depth: int) -> int:
    """Highest level that brackets lead to from ``depth``."""
    size = (len(digits) + 7) // 8
    brackets = int(digits.ljust(8 * size, b"0"), 2).to_bytes(size, "big")
    before = accumulate(array("b", brackets.translate(_RISES)), initial=depth)
    peaks: map[int] = map(add, before, brackets.translate(_PEAKS))
    return max(peaks)
