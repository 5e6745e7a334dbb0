"""Files of logs that the journal does not store, in the format of ``engine.logs.lines``.

    xx/<request_id>                     whole log of a first attempt, if longer than the tail stored in the journal
    xx/<request_id>.<n>                 the same of attempt n, from 2 on
    i<function_id>/<first time>-<any>   lines of an instance that belong to no request

The files together have a size limit, above which the oldest files are deleted. Files are not synchronised to disk. A
standby that takes over on another machine has only the tails, which are in the journal. No method raises an error,
because a full disk must not turn a success into a failure. Methods may block.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from threading import Lock

from engine.executors.log_buffer import Written
from engine.logs.lines import TAIL
from engine.model.retry import HISTORY

SHOWN = 1 << 20  #: bytes; stop reading instances' lines beyond this
_REMAINING_SHARE = 0.9  #: share of the limit that remains after the oldest were deleted


def log_file(folder: Path, request_id: str, attempt: int = 1) -> Path:
    name = request_id if attempt == 1 else f"{request_id}.{attempt}"
    return folder / request_id[11:13] / name  # low bits of the request's millisecond: 256 folders


class LogFiles:
    """Log files of one data directory. Methods may be called from any thread."""

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder, self._limit = folder, limit
        self._lock = Lock()
        self._size: int | None = None  #: upper bound of the total bytes; None until the first write

    def keep(self, request_id: str, written: Written, attempt: int = 1) -> None:
        """Write the log of an attempt to a file, in place of one of the same attempt that a crash interrupted.

        A log of at most ``TAIL`` bytes gets no file, because the Outcome contains the whole log. Files of attempts that
        the history no longer has are deleted.
        """
        file = log_file(self._folder, request_id, attempt)
        try:
            if attempt > HISTORY:
                log_file(self._folder, request_id, attempt - HISTORY).unlink(missing_ok=True)
            if len(written.kept) <= TAIL:
                file.unlink(missing_ok=True)
                return
            file.parent.mkdir(parents=True, exist_ok=True)
            self._add_size(file.write_bytes(written.whole()))
        except OSError:
            pass  # the tail is in the Outcome

    def read(self, request_id: str, attempt: int = 1) -> bytes | None:
        """Return the log of an attempt.

        Return None if there is no file: the log was short, or the file was deleted.
        """
        try:
            return log_file(self._folder, request_id, attempt).read_bytes()
        except OSError:
            return None

    def remove(self, request_ids: Iterable[str], attempts: Mapping[str, int]) -> None:
        """Delete the logs of invocations. ``attempts`` has the last attempts of those that had several."""
        for request_id in request_ids:
            last = attempts.get(request_id, 1)
            for attempt in {1, *range(max(1, last - HISTORY), last + 1)}:
                with suppress(OSError):
                    log_file(self._folder, request_id, attempt).unlink(missing_ok=True)

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
