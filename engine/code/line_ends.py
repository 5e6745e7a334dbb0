"""Line ends of a text that was edited in a browser, which sends one kind only."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher

_END = re.compile(r"\r\n|\r|\n")
#: Lines between the first and the last changed one that are compared. More could take minutes.
COMPARED = 2_000


def with_line_ends(text: str, before: str) -> str:
    """Return ``text``, whose lines end in ``\\n``, with the line ends of the text that it was made from.

    Unchanged lines keep their ends. Other lines get the most common one, and so do those between the first and the last
    changed line if there are more than ``COMPARED``.
    """
    ends = _END.findall(before)
    usual = Counter(ends).most_common(1)[0][0] if ends else "\n"
    if len(set(ends)) < 2:
        return text.replace("\n", usual)
    lines = text.split("\n")
    kept = {new: ends[old] for old, new in _unchanged(_END.split(before), lines) if old < len(ends)}
    return "".join(line + kept.get(number, usual) for number, line in enumerate(lines[:-1])) + lines[-1]


def _unchanged(old: Sequence[str], new: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Yield the numbers of each unchanged line in both texts."""
    shorter = min(len(old), len(new))
    first = next((n for n in range(shorter) if old[n] != new[n]), shorter)
    rest = shorter - first
    last = next((n for n in range(rest) if old[-1 - n] != new[-1 - n]), rest)
    yield from ((n, n) for n in range(first))
    changed = old[first : len(old) - last], new[first : len(new) - last]
    if max(map(len, changed)) <= COMPARED:
        for begin, new_begin, size in SequenceMatcher(None, *changed).get_matching_blocks():
            yield from ((first + begin + n, first + new_begin + n) for n in range(size))
    yield from ((len(old) - last + n, len(new) - last + n) for n in range(last))
