"""Write-ahead log of SQLite, read without SQLite: its frames and pages. See https://sqlite.org/walformat.html.

SQLite ignores all frames behind the first bad one. After a crash in the middle of a commit this is right, because that
commit was never confirmed. If the bad frame is followed by a later commit, it was on disk before, because each commit
is synced before the next one begins. Then acknowledged commits would be lost silently.

Each checksum continues the stored checksum of the frame before it, so the frames behind a damaged one can still be
checked. If only its header is damaged, the frame is usable, too: its checksum still tells the header that was written.
Otherwise its page is lost, because the version in the database file is out of date.
"""

from __future__ import annotations

import os
import struct
from collections import Counter
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from weakref import finalize

from msgspec import Struct

PAGE = 4096  #: bytes of a page in each journal
HEADER, FRAME = 32, 24  #: bytes of the log's header and of each frame's header
_MAGIC = (0x377F0682, 0x377F0683)  #: checksums of little and big endian numbers
_WORD = 0xFFFFFFFF
_MOST_PAGES = 4096  #: pages whose checksums are computed for one chain, which takes half a second

Sum = tuple[int, int]


class Frame(Struct, frozen=True):
    number: int  #: from 1
    page: int  #: of the database
    size: int  #: pages of the database after the commit; 0: this frame does not end a transaction
    salts: bytes
    sum: Sum


class Frames:
    """Frames of the log in ``file``. If its header is damaged, ``page_size`` and the first frames replace it.

    The log is read, not mapped to memory, where a bad sector ends the process. A bad sector reads as zeros.
    """

    def __init__(self, file: int, page_size: int = 0) -> None:
        self._file, self.guessed, size = file, bool(page_size), os.fstat(file).st_size
        magic, _, page, _ = struct.unpack(">4I", self._read(0, 16))
        self.page_size = page_size or int(page)
        starts = range(HEADER + 8, size, FRAME + self.page_size)[:9] if page_size else ()
        [(self.salts, _)] = Counter(self._read(at, 8) for at in starts or (16,)).most_common(1)
        self._words = "<" if magic == _MAGIC[0] or page_size else ">"
        sound = magic in _MAGIC and self.page_size >= 512 and self.page_size & (self.page_size - 1) == 0
        self._known = sound or self.guessed
        self.count = (size - HEADER) // (FRAME + self.page_size) if self._known else 0

    @property
    def header_is_sound(self) -> bool:
        return self._known and self._add((0, 0), self._read(0, 24)) == self.sum_before(1)

    @property
    def follows_itself(self) -> bool:
        """Return whether the log has frames although its header is damaged. SQLite would ignore them."""
        return any(self._read(0, HEADER)) and any(self._read(HEADER, FRAME))

    def frame(self, number: int) -> Frame:
        page, size, salts, *stored = struct.unpack(">2I8s2I", self._read(self._position(number), FRAME))
        return Frame(number, page, size, salts, (stored[0], stored[1]))

    def content(self, number: int) -> bytes:
        """Return the page in a frame."""
        return self._read(self._position(number) + FRAME, self.page_size)

    def later_commit(self, bad: Frame) -> Frame | None:
        """Return the first commit that continues the checksums of an earlier one, both at or behind a bad frame.

        The rest of a failed commit, which a shorter one overwrote, has no such pair. The damage may be in the salts of
        the bad frame, so that frame counts whatever they are.
        """
        commits = [
            frame for frame in map(self.frame, range(bad.number + 1, self.count + 1)) if frame.salts == self.salts
        ]
        commits = [commit for commit in commits if commit.size]
        page, size = self.written_header(bad)
        # The upper bits of some words of a page hardly change one half of the checksum, so the number of pages must be
        # possible, too: a database grows by pages that are written.
        ended = page == bad.page and size > 0
        if bad.size or (commits and ended and 0 <= commits[0].size - size <= commits[0].number - bad.number):
            commits.insert(0, bad)
        for earlier, later in pairwise(commits):
            sums = (
                (earlier.sum, self.next_sum(self.sum_before(earlier.number), earlier.number))
                if earlier is bad
                else (earlier.sum,)
            )
            if any(self._is_chain(start, earlier.number + 1, later.number) for start in sums):
                return later
        return None

    def written_header(self, frame: Frame) -> tuple[int, int]:
        """Return the number of its page, and the size, with which a frame was written, by its checksum and content.

        The checksum is computed backwards from its end to the beginning of the page.
        """
        before, (low, high) = self.sum_before(frame.number), frame.sum
        numbers = self._numbers(self.content(frame.number))
        for position in range(len(numbers) - 2, -2, -2):
            high = (high - numbers[position + 1] - low) & _WORD
            low = (low - numbers[position] - high) & _WORD
        written = (low - before[0] - before[1]) & _WORD, (high - before[1] - low) & _WORD
        page, size = struct.unpack(">2I", struct.pack(f"{self._words}2I", *written))
        return page, size

    def sum_before(self, number: int) -> Sum:
        """Return the checksum that a frame continues: that of the frame before it, or of the header."""
        return self.frame(number - 1).sum if number > 1 else struct.unpack(">2I", self._read(24, 8))

    def next_sum(self, before: Sum, number: int) -> Sum:
        """Return the checksum of a frame after ``before``."""
        return self._add(self._add(before, self._read(self._position(number), 8)), self.content(number))

    def _is_chain(self, before: Sum, first: int, last: int) -> bool:
        """Return whether the checksums of the frames continue each other, from ``before`` on.

        Of a long chain, only the beginning is checked: one frame that continues ``before`` was written after it.
        """
        for number in range(first, min(last, first + _MOST_PAGES) + 1):
            stored = self.frame(number).sum
            if self.next_sum(before, number) != stored:
                return False
            before = stored
        return True

    def _add(self, before: Sum, content: bytes) -> Sum:
        """Return the checksum of SQLite's log after ``content``, of which each 8 bytes are two numbers."""
        one, two = before
        numbers = self._numbers(content)
        for first, second in zip(numbers[::2], numbers[1::2], strict=True):
            one = (one + first + two) & _WORD
            two = (two + second + one) & _WORD
        return one, two

    def _numbers(self, content: bytes) -> tuple[int, ...]:
        return struct.unpack(f"{self._words}{len(content) // 4}I", content)

    def _read(self, begin: int, size: int) -> bytes:
        content = b""
        with suppress(OSError):
            content = os.pread(self._file, size, begin)
        return content.ljust(size, b"\0")

    def _position(self, number: int) -> int:
        return HEADER + (number - 1) * (FRAME + self.page_size)


