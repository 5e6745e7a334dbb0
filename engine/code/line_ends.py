"""Line ends of a text that was edited in a browser, which sends one kind only."""

from __future__ import annotations

import re
from collections import Counter
from difflib import SequenceMatcher

_END = re.compile(r"\r\n|\r|\n")


def with_line_ends(text: str, before: str) -> str:
    """Return ``text``, whose lines end in ``\\n``, with the line ends of the text that it was made from.

    Unchanged lines keep their ends. Other lines get the most common one.
    """
    ends = _END.findall(before)
    usual = Counter(ends).most_common(1)[0][0] if ends else "\n"
    if len(set(ends)) < 2:
        return text.replace("\n", usual)
    *lines, last = text.split("\n")
    kept: dict[int, str] = {}
    for old, new, size in SequenceMatcher(None, _END.split(before), [*lines, last]).get_matching_blocks():
        kept.update(zip(range(new, new + size), ends[old : old + size], strict=False))
    return "".join(line + kept.get(number, usual) for number, line in enumerate(lines)) + last
