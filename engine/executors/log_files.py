"""Logs that the journal does not keep whole, as files in the format of ``engine.logs.lines``.

    xx/<request_id>                     longer than the tail in the invocation's row
    i<function_id>/<first time>-<any>   what an instance has written that belongs to no request

Together they have a bound; beyond it the oldest go. Nothing here is synchronised to disk, and nothing raises: a log is
a help, not a promise, and a full disk must not turn a success into a failure. All methods may block.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from threading import Lock

from engine.executors.log_buffer import Written
from engine.logs.lines import TAIL

SHOWN = 1 << 20  #: bytes of instances' lines that are read at most, the newest
_LEFT = 0.9  #: share of the bound that is left when the oldest have gone


def log_file(folder: Path, request_id: str) -> Path:
    return folder / request_id[11:13] / request_id  # the low bits of its millisecond: 256 folders


class LogFiles:
    """Used from several threads."""

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder, self._limit = folder, limit
        self._lock = Lock()
        self._size: int | None = None  #: no less than what they have together; unknown before the first

    def keep(self, request_id: str, written: Written) -> None:
        """Write the log of an invocation's newest attempt, or drop that of an earlier one."""
        file = self._file(request_id)
        try:
            if len(written.kept) <= TAIL:
                file.unlink(missing_ok=True)
                return
            file.parent.mkdir(parents=True, exist_ok=True)
            self._note(file.write_bytes(written.whole()))
        except OSError:
            pass  # the tail is in the Outcome

    def read(self, request_id: str) -> bytes | None:
        """None if there is none: the tail is all, or the file had to go."""
        try:
            return self._file(request_id).read_bytes()
        except OSError:
            return None

    def remove(self, request_ids: Iterable[str]) -> None:
        for request_id in request_ids:
            with suppress(OSError):
                self._file(request_id).unlink(missing_ok=True)

    def keep_instance(self, function_id: int, written: Written) -> None:
        """Write what an instance has left."""
        name = f"{written.kept[:13].decode()}-{uuid.uuid4().hex[:8]}"
        with suppress(OSError):
            folder = self._of_instances(function_id)
            folder.mkdir(parents=True, exist_ok=True)
            self._note((folder / name).write_bytes(written.whole()))

    def read_instances(self, function_id: int) -> bytes:
        """What instances of a function have left, the latest ``SHOWN`` bytes or a little more."""
        pieces: list[bytes] = []
        with suppress(OSError):
            for file in sorted(self._of_instances(function_id).iterdir(), reverse=True):
                pieces.append(file.read_bytes())
                if sum(map(len, pieces)) >= SHOWN:
                    break
        return b"".join(reversed(pieces))

    def expire_instances(self, before: float) -> None:
        """Drop what instances left that ended earlier than that."""
        with suppress(OSError):
            for file in self._folder.glob("i*/*"):
                if file.stat().st_mtime < before:
                    file.unlink()

    def _of_instances(self, function_id: int) -> Path:
        return self._folder / f"i{function_id}"

    def _file(self, request_id: str) -> Path:
        return log_file(self._folder, request_id)

    def _note(self, size: int) -> None:
        with self._lock:
            if self._size is None:
                self._size = sum(found[1] for found in self._found())
            else:
                self._size += size
            if self._size > self._limit:
                self._size = self._make_room()

    def _make_room(self) -> int:
        """The oldest go; gives what is left, in bytes."""
        found = sorted(self._found())
        left = sum(size for _, size, _ in found)
        for _, size, path in found:
            if left <= self._limit * _LEFT:
                break
            os.unlink(path)
            left -= size
        return left

    def _found(self) -> Iterable[tuple[int, int, str]]:
        """When each was written, its bytes, its path."""
        for folder in os.scandir(self._folder):
            for entry in os.scandir(folder.path):
                status = entry.stat()
                yield status.st_mtime_ns, status.st_size, entry.path
