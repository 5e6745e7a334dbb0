"""Check of the write-ahead log at the start: a torn end is normal after a crash, damage before later commits is not.

SQLite reads the log up to the last commit before the first bad frame, and ignores the rest. After a crash in the middle
of a commit this is right, because that commit was never confirmed. If the bad frame is followed by a later commit, the
bad frame was on disk before, because each commit is synced before the next one begins. Then acknowledged commits would
be lost silently.

Behind the last commit there may also be intact frames that mean nothing: the rest of a failed commit that a shorter
commit overwrote, see ``writer``. Each frame's checksum continues that of the frame before it. A later commit therefore
is one whose chain of checksums begins in the bad frame's transaction, or before it. The rest of a failed commit ends
with its own commit frame, so no chain leads from it to another.

The number of pages in a frame's header tells whether the frame ends a transaction. If only this number is damaged and
reads 0, the bad frame would count as a part of the transaction behind it, and one later commit as its end. The checksum
in the header still tells the number that was written, so the bad frame counts as a commit. A torn write cannot look
like this: the last transaction has no commit behind it that continues its checksums.

Only the headers of the frames behind the last commit are read, and the pages of at most two transactions.
"""

from __future__ import annotations

import mmap
import sqlite3
import struct
from collections import Counter
from contextlib import closing
from pathlib import Path

from msgspec import Struct

HEADER, FRAME = 32, 24  #: bytes of the log's header and of each frame's header
_MAGIC = (0x377F0682, 0x377F0683)  #: checksums of little and big endian numbers
_WORD = 0xFFFFFFFF
_LAST_COMMIT = 16  #: position of the number of frames up to the last commit, in the index of the log
_MOST_PAGES = 4096  #: pages whose checksums are computed for one chain, which takes half a second

_Sum = tuple[int, int]


class Frame(Struct, frozen=True):
    number: int  #: from 1
    size: int  #: pages of the database after the commit; 0: this frame does not end a transaction
    salts: bytes
    sum: _Sum


def log_problem(path: Path) -> str:
    """Return why the write-ahead log at ``path`` must not be used, or an empty text. ``path`` is the database's.

    A log without transactions, or none at all, has no problem. The function blocks the calling thread.
    """
    log = Path(f"{path.resolve()}-wal")
    if not log.exists() or log.stat().st_size <= HEADER + FRAME:
        return ""
    with log.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        frames = Frames(content)
        if not frames.header_is_sound:
            return "its header is damaged" if frames.follows_itself else ""
        try:
            last_commit = _last_commit(path)
        except sqlite3.DatabaseError:
            return ""  # the database itself cannot be read, which the next checks report
        return _problem(frames, last_commit)


def _last_commit(path: Path) -> int:
    """Return the number of frames up to the last commit that SQLite finds in the log."""
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
        database.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        index = Path(f"{path.resolve()}-shm").read_bytes()[:48]
    return int(struct.unpack_from("=I", index, _LAST_COMMIT)[0])


def _problem(frames: Frames, last_commit: int) -> str:
    bad = frames.first_bad(last_commit)
    if bad is None:
        return ""
    # The damage may be in the salts of the bad frame, so that frame counts whatever they are.
    commits = [one for one in frames.current(bad.number + 1) if one.size]
    if bad.size or (commits and frames.is_commit(bad, commits[0])):
        commits.insert(0, bad)
    if len(commits) < 2:
        return ""
    end, later = commits[:2]
    starts = [end.sum] if end.number != bad.number else [end.sum, frames.sum_of(bad)]
    if any(frames.is_chain(start, end.number + 1, later.number) for start in starts):
        return (
            f"frame {bad.number} is damaged, and the commits from frame {last_commit + 1} to {later.number} and later"
            " would be lost"
        )
    return ""


