"""Nesting depth of a JSON text, found in one pass before the text is decoded.

The text is processed in blocks, so that only one reduced copy of a block is in memory. A block is reduced to its
brackets: first escapes are removed, then all characters but brackets and quotes, then everything inside strings. A
table of all sequences of eight brackets gives the change of level and the highest level of each.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from itertools import accumulate
from operator import add

BLOCK = 1 << 16  #: bytes that are reduced at a time

#: An opening bracket becomes 1, a closing one 0; quotes stay.
_DIGITS = bytes.maketrans(b"{[}]", b"1100")
_OTHERS = bytes(set(range(256)) - set(b'{[}]"'))


def _heights(brackets: int) -> list[int]:
    """Return the nesting level after each of eight brackets, relative to the level before the first.

    Each bit of ``brackets`` is one bracket: 1 opens, 0 closes; the highest bit is the first.
    """
    return list(accumulate(1 if brackets >> bit & 1 else -1 for bit in reversed(range(8))))


#: For each sequence of eight brackets: change of level after the last, as a signed byte; and highest level reached.
_RISES = bytes(_heights(brackets)[-1] & 0xFF for brackets in range(256))
_PEAKS = bytes(max(0, *_heights(brackets)) for brackets in range(256))


def is_deeper(text: bytes, levels: int) -> bool:
    """Return whether lists and objects are nested in more than ``levels`` levels.

    If ``text`` is not valid JSON, the result may be wrong for the part after its first error.
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
    """Yield ``text`` in blocks, none of which ends between a backslash and the character that it escapes."""
    start = 0
    while start < len(text):
        block = text[start : start + BLOCK]
        if (len(block) - len(block.rstrip(b"\\"))) % 2:
            block += text[start + BLOCK : start + BLOCK + 1]
        yield block
        start += len(block)


def _reduced(block: bytes) -> bytes:
    """Return only the brackets and quotes of ``block``: an opening bracket as ``1``, a closing one as ``0``.

    Two quotes without a bracket between them are both removed.
    """
    if b"\\" in block:
        block = block.replace(b"\\\\", b"").replace(b'\\"', b"")
    return block.translate(_DIGITS, _OTHERS).replace(b'""', b"")


def _peak(digits: bytes, depth: int) -> int:
    """Return the highest nesting level that ``digits`` reach, starting at level ``depth``.

    In ``digits``, 1 is an opening bracket and 0 a closing one.
    """
    size = (len(digits) + 7) // 8
    brackets = int(digits.ljust(8 * size, b"0"), 2).to_bytes(size, "big")
    before = accumulate(array("b", brackets.translate(_RISES)), initial=depth)
    peaks: map[int] = map(add, before, brackets.translate(_PEAKS))
    return max(peaks)
