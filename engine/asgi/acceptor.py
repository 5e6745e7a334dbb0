"""Acceptance of connections: listening sockets, limits before any byte is read, and TLS handshakes.

Connections are accepted here and not by the event loop, because loops drop clients without a trace if the process has
no free file descriptor, and tell of a TLS connection only after its handshake.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import structlog

from engine.asgi.admission import Admission, ClientRules, ConnectionCounts
from engine.asgi.tls import HANDSHAKE_TIMEOUT, ServerTls, speaks_tls

BATCH = 32  #: connections accepted per turn of the event loop
RETRY_DELAY = 0.1  #: seconds until the next attempt if the system has no free descriptor; clients wait meanwhile

#: Errors of ``accept`` if no further client waits, or if only the connection that was to be accepted has failed.
_OF_CONNECTION = (BlockingIOError, InterruptedError, ConnectionError, TimeoutError)
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

log = structlog.get_logger("functiond")

MakeProtocol = Callable[[Admission], asyncio.Protocol]


class Acceptor:
    """Accept connections from ``sockets`` until ``close``, and give each a protocol that ``make`` returns.

    A protocol gets its connection after the TLS handshake, if there is one. From ``connection_made`` on, the protocol
    must release the connection's admission.
    """

    def __init__(
        self, sockets: list[socket.socket], make: MakeProtocol, rules: ClientRules, tls: ServerTls | None = None
    ) -> None:
        self._sockets, self._make, self._rules = sockets, make, rules
        self._loop = asyncio.get_running_loop()
        self._counts = ConnectionCounts(rules)
        self._tls: dict[str, Any] = {"ssl": tls.context, "ssl_handshake_timeout": HANDSHAKE_TIMEOUT} if tls else {}
        self._connecting: set[asyncio.Task[None]] = set()
        self._paused: dict[socket.socket, asyncio.TimerHandle] = {}
        for sock in sockets:
            sock.setblocking(False)
            self._loop.add_reader(sock, self._accept, sock)

    @property
    def port(self) -> int:
        return int(self._sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Close the listening sockets, and abort unfinished TLS handshakes. Accepted connections stay open."""
        for sock in self._sockets:
            if (timer := self._paused.pop(sock, None)) is not None:
                timer.cancel()
            else:
                self._loop.remove_reader(sock)
            with suppress(OSError):  # frees the port even if a fork of this process holds the socket
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        await asyncio.sleep(0)  # all tasks have begun, so each closes its socket
        for task in self._connecting if self._tls else ():
            task.cancel()
        if self._connecting:
            await asyncio.wait(set(self._connecting))

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(BATCH):
            try:
                sock, address = listening.accept()
            except _OF_CONNECTION:
                return
            except OSError as error:
                self._pause(listening, error)
                return
            admission = self._counts.admit(str(address[0]) if address else "", sock.fileno())
            if admission is None:
                sock.close()
                continue
            sock.setblocking(False)
            task = self._loop.create_task(self._connect(sock, admission))
            self._connecting.add(task)  # the loop itself keeps no reference

    async def _connect(self, sock: socket.socket, admission: Admission) -> None:
        made = self._make(admission)
        try:
            if not self._tls or await speaks_tls(self._loop, sock):
                await self._loop.connect_accepted_socket(lambda: made, sock, **self._tls)
            else:
                admission.release()
        except (OSError, asyncio.CancelledError):  # no TLS, a failed or slow handshake, or the end of the listener
            admission.release()
        finally:
            self._connecting.discard(asyncio.current_task(self._loop))

    def _pause(self, listening: socket.socket, error: OSError) -> None:
        """Leave clients in the queue of the system for a moment, instead of trying again at once, for ever."""
        if error.errno in _EXHAUSTED:
            self._rules.turned_away.note("files")
        else:
            log.error("cannot accept connections", problem=error.strerror or str(error))
        self._loop.remove_reader(listening)
        self._paused[listening] = self._loop.call_later(RETRY_DELAY, self._resume, listening)

    def _resume(self, listening: socket.socket) -> None:
        del self._paused[listening]
        self._loop.add_reader(listening, self._accept, listening)