class Frames:
    """Frames of a write-ahead log. If its header is damaged, ``page_size`` and the first frames replace it."""

    def __init__(self, content: mmap.mmap, page_size: int = 0) -> None:
        self._content, self.guessed = content, bool(page_size)
        magic, _, page, _ = struct.unpack_from(">4I", content)
        self.page_size = page_size or int(page)
        starts = range(HEADER + 8, len(content), FRAME + self.page_size)[:9] if page_size else ()
        [(self.salts, _)] = Counter(content[at : at + 8] for at in starts or (16,)).most_common(1)
        self._words = "<" if magic == _MAGIC[0] or page_size else ">"
        self._known = magic in _MAGIC and self.page_size >= 512 and self.page_size & (self.page_size - 1) == 0
        self._known = self._known or self.guessed
        self.count = (len(content) - HEADER) // (FRAME + self.page_size) if self._known else 0

    @property
    def header_is_sound(self) -> bool:
        stored = struct.unpack_from(">2I", self._content, 24)
        return self._known and self._add((0, 0), self._content[:24]) == stored

    @property
    def follows_itself(self) -> bool:
        """Return whether the log has frames although its header is damaged. SQLite would ignore them."""
        return any(self._content[:HEADER]) and any(self._content[HEADER : HEADER + FRAME])

    def frame(self, number: int) -> Frame:
        at = self.position(number)
        _, size = struct.unpack_from(">2I", self._content, at)
        return Frame(number, size, self._content[at + 8 : at + 16], struct.unpack_from(">2I", self._content, at + 16))

    def page_of(self, number: int) -> int:
        """Return the number of the page in a frame."""
        return int.from_bytes(self._content[self.position(number) : self.position(number) + 4], "big")

    def current(self, first: int) -> list[Frame]:
        """Return the frames from ``first`` on that were written since the log was last begun anew."""
        found = [self.frame(number) for number in range(first, self.count + 1)]
        return [one for one in found if one.salts == self.salts]

    def first_bad(self, last_commit: int) -> Frame | None:
        """Return the first frame behind the last commit whose checksum does not match."""
        before = self.sum_before(last_commit + 1)
        for number in range(last_commit + 1, min(self.count, last_commit + _MOST_PAGES) + 1):
            one = self.frame(number)
            if one.salts != self.salts or self.next_sum(before, number) != one.sum:
                return one
            before = one.sum
        return None

    def sum_of(self, one: Frame) -> _Sum:
        """Return the checksum that a frame should have, after the frame before it."""
        return self.next_sum(self.sum_before(one.number), one.number)

    def is_commit(self, one: Frame, later: Frame) -> bool:
        """Return whether a frame ended a transaction when it was written, before that of ``later``.

        The checksum is computed backwards from its end to the beginning of the page. One half of it then tells whether
        only the number of pages is damaged, the other one has that number. The upper bits of some words of the page
        hardly change the first half, so the number must be possible, too: a database grows by pages that are written.
        """
        page, size = self.written_header(one)
        return page == self.page_of(one.number) and size > 0 and 0 <= later.size - size <= later.number - one.number

    def written_header(self, one: Frame) -> tuple[int, int]:
        """Return the number of its page, and the size, with which a frame was written, by its checksum and content."""
        before, at = self.sum_before(one.number), self.position(one.number)
        low, high = one.sum
        numbers = self._numbers(self._content[at + FRAME : self.position(one.number + 1)])
        for position in range(len(numbers) - 2, -2, -2):
            high = (high - numbers[position + 1] - low) & _WORD
            low = (low - numbers[position] - high) & _WORD
        written = (low - before[0] - before[1]) & _WORD, (high - before[1] - low) & _WORD
        page, size = struct.unpack(">2I", struct.pack(f"{self._words}2I", *written))
        return page, size

    def is_chain(self, before: _Sum, first: int, last: int) -> bool:
        """Return whether the checksums of the frames continue each other, from ``before`` on.

        Of a long chain, only the beginning is checked: one frame that continues ``before`` was written after it.
        """
        for number in range(first, min(last, first + _MOST_PAGES) + 1):
            stored = self.frame(number).sum
            if self.next_sum(before, number) != stored:
                return False
            before = stored
        return True

    def sum_before(self, number: int) -> _Sum:
        """Return the checksum that a frame continues: that of the frame before it, or of the header."""
        return self.frame(number - 1).sum if number > 1 else struct.unpack_from(">2I", self._content, 24)

    def next_sum(self, before: _Sum, number: int) -> _Sum:
        at = self.position(number)
        page = self._content[at + FRAME : self.position(number + 1)]
        return self._add(self._add(before, self._content[at : at + 8]), page)

    def _add(self, before: _Sum, content: bytes) -> _Sum:
        """Return the checksum of SQLite's log after ``content``, of which each 8 bytes are two numbers."""
        one, two = before
        numbers = self._numbers(content)
        for first, second in zip(numbers[::2], numbers[1::2], strict=True):
            one = (one + first + two) & _WORD
            two = (two + second + one) & _WORD
        return one, two

    def _numbers(self, content: bytes) -> tuple[int, ...]:
        return struct.unpack(f"{self._words}{len(content) // 4}I", content)

    def position(self, number: int) -> int:
        return HEADER + (number - 1) * (FRAME + self.page_size)
