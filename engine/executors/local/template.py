"""Engine's side of a fork server. Its process runs ``workers/python_template.py``, which describes the packets."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import count
from typing import Any

from engine.executors.local.child import OwnChild
from engine.executors.local.spawn import UMASK

_LARGEST = 1 << 16  #: bytes of a packet
_BATCH = 64  #: packets read at a time, so that the loop can do other work
_EXIT_TIMEOUT = 5.0  #: seconds from the end of the connection to the exit
_SPAWN_TIMEOUT = 30.0  #: seconds until a requested process must exist
_STATUS_TIMEOUT = 5.0  #: seconds from exit to status; a stopped template must not block an instance
_QUEUE, _BY_FORCE = 8 << 20, 32  #: bytes of requests that wait while the process starts; SO_SNDBUFFORCE
_STDERR_TAIL = 2000  #: bytes of the template's standard error that error messages quote


class Template:
    """Fork server. Runs until ``close`` or until its process exits; the processes that it forked may run longer.

    If the fork server does not fork in time, for example because it was stopped by a signal, no further forks are
    requested from it. It is killed only after its last fork has exited, because the kernel kills a sandbox together
    with its fork server.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        on_closed: Callable[[Template], None] = lambda _: None,
    ) -> None:
        """Start the process of the fork server. Raises OSError if the process cannot be started.

        Call in the thread of the event loop, because the kernel kills a sandbox when the thread that started it exits.
        ``{fd}`` in ``command`` is replaced by the number of the descriptor for the packets.
        """
        self.ready = asyncio.Event()
        self.closed = asyncio.Event()
        self._on_closed = on_closed
        self._loop = asyncio.get_running_loop()
        self._children: dict[int, ForkedChild] = {}
        self._numbers = count(1)
        self._max_wait, self._given_up = _SPAWN_TIMEOUT, False
        self._kill_timer: asyncio.TimerHandle | None = None
        self._to_reap: list[int] = []  #: forks whose pids the template may free; not sent yet
        self._without_pidfd: set[int] = set()  #: forks whose pidfds did not arrive
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  (closed when the process exits)
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _QUEUE)  # as far as any user may
        with suppress(PermissionError):
            self._socket.setsockopt(socket.SOL_SOCKET, _BY_FORCE, _QUEUE)
        try:
            with theirs:
                self._process = self._start(command, environment, theirs.fileno())
        except BaseException:
            self._socket.close()
            self._stderr.close()
            raise
        self._process.watch(self._process_exited)
        self._loop.add_reader(self._socket, self._read)

    @property
    def alive(self) -> bool:
        """True if the fork server accepts requests for forks."""
        return self._connected and not self._given_up

    @property
    def pid(self) -> int:
        return self._process.pid

    def fork(self, request: Mapping[str, Any], fds: Sequence[int]) -> ForkedChild:
        """Request a fork; the process exists later, see ``ForkedChild.spawned``.

        Raises OSError if the request cannot be sent.
        """
        if not self.alive:
            raise BrokenPipeError("the template has exited")
        number = next(self._numbers)
        # If the template exits at this moment, ``on_template_exit`` reports why.
        with suppress(BrokenPipeError, ConnectionResetError):
            socket.send_fds(self._socket, [json.dumps({"id": number, **request}).encode()], fds)
        child = self._children[number] = ForkedChild(lambda: self._reap(number), self._max_wait, self._give_up)
        return child

    def close(self) -> None:
        """Close the connection, so that the fork server exits and ``closed`` is set.

        Call when all forks have exited.
        """
        if self._connected:
            self._loop.remove_reader(self._socket)
            with suppress(OSError):  # tells the template even if a fork of the engine's process holds the socket
                self._socket.shutdown(socket.SHUT_RDWR)
            self._socket.close()
            # Not killed at once: the template may still be writing its error, and killing a sandbox leaves its inner
            # process as a zombie for the process that reaps orphans on this machine.
            self._kill_timer = self._loop.call_later(_EXIT_TIMEOUT, self._process.kill)

    def kill(self) -> None:
        """Kill the fork server, and in a sandbox all its forks."""
        self._given_up = True
        self._process.kill()

    @property
    def _connected(self) -> bool:
        return self._socket.fileno() >= 0

    def _start(self, command: Sequence[str], environment: Mapping[str, str], fd: int) -> OwnChild:
        process = subprocess.Popen(
            [part.format(fd=fd) if part == "{fd}" else part for part in command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._stderr,
            pass_fds=(fd,),
            env=environment,
            start_new_session=True,
            umask=UMASK,
        )
        return OwnChild(process, self._loop)

    def _reap(self, number: int) -> None:
        """Let the template reap a fork that has exited or was never started.

        The kernel may reuse the pid afterwards.
        """
        if self._children.pop(number).exists:
            self._free(number)
        if self._given_up and not self._children:
            self._process.kill()

    def _free(self, number: int) -> None:
        self._to_reap.append(number)
        if self._connected:
            with suppress(OSError):  # its queue is full: sent with the next
                self._socket.send(json.dumps({"reap": self._to_reap}).encode())
                self._to_reap.clear()

    # --- called by the loop ---

    def _read(self) -> None:
        for _ in range(_BATCH):
            try:
                data, fds, _, _ = socket.recv_fds(self._socket, _LARGEST, 1)
            except BlockingIOError:
                return
            except OSError:  # reset: it exited with packets unread
                data, fds = b"", []
            if not data:
                self.close()
                return
            self._handle(json.loads(data), fds)

    def _handle(self, message: dict[str, Any], fds: list[int]) -> None:
        if "ready" in message:
            self.ready.set()
            return
        number = message["id"]
        if number in self._without_pidfd:  # only its end can be reported
            self._without_pidfd.discard(number)
            self._free(number)
            return
        child = self._children.get(number)
        if child is None:  # its exit was noticed before the template's packet arrived
            for fd in fds:
                os.close(fd)
            return
        error = OSError(message["error"], message["reason"], message.get("file")) if "error" in message else None
        if "status" in message:
            child.on_status(message["status"], error)
        elif error is not None:
            child.on_failed(error)
        elif fds:
            child.on_spawned(fds[0])
        else:  # the fork exits when its own socket is closed
            self._without_pidfd.add(number)
            child.on_failed(OSError(errno.EMFILE, os.strerror(errno.EMFILE)))

    def _give_up(self) -> None:
        self._given_up = True
        reason = f"the process that forks them has been silent for {self._max_wait:g} s and is given up"
        for child in [child for child in self._children.values() if not child.exists]:
            child.on_failed(OSError(errno.ETIMEDOUT, reason))

    def _process_exited(self) -> None:
        if self._connected:
            self._read()  # packets sent before the exit
        self.close()
        if self._kill_timer is not None:
            self._kill_timer.cancel()
        for child in list(self._children.values()):
            child.on_template_exit(self._stderr_tail())
        self._process.reap()
        self._stderr.close()
        self.closed.set()
        self._on_closed(self)

    def _stderr_tail(self) -> str:
        size = os.fstat(self._stderr.fileno()).st_size
        output = os.pread(self._stderr.fileno(), _STDERR_TAIL, max(0, size - _STDERR_TAIL)).decode(errors="replace")
        return " ".join(output.split()) or "the template exited before it had forked"


class ForkedChild:
    """Process forked by a template: a grandchild of the engine (protocol ``ChildProcess``).

        requested ──▶ spawned ──▶ exited, with a status
            └────────────▶ failed

    The pidfd of the process reports the exit; the template reports the exit status. The template keeps the process as a
    zombie until ``reap``, so that the kernel does not reuse its pid. If the template has exited, the pid may be reused
    and the exit status is unknown.
    """

    waits = True

    def __init__(self, release: Callable[[], None], max_wait: float, on_overdue: Callable[[], None]) -> None:
        """Create the object when the fork is requested from the template.

        ``release`` is called to let the template reap the process. ``on_overdue`` is called if the process does not
        exist ``max_wait`` seconds after the request.
        """
        self.pid = 0  #: 0 until spawned
        self.exists = False  #: spawned; the template holds the process
        self.alive = True
        self.failure: OSError | None = None
        self._release = release
        self._loop = asyncio.get_running_loop()
        self._spawned: asyncio.Future[None] = self._loop.create_future()
        self._error: OSError | None = None
        self._on_exit: Callable[[], object] = lambda: None
        self._status: int | None = None
        self._pidfd = -1
        self._spawn_timer = self._loop.call_later(max_wait, on_overdue)
        self._status_timer: asyncio.TimerHandle | None = None
        self._kill_requested = self._exited = self._template_gone = self._reaped = False

    # --- called by the owner ---

    async def spawned(self) -> None:
        await asyncio.shield(self._spawned)
        if self._error is not None:
            raise self._error

    def watch(self, on_exit: Callable[[], object]) -> None:
        self._on_exit = on_exit

    def kill(self) -> None:
        self._kill_requested = True
        if self._pidfd >= 0:
            # Both, because the process may not have created its group yet. The first process of a pid namespace is in
            # another group than its instance.
            with suppress(ProcessLookupError, PermissionError):
                if self.pid and not (self._template_gone and self._exited):  # otherwise the pid may have been reused
                    os.killpg(self.pid, signal.SIGKILL)
            with suppress(ProcessLookupError, PermissionError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def reap(self) -> int | None:
        if not self._reaped:
            self._reaped = True
            if self._pidfd >= 0:
                os.close(self._pidfd)
                self._pidfd = -1
            self._release()
        return self._status

    def abandon(self) -> None:
        self.kill()
        self.watch(self.reap)

    # --- called by the template ---

    def on_spawned(self, pidfd: int) -> None:
        self._spawn_timer.cancel()
        self.exists, self._pidfd = True, pidfd
        self._loop.add_reader(pidfd, self._process_exited)
        try:
            self.pid = _pid_of(pidfd)
        except OSError as error:  # no free descriptor to look the pid up
            self._error, self._kill_requested = error, True
        self._spawned.set_result(None)
        if self._kill_requested:
            self.kill()

    def on_failed(self, error: OSError) -> None:
        self._spawn_timer.cancel()
        self._error = error
        self._spawned.set_result(None)
        self._conclude()

    def on_status(self, status: int, failure: OSError | None = None) -> None:
        self._status, self.failure = status, failure
        self._conclude()

    def on_template_exit(self, reason: str) -> None:
        """Handle the exit of the template.

        If the process does not exist yet, the start counts as failed, with ``reason`` in the text of its error. If the
        process has exited, its exit status remains unknown.
        """
        self._template_gone = True
        if not self._spawned.done():
            self.on_failed(OSError(errno.ECHILD, f"the process was not spawned: {reason}"))
        elif self._exited:
            self._conclude()

    # --- internal ---

    def _process_exited(self) -> None:
        self._loop.remove_reader(self._pidfd)
        self._exited = True
        if self._template_gone:
            self._conclude()
        elif self.alive:
            self._status_timer = self._loop.call_later(_STATUS_TIMEOUT, self._conclude)

    def _conclude(self) -> None:
        if self._status_timer is not None:
            self._status_timer.cancel()
        if self._pidfd >= 0 and not self._exited:
            self._loop.remove_reader(self._pidfd)
            self._exited = True
        if self.alive:
            self.alive = False
            self._on_exit()


def _pid_of(pidfd: int) -> int:
    """Return the pid of a pidfd's process as the engine sees it; the template may be in another pid namespace."""
    with open(f"/proc/self/fdinfo/{pidfd}") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Pid:"))
