"""Logs of attempts and instances: buffers of the newest lines, files of what the journal does not store, the recorder.

Files are in the format of ``engine.logs.lines``:

    r<function_id>/<request_id>         whole log of a first attempt, if longer than the tail stored in the journal
    r<function_id>/<request_id>.<n>     the same of attempt n, from 2 on
    i<function_id>/<first time>-<any>   lines of an instance that belong to no request
    xx/<request_id>                     log of an attempt by an earlier engine

The files together have a size limit, above which files are deleted: the oldest of the project with most. Files are not
synchronised to disk. A standby that takes over on another machine has only the tails, which are in the journal.
"""

from __future__ import annotations

import os
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import NamedTuple

from engine.logs.feed import LogBoard
from engine.logs.lines import ERROR, NOTE, TAIL, encode, last
from engine.model import Function, Invocation
from engine.model.clock import Clock
from engine.model.retry import HISTORY

SHOWN = 1 << 20  #: bytes; stop reading instances' lines beyond this
_OWN_LIMIT = 64 << 10  #: bytes of an instance's own lines
_REMAINING_SHARE = 0.9  #: share of the limit that remains after the oldest were deleted


class Written(NamedTuple):
    """Log lines in the format of ``engine.logs.lines``, and the number of older bytes dropped before them."""

    kept: bytes
    dropped: int

    def whole(self) -> bytes:
        """Return the lines, after a note on the dropped bytes if there are any."""
        if not self.dropped:
            return self.kept
        at = int(self.kept[:13])
        return encode(at, NOTE, b"[%d bytes before this were dropped]" % self.dropped) + self.kept


NOTHING = Written(b"", 0)


class LogBuffer:
    """Newest log lines of one request, or of an instance if ``invocation`` is None, up to ``limit`` bytes."""

    def __init__(self, invocation: Invocation | None, limit: int) -> None:
        self.invocation = invocation
        self._limit = limit
        self._lines = bytearray()
        self._dropped = 0

    def add(self, lines: bytes) -> None:
        """Append lines in the format of ``engine.logs.lines``."""
        self._lines += lines
        if len(self._lines) > 2 * self._limit + (1 << 16):  # rarely, because the kept lines are copied
            self._shorten()

    def written(self) -> Written:
        """Return the buffered lines and the number of bytes dropped up to now."""
        if not self._lines:
            return NOTHING
        if len(self._lines) > self._limit:
            self._shorten()
        return Written(bytes(self._lines), self._dropped)

    def _shorten(self) -> None:
        kept = last(bytes(self._lines), self._limit)
        self._dropped += len(self._lines) - len(kept)
        self._lines[:] = kept


def log_file(folder: Path, function_id: int, request_id: str, attempt: int = 1) -> Path:
    name = request_id if attempt == 1 else f"{request_id}.{attempt}"
    earlier = folder / request_id[11:13] / name
    return earlier if earlier.exists() else folder / f"r{function_id}" / name


