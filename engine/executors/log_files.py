"""Files of logs that the journal does not store, in the format of ``engine.logs.lines``.

    xx/<request_id>                     whole log of an invocation, if longer than the tail stored in the journal
    i<function_id>/<first time>-<any>   lines of an instance that belong to no request

The files together have a size limit, above which the oldest files are deleted. Files are not synchronised to disk. No
method raises an error, because a full disk must not turn a success into a failure. Methods may block.
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

SHOWN = 1 << 20  #: bytes; stop reading instances' lines beyond this
_REMAINING_SHARE = 0.9  #: share of the limit that remains after the oldest were deleted


def log_file(folder: Path, request_id: str) -> Path:
    return folder / request_id[11:13] / request_id  # low bits of the request's millisecond: 256 folders


class LogFiles:
    """Log files of one data directory. Methods may be called from any thread."""

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder, self._limit = folder, limit
        self._lock = Lock()
        self._size: int | None = None  #: upper bound of the total bytes; None until the first write

    def keep(self, request_id: str, written: Written) -> None:
        """Write the log of an invocation's newest attempt to a file, in place of the log of an earlier attempt.

        A log of at most ``TAIL`` bytes gets no file, because the Outcome contains the whole log.
        """
        file = self._file(request_id)
        try:
            if len(written.kept) <= TAIL:
                file.unlink(missing_ok=True)
                return
            file.parent.mkdir(parents=True, exist_ok=True)
            self._add_size(file.write_bytes(written.whole()))
        except OSError:
            pass  # the tail is in the Outcome

    def read(self, request_id: str) -> bytes | None:
        """Return the log of an invocation.

        Return None if there is no file: the log was short, or the file was deleted.
        """
        try:
            return self._file(request_id).read_bytes()
        except OSError:
            return None

    def remove(self, request_ids: Iterable[str]) -> None:
        for request_id in request_ids:
            with suppress(OSError):
                self._file(request_id).unlink(missing_ok=True)

    def keep_instance(self, function_id: int, written: Written) -> None:
        """Write the lines of an ended instance that belong to no request to a file."""
        name = f"{written.kept[:13].decode()}-{uuid.uuid4().hex[:8]}"
        with suppress(OSError):
            folder = self._instance_folder(function_id)
            folder.mkdir(parents=True, exist_ok=True)
            self._add_size((folder / name).write_bytes(written.whole()))

    def read_instances(self, function_id: int) -> bytes:
        """Return lines of a function's ended instances: whole files, the newest, up to about ``SHOWN`` bytes."""
        pieces: list[bytes] = []
        with suppress(OSError):
            for file in sorted(self._instance_folder(function_id).iterdir(), reverse=True):
                pieces.append(file.read_bytes())
                if sum(map(len, pieces)) >= SHOWN:
                    break
        return b"".join(reversed(pieces))

    def expire_instances(self, before: float) -> None:
        """Delete the lines of instances that ended before the given time (seconds since the epoch)."""
        with suppress(OSError):
            for file in self._folder.glob("i*/*"):
                if file.stat().st_mtime < before:
                    file.unlink()

    def _instance_folder(self, function_id: int) -> Path:
        return self._folder / f"i{function_id}"

    def _file(self, request_id: str) -> Path:
        return log_file(self._folder, request_id)

    def _add_size(self, size: int) -> None:
        with self._lock:
            if self._size is None:
                self._size = sum(found[1] for found in self._files())
            else:
                self._size += size
            if self._size > self._limit:
                self._size = self._delete_oldest()

    def _delete_oldest(self) -> int:
        """Delete the oldest files until the others take at most ``_REMAINING_SHARE`` of the size limit.

        Return the remaining size in bytes.
        """
        found = sorted(self._files())
        left = sum(size for _, size, _ in found)
        for _, size, path in found:
            if left <= self._limit * _REMAINING_SHARE:
                break
            os.unlink(path)
            left -= size
        return left

    def _files(self) -> Iterable[tuple[int, int, str]]:
        """Yield the modification time, the size in bytes and the path of each log file."""
        for folder in os.scandir(self._folder):
            for entry in os.scandir(folder.path):
                status = entry.stat()
                yield status.st_mtime_ns, status.st_size, entry.path
