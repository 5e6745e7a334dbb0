"""Pages in the write-ahead log of a damaged database, also behind damaged frames.

SQLite ignores all frames behind the first bad one. Each checksum continues the stored checksum of the frame before it,
so the frames behind a damaged one can still be checked. If only its header is damaged, the frame is usable, too;
otherwise its page is lost, because the version in the database file is out of date.
"""

from __future__ import annotations

import mmap
from itertools import pairwise
from pathlib import Path

from msgspec import Struct

from engine.storage.sqlite.wal_check import FRAME, HEADER, Frame, Frames

PAGE = 4096  #: bytes of a page in each journal


class LogPages(Struct, frozen=True, kw_only=True):
    """Committed pages of a log."""

    content: mmap.mmap | bytes = b""
    count: int = 0  #: pages of the database after the last commit
    pages: dict[int, int | None] = {}  #: by number: position of the content; None: the newest version is damaged
    problem: str = ""  #: damage before commits that are intact


def read_log(path: Path) -> LogPages:
    """Return the committed pages of a log. A missing one, and one without transactions, has none."""
    if not path.exists() or path.stat().st_size <= HEADER + FRAME:
        return LogPages()
    with path.open("rb") as file:
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    frames, problem = Frames(content), ""
    if not frames.header_is_sound:
        if not frames.follows_itself:
            return LogPages()
        frames, problem = Frames(content, PAGE), "its header is damaged"
    pages, written, lost = dict[int, int | None](), dict[int, int | None](), 0
    count, last_commit, damaged_behind, most, before = 0, 0, -1, 0, frames.sum_before(1)
    for number in range(1, frames.count + 1):
        one, after = frames.frame(number), frames.next_sum(before, number)
        page, size = frames.page_of(number), one.size
        position: int | None = frames.position(number) + FRAME
        before = one.sum
        trusted = number == 1 and frames.guessed  # the checksum before it is in the damaged header
        if one.salts != frames.salts or (after != one.sum and not trusted):
            if damaged_behind != last_commit:
                later = _later_commit(frames, number)
                if later is None:
                    break  # a torn end: these transactions were never confirmed
                problem, damaged_behind = problem or f"frame {number} is damaged before intact commits", last_commit
                most = max(count, later.size) + frames.count
            header = frames.written_header(one)
            if 0 < header[0] <= most and header[1] <= most:
                page, size = header
            elif number < frames.count and frames.next_sum(after, number + 1) == frames.frame(number + 1).sum:
                before = after  # only the checksum is damaged
            else:
                page, size, position = page * (page <= most), size * (size <= most), None
                lost += not page
        if page:
            written[page] = position
        if size:
            pages.update(written)
            written.clear()
            count, last_commit = size, number
    if lost:
        problem += f"; {lost} pages are lost, so that some rows may be as they were before"
    return LogPages(content=content, count=count, pages=pages, problem=problem)


def _later_commit(frames: Frames, number: int) -> Frame | None:
    """Return the first commit behind a frame that continues the checksums of another one behind it.

    The rest of a failed commit, which a shorter one overwrote, has no such pair.
    """
    commits = [one for one in frames.current(number + 1) if one.size]
    pairs = ((one, later) for one, later in pairwise(commits) if frames.is_chain(one.sum, one.number + 1, later.number))
    return next((later for _, later in pairs), None)