class LogFiles:
    """Log files of one data directory. Methods may be called from any thread, and may block.

    No method raises an error, because a full disk must not turn a success into a failure.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder, self._limit = folder, limit
        self.project_of: Callable[[int], str] = lambda function_id: ""  #: set when the engine is wired
        self._lock = Lock()
        self._size: int | None = None  #: upper bound of the total bytes; None until the first write

    def keep(self, function_id: int, request_id: str, written: Written, attempt: int = 1) -> None:
        """Write the log of an attempt to a file, in place of one of the same attempt that a crash interrupted.

        A log of at most ``TAIL`` bytes gets no file, because the Outcome contains the whole log. Files of attempts that
        the history no longer has are deleted.
        """
        file = log_file(self._folder, function_id, request_id, attempt)
        try:
            if attempt > HISTORY:
                log_file(self._folder, function_id, request_id, attempt - HISTORY).unlink(missing_ok=True)
            if len(written.kept) <= TAIL:
                file.unlink(missing_ok=True)
                return
            file.parent.mkdir(parents=True, exist_ok=True)
            self._add_size(file.write_bytes(written.whole()))
        except OSError:
            pass  # the tail is in the Outcome

    def read(self, function_id: int, request_id: str, attempt: int = 1) -> bytes | None:
        """Return the log of an attempt.

        Return None if there is no file: the log was short, or the file was deleted.
        """
        try:
            return log_file(self._folder, function_id, request_id, attempt).read_bytes()
        except OSError:
            return None

    def remove(self, invocations: Iterable[tuple[int, str]], attempts: Mapping[str, int]) -> None:
        """Delete the logs of invocations, each given by function and request id.

        ``attempts`` has the last attempts of those that had several.
        """
        for function_id, request_id in invocations:
            last = attempts.get(request_id, 1)
            for attempt in {1, *range(max(1, last - HISTORY), last + 1)}:
                with suppress(OSError):
                    log_file(self._folder, function_id, request_id, attempt).unlink(missing_ok=True)

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
                self._size = sum(file[1] for file in self._files())
            else:
                self._size += size
            if self._size > self._limit:
                self._size = self._delete_some()

    def _delete_some(self) -> int:
        """Delete the oldest files of the project with most, until ``_REMAINING_SHARE`` of the size limit remains.

        Return the remaining size in bytes.
        """
        files: defaultdict[str, list[tuple[int, int, str]]] = defaultdict(list)
        sizes = Counter[str]()
        for file in sorted(self._files(), reverse=True):
            folder = os.path.basename(os.path.dirname(file[2]))
            project = self.project_of(int(folder[1:])) if folder[0] in "ir" else ""
            files[project].append(file)
            sizes[project] += file[1]
        while sizes.total() > self._limit * _REMAINING_SHARE:
            [(project, _)] = sizes.most_common(1)
            _, size, path = files[project].pop()
            os.unlink(path)
            sizes[project] -= size
        return sizes.total()

    def _files(self) -> Iterable[tuple[int, int, str]]:
        """Yield the modification time, the size in bytes and the path of each log file."""
        for folder in os.scandir(self._folder):
            for entry in os.scandir(folder.path):
                status = entry.stat()
                yield status.st_mtime_ns, status.st_size, entry.path


class LogRecorder:
    """Recorder of the output of instances.

    Adds lines to the buffer of their request and publishes them on the log board. ``limit`` is the size of a request's
    buffer in bytes. Lines that belong to no request go to ``files`` when their instance has ended.
    """

    def __init__(self, files: LogFiles, *, limit: int, clock: Clock, board: LogBoard) -> None:
        self._files, self._limit, self._clock, self._board = files, limit, clock, board
        self._thread = ThreadPoolExecutor(1, "functiond-log")

    def now(self) -> int:
        """Return the time in milliseconds since the epoch, for raw output, which contains no time."""
        return int(self._clock.now() * 1000)

    def begin(self, invocation: Invocation | None) -> LogBuffer:
        return LogBuffer(invocation, self._limit if invocation else min(self._limit, _OWN_LIMIT))

    def write(self, buffer: LogBuffer, function: Function, instance: str, at: int, stream: int, text: bytes) -> None:
        lines = encode(at, stream, text)
        buffer.add(lines)
        if self._board.forwarder is not None:
            self._board.forwarder.add(function, buffer.invocation, instance, at, stream, text)
        self._board.publish(function, buffer.invocation, lines)

    def end(self, function: Function, invocation: Invocation, instance: str, error: str) -> bytes:
        """Publish the error with which a run ends. Return its lines."""
        buffer = LogBuffer(invocation, SHOWN)
        self.write(buffer, function, instance, self.now(), ERROR, error.encode("utf-8", "replace"))
        return buffer.written().kept

    def keep(self, function_id: int, log_buffer: LogBuffer) -> None:
        """Write the lines of an ended instance that belong to no request to a file, in a thread."""
        self._thread.submit(self._files.keep_instance, function_id, log_buffer.written())

    def close(self) -> None:
        """Wait until all files are written. Blocks."""
        self._thread.shutdown()
