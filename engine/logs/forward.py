"""Forwarding of the lines that functions log: to standard output or a file as JSON lines, or to journald.

The event loop encodes them, and hands them to a thread in batches: if the thread did, it would hold the interpreter's
lock for long. While the reader is slow, and ``LIMIT`` bytes wait, further lines are lost whole, and counted.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache, partial
from queue import SimpleQueue
from time import gmtime, strftime
from typing import Any, Literal

import structlog
from msgspec import Struct, defstruct
from msgspec.json import Encoder
from msgspec.structs import astuple

from engine.errors import SettingsError
from engine.logs.causes import Causes
from engine.logs.lines import ERROR, LATEST, LOGGER, NOTE
from engine.model import Function, Invocation

LIMIT = 16 << 20  #: bytes of lines that wait
LONGEST = 64 << 10  #: bytes of a line in journald, whose datagrams are limited; the rest is left out
GATHER, LAST = 0.1, 3.0  #: seconds for which lines are gathered, and for the last ones when the engine stops
MOST = 2000  #: lines of output that are told apart, so that the loop is not held
BATCH_BYTES = 256 << 10  #: of lines that are encoded together, for the same reason
ENVELOPE = 256  #: bytes that a line has beside its text, about
LEVELS = {ERROR: "ERROR", NOTE: "WARN"}  #: by stream
PRIORITIES = {"DEBUG": 7, "WARN": 4, "WARNING": 4, "ERROR": 3, "CRITICAL": 2, "FATAL": 2}  #: of journald; others: 6
FIELDS = ("time", "project", "function", "version", "request_id", "attempt", "level", "instance")
Line: Any = defstruct("Line", (*FIELDS, "text"), gc=False)
ENTRY = "SYSLOG_IDENTIFIER=functiond\nPRIORITY=%d\n" + "".join(f"FUNCTIOND_{name.upper()}=%s\n" for name in FIELDS)
Output = tuple[Function, Invocation | None, str, int, int, bytes]  #: arguments of ``Forwarder.add``
log = structlog.get_logger("functiond.logs")


class LogsSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    #: lines of functions go to standard output or a file, too, as JSON lines, or to journald
    forward: Literal["none", "stdout", "journald", "file"] = "none"
    file: str = ""  #: file, opened again when it was renamed; with journald, its socket, if not the usual one

    def __post_init__(self) -> None:
        if self.forward == "file" and not self.file:
            raise ValueError('logs.forward is "file": set logs.file to its path')


class Forwarder:
    """Queue of lines, which are encoded together, for ``write`` in a thread.

    ``write`` removes those from its list that it has written.
    """

    def __init__(self, encode: Callable[[Any], bytes], write: Callable[[list[bytes]], None]) -> None:
        self.written = self.lost = 0  #: lines
        self._encode, self._write, self._causes, self._lock = encode, write, Causes(), threading.Lock()
        self._gathered, self._size = list[Output](), 0
        self._queue = SimpleQueue[tuple[list[bytes], int] | None]()
        self._added = self._done = 0  #: bytes; each is changed by one thread only

    def add(self, function: Function, run: Invocation | None, instance: str, at: int, stream: int, text: bytes) -> None:
        """Add output of an instance. ``run`` is None if the instance served no request."""
        if self._added - self._done + self._size > LIMIT:
            self._lose(_count(stream, text), "their reader is too slow")
            return
        if not self._gathered:
            asyncio.get_running_loop().call_later(GATHER, self.hand_over)
        self._gathered.append((function, run, instance, at, stream, text))
        self._size += len(text) + ENVELOPE * _count(stream, text)
        if self._size > BATCH_BYTES:
            self.hand_over()

    def hand_over(self) -> None:
        if self._gathered:
            lines = [self._encode(line) for output in self._gathered for line in _lines(*output)]
            self._added += self._size
            self._queue.put((lines, self._size))
            self._gathered, self._size = [], 0

    def end(self) -> None:
        """Hand over what is gathered, and let ``run`` return after it."""
        self.hand_over()
        self._queue.put(None)

    def _lose(self, lines: int, reason: str) -> None:
        with self._lock:
            self.lost += lines
            tells = self._causes.note(reason)
        if tells:  # in a thread of its own, because the engine's log may have the same reader
            tell = partial(log.warning, "lines of functions are lost", lost=self.lost, reason=reason)
            threading.Thread(target=tell, daemon=True).start()

    def run(self) -> None:
        while (batch := self._queue.get()) is not None:
            lines, size = batch
            number = len(lines)
            try:
                self._write(lines)
            except OSError as error:
                self._lose(len(lines), str(error))
            self.written += number - len(lines)
            self._done += size


def _count(stream: int, text: bytes) -> int:
    """Return the number of lines of output: messages of loggers and errors are one each."""
    return 1 if stream in (LOGGER, ERROR) else min(text.count(b"\n"), MOST) or 1


def _lines(
    function: Function, run: Invocation | None, instance: str, at: int, stream: int, text: bytes
) -> Iterator[Any]:
    level, text = LEVELS.get(stream, "INFO"), text.removesuffix(b"\n")
    if stream == LOGGER and len(parts := text.split(b" ", 3)) == 4 and parts[2].isalnum():
        level, text = parts[2].decode(), parts[3]  # after time and request id
    request_id, attempt = (run.request_id, run.attempt) if run is not None else ("", 0)
    fields = _time(at), function.project, function.name, function.version, request_id, attempt, level, instance
    for line in [text] if stream in (LOGGER, ERROR) else text.split(b"\n", MOST):
        yield Line(*fields, line.decode("utf-8", "replace"))


@lru_cache(64)
def _time(at: int) -> str:
    """Return a time in milliseconds since the epoch as RFC 3339 writes it. Lines of a busy engine share most times."""
    seconds, rest = divmod(min(at, LATEST), 1000)
    return strftime("%Y-%m-%dT%H:%M:%S", gmtime(seconds)) + f".{rest:03}Z"


def _open(path: str, flags: int) -> int:
    return os.open(path, flags, 0o640)  # the lines are those of all projects


def to_file(path: str, lines: list[bytes]) -> None:
    """Append lines to a file, which may have been rotated away; without ``path``, to standard output."""
    data, sent = b"\n".join([*lines, b""]), 0
    with open(path or 1, "ab", buffering=0, closefd=bool(path), opener=_open) as file:
        os.set_blocking(file.fileno(), True)
        try:
            while sent < len(data):
                sent += file.write(data[sent:])
        except OSError:
            with suppress(OSError):  # no file, but a pipe without a reader
                file.truncate(file.seek(-sent, os.SEEK_END))
            raise
    lines.clear()


def to_journal(path: str, lines: list[bytes]) -> None:
    """Send lines, encoded by ``journald_entry``, to the socket of journald, each in a datagram."""
    lines.reverse()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.connect(path)
        while lines:
            sender.send(lines[-1])
            lines.pop()


def journald_entry(line: Any) -> bytes:
    *fields, text = astuple(line)
    head, message = ENTRY % (PRIORITIES.get(line.level, 6), *fields), text.encode()[:LONGEST]
    return b"%bMESSAGE\n%b%b\n" % (head.encode(), len(message).to_bytes(8, "little"), message)


@contextmanager
def forwarding(settings: LogsSettings) -> Iterator[Forwarder | None]:
    """Forward lines until the block ends, and yield the queue for them; None if they are not forwarded.

    Raises SettingsError if the file, or the socket of journald, cannot be opened.
    """
    if settings.forward == "none":
        yield None
        return
    journald = settings.forward == "journald"
    path = "" if settings.forward == "stdout" else settings.file
    write = partial(to_journal, path or "/run/systemd/journal/socket") if journald else partial(to_file, path)
    try:
        write([])
    except OSError as error:
        raise SettingsError(f"logs.forward: cannot open {path or settings.forward} ({error.strerror})") from None
    forwarder = Forwarder(journald_entry if journald else Encoder().encode, write)
    thread = threading.Thread(target=forwarder.run, name="forwarded-logs", daemon=True)
    thread.start()
    try:
        yield forwarder
    finally:
        forwarder.end()
        thread.join(LAST)
