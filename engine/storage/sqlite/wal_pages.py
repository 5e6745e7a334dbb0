"""Pages in the write-ahead log, also behind damaged frames.

SQLite ignores all frames behind the first bad one. After a crash in the middle of a commit this is right, because that
commit was never confirmed. If the bad frame is followed by a later commit, it was on disk before, because each commit
is synced before the next one begins. Then acknowledged commits would be lost silently.

Each checksum continues the stored checksum of the frame before it, so the frames behind a damaged one can still be
checked. If only its header is damaged, the frame is usable, too: its checksum still tells the header that was written.
Otherwise its page is lost, because the version in the database file is out of date.
"""

from __future__ import annotations

import os
from pathlib import Path
from weakref import finalize

from engine.storage.sqlite.wal_frames import FRAME, HEADER, PAGE, Frames


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
        written, lost, last_commit, damaged_behind, most = dict[int, int | None](), 0, first - 1, 0, 0
        before = log.sum_before(first)
        for number in range(first, log.count + 1):
            one, after = log.frame(number), log.next_sum(before, number)
            before, page, size, usable = one.sum, one.page, one.size, True
            trusted = number == 1 and log.guessed  # the checksum before it is in the damaged header
            if one.salts != log.salts or (after != one.sum and not trusted):
                if damaged_behind <= last_commit:
                    later = log.later_commit(one)
                    if later is None:
                        break  # a torn end: these transactions were never confirmed
                    self.problem = self.problem or (
                        f"frame {number} is damaged, and the commits from frame {last_commit + 1} to {later.number} and"
                        " later would be lost"
                    )
                    damaged_behind, most = last_commit + 1, max(self.count, later.size) + log.count
                header = log.written_header(one)
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
