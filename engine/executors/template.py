"""The engine's end of a fork server (``workers/python_template.py``, which describes the packets between the two)."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import socket
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import count
from typing import Any

from engine.executors.child import OwnChild
from engine.executors.forked import ForkedChild

_LARGEST = 1 << 16  #: bytes of a packet
_BATCH = 64  #: packets at a time, so that the loop does other things too
_PARTING = 5.0  #: seconds that it may take to end when it is told to
_BIRTH = 30.0  #: seconds that a process may take to exist
_LAST_WORDS = 2000  #: bytes of what it said on its end


class Template:
    """Lives until ``close`` or until it dies by itself; what it forked may well go on then.

    One that lets a birth wait too long, perhaps since it is stopped, is given up: it counts as dead, but is not killed
    before the last that it forked has gone, since a sandbox takes them along.
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], ended: Callable[[Template], None] = lambda _: None
    ) -> None:
        """Raises OSError. To be made on the loop's thread: should that thread end, a sandbox ends too.

        ``command`` lacks the number of its descriptor, for which ``{fd}`` stands.
        """
        self.ready = asyncio.Event()
        self.gone = asyncio.Event()
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._children: dict[int, ForkedChild] = {}
        self._numbers = count(1)
        self._max_wait, self._given_up = _BIRTH, False
        self._killing: asyncio.TimerHandle | None = None
        self._dead: list[int] = []  #: whose process ids it may free, and has not been told so
        self._strays: set[int] = set()  #: which it has, and whose pidfds did not come through
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  (closed when it ends)
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.setblocking(False)
        try:
            with theirs:
                self._process = OwnChild(self._start(command, environment, theirs.fileno()), self._loop)
        except BaseException:
            self._socket.close()
            self._stderr.close()
            raise
        self._process.watch(self._died)
        self._loop.add_reader(self._socket, self._read)

    @property
    def alive(self) -> bool:
        """Whether it can be asked for instances."""
        return self._connected and not self._given_up

    @property
    def pid(self) -> int:
        return self._process.pid

    def fork(self, request: Mapping[str, Any], fds: Sequence[int]) -> ForkedChild:
        """Ask for an instance, which is started as soon as the template can. Raises OSError if it cannot be asked."""
        if not self.alive:
            raise BrokenPipeError("the template has ended")
        number = next(self._numbers)
        # When it is ending at this very moment, the child will hear why.
        with suppress(BrokenPipeError, ConnectionResetError):
            socket.send_fds(self._socket, [json.dumps({"id": number, **request}).encode()], fds)
        child = self._children[number] = ForkedChild(lambda: self._reap(number), self._max_wait, self._give_up)
        return child

    def close(self) -> None:
        """``gone`` is set when it has ended. What it forked should have ended before."""
        self._hang_up()

    @property
    def _connected(self) -> bool:
        return self._socket.fileno() >= 0

    def _start(self, command: Sequence[str], environment: Mapping[str, str], fd: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [part.format(fd=fd) if part == "{fd}" else part for part in command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._stderr,
            pass_fds=(fd,),
            env=environment,
            start_new_session=True,
        )

    def _reap(self, number: int) -> None:
        """That process is known to be dead, or never was; its number may be another's from now on."""
        if self._children.pop(number).exists:
            self._free(number)
        if self._given_up and not self._children:
            self._process.kill()

    def _free(self, number: int) -> None:
        self._dead.append(number)
        if self._connected:
            with suppress(OSError):  # its queue is full: then with the next
                self._socket.send(json.dumps({"reap": self._dead}).encode())
                self._dead.clear()

    # --- what the loop calls ---

    def _read(self) -> None:
        for _ in range(_BATCH):
            try:
                data, fds, _, _ = socket.recv_fds(self._socket, _LARGEST, 1)
            except BlockingIOError:
                return
            except OSError:  # reset: it ended with packets unread
                data, fds = b"", []
            if not data:
                self._hang_up()
                return
            self._heard(json.loads(data), fds)

    def _heard(self, message: dict[str, Any], fds: list[int]) -> None:
        if "ready" in message:
            self.ready.set()
            return
        number = message["id"]
        if number in self._strays:  # nothing but its end can be told of it
            self._strays.discard(number)
            self._free(number)
            return
        child = self._children.get(number)
        if child is None:  # its end was seen before the template's word of it came
            for fd in fds:
                os.close(fd)
            return
        error = OSError(message["error"], message["reason"], message.get("file")) if "error" in message else None
        if "status" in message:
            child.told(message["status"], error)
        elif error is not None:
            child.failed(error)
        elif fds:
            child.on_spawned(fds[0])
        else:  # it ends when its own socket is closed
            self._strays.add(number)
            child.failed(OSError(errno.EMFILE, os.strerror(errno.EMFILE)))

    def _give_up(self) -> None:
        self._given_up = True
        reason = f"the process that forks them has been silent for {self._max_wait:g} s and is given up"
        for child in [child for child in self._children.values() if not child.exists]:
            child.failed(OSError(errno.ETIMEDOUT, reason))

    def _hang_up(self) -> None:
        if self._connected:
            self._loop.remove_reader(self._socket)
            self._socket.close()
            # By itself: it may still be saying why, and of a sandbox that is killed, the inner half is left as a zombie
            # to whoever reaps orphans here.
            self._killing = self._loop.call_later(_PARTING, self._process.kill)

    def _died(self) -> None:
        if self._connected:
            self._read()  # what it said before
        self._hang_up()
        if self._killing is not None:
            self._killing.cancel()
        for child in list(self._children.values()):
            child.orphaned(self._last_words())
        self._process.reap()
        self._stderr.close()
        self.gone.set()
        self._ended(self)

    def _last_words(self) -> str:
        size = os.fstat(self._stderr.fileno()).st_size
        said = os.pread(self._stderr.fileno(), _LAST_WORDS, max(0, size - _LAST_WORDS)).decode(errors="replace")
        return " ".join(said.split()) or "it ended before it had forked"