class LogPages:
    """Committed pages of a log, from frame ``first`` on. A missing log, and one without transactions, has none."""

    def __init__(self, path: Path, first: int = 1) -> None:
        self.count = 0  #: pages of the database after the last commit
        self.pages: dict[int, int | None] = {}  #: by number: the frame; None: the newest version is damaged
        self.problem = ""  #: damage before commits that are intact
        self.frames: Frames | None = None
        if path.exists() and path.stat().st_size > HEADER + FRAME:
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            finalize(self, os.close, file)
            frames = Frames(file)
            if not frames.header_is_sound and frames.follows_itself:
                frames, self.problem = Frames(file, PAGE), "its header is damaged"
            if frames.header_is_sound or self.problem:
                self.frames = frames
                self._read(frames, first)

    def content(self, page: int) -> bytes | None:
        """Return the newest version of a page; None if the database file has it, nothing if it is lost."""
        if self.frames is None or page not in self.pages:
            return None
        frame = self.pages[page]
        return self.frames.content(frame) if frame else b""

    def _read(self, log: Frames, first: int) -> None:
        written, last_commit = dict[int, int | None](), first - 1
        lost = damaged_behind = most = 0
        before = log.sum_before(first)
        for number in range(first, log.count + 1):
            frame, after = log.frame(number), log.next_sum(before, number)
            before, page, size = frame.sum, frame.page, frame.size
            usable = True
            trusted = number == 1 and log.guessed  # the checksum before it is in the damaged header
            if frame.salts != log.salts or (after != frame.sum and not trusted):
                if damaged_behind <= last_commit:
                    later = log.later_commit(frame)
                    if later is None:
                        break  # a torn end: these transactions were never confirmed
                    self.problem = self.problem or (
                        f"frame {number} is damaged, and the commits from frame {last_commit + 1} to {later.number} and"
                        " later would be lost"
                    )
                    damaged_behind, most = last_commit + 1, max(self.count, later.size) + log.count
                header = log.written_header(frame)
                if 0 < header[0] <= most and header[1] <= most:
                    page, size = header
                elif number < log.count and log.next_sum(after, number + 1) == log.frame(number + 1).sum:
                    before = after  # only the checksum is damaged
                else:
                    page, size, usable = page * (page <= most), size * (size <= most), False
                    lost += not page
            if page:
                written[page] = number if usable else None
            if size:
                self.pages.update(written)
                written.clear()
                self.count, last_commit = size, number
        if lost:
            self.problem += f"; {lost} pages are lost, so that some rows may be as they were before"
