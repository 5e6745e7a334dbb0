"""HTTP/1.1 connections: states, limits of time and memory, refusals, and the end of a connection."""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
from collections.abc import Coroutine
from typing import Any

from engine.asgi.deadline import Deadline
from engine.asgi.exchange import Exchange
from engine.asgi.listener_state import ListenerState
from engine.asgi.reader import Body, Part, RequestReader
from engine.asgi.responses import RETRY, Refusal
from engine.asgi.states import State
from engine.asgi.tls import limit_buffers
from engine.asgi.turns import LARGE
from engine.asgi.wire import TARGET, WHOLE_REPLY, Scope

UNREAD_LIMIT = 64 << 10  #: bytes of later requests that are held before reading pauses; one packet may exceed it
DROPPED_LIMIT = 256 << 20  #: bytes of an answered request that are dropped before the connection is aborted
LINGER_TIME = 30.0  #: seconds for these bytes
LINGER_PAUSE = 5.0  #: seconds between two packets of them
EXTRA_CONNECTIONS = 512  #: connections above the limit that get a response; more are aborted at once

_ASGI = {"version": "3.0", "spec_version": "2.4"}
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: on, 0 seconds
_HEAD, _BODY, _ANSWERING, _DISCARDING, _LINGERING, _CLOSED = State
_LARGE_STATES = (_BODY, _DISCARDING, _LINGERING)
_END = Part.END

if sys.version_info >= (3, 12):

    def _start(loop: asyncio.AbstractEventLoop, run: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start a task at once: a request then reaches the engine without a further turn of the loop."""
        return asyncio.Task(run, loop=loop, eager_start=True)

else:

    def _start(loop: asyncio.AbstractEventLoop, run: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        return loop.create_task(run)


class Connection(asyncio.Protocol):
    """Connection of a client. ``states.py`` describes its states.

    At most one request begins at each turn of the event loop, so that a client with many requests in one packet does
    not keep others waiting.
    """

    transport: asyncio.Transport

    def __init__(self, listener: ListenerState) -> None:
        self.listener = listener
        self.state = _HEAD
        self.stopping = self.write_paused = False
        self._loop = asyncio.get_running_loop()
        self._reader = RequestReader()
        self._deadline = Deadline(self._loop, self._expired)
        self._exchange: Exchange | None = None
        self._unread, self._at = b"", 0  # bytes of later requests, from the index ``_at``
        self._read_paused = self._eof = False
        self._waits_for_turn = False
        self.held = 0  #: bytes of the body, if it spans several packets
        self._dropped, self._linger_end = 0, 0.0
        self._unsent = 0  # bytes of responses that the client had not taken at the previous deadline
        self._writable: asyncio.Event | None = None

    # Events of the transport.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport
        info, listener = transport.get_extra_info, self.listener
        self._secure = info("sslcontext") is not None
        if self._secure:
            limit_buffers(transport)
        self._client, self._server = _address(info("peername")), _address(info("sockname"))
        listener.connections.add(self)
        listener.idle.clear()
        excess = len(listener.connections) - listener.connection_limit
        if excess <= 0:
            self._deadline.set(listener.keep_alive)
        elif excess <= EXTRA_CONNECTIONS:
            self._refuse(Refusal(503, b"too many connections; use fewer, or retry later", RETRY))
        else:
            self.cut(reset=False)

    def connection_lost(self, exc: Exception | None) -> None:
        self.state, self._unread = _CLOSED, b""
        self._abort_exchange()
        self._deadline.close()
        self.resume_writing()
        self.listener.connections.discard(self)
        if not self.listener.connections:
            self.listener.idle.set()

    def data_received(self, data: bytes) -> None:
        state = self.state
        if state is _BODY or (state is _HEAD and not self._unread):
            self._read(data, 0)
        elif state is _HEAD or state is _ANSWERING:
            self._keep(self._unread[self._at :] + data if self._unread else data, 0)
        elif state is _DISCARDING:
            self._discard(data)
        elif state is _LINGERING:
            self._drop(len(data))
        if len(data) >= LARGE:
            self._wait_for_turn()

    def eof_received(self) -> bool:
        """Keep the connection open until the requests that have arrived are answered. TLS does not allow this."""
        self._eof = True
        if self.state is _ANSWERING or self._unread:
            if self._exchange is not None:
                self._exchange.half_close()
            return not self._secure
        self.state = _CLOSED
        self._abort_exchange()
        return False

    def pause_writing(self) -> None:
        self.write_paused = True
        self.listener.unsent.add(self, self._exchange.written if self._exchange else 0)
        if self.state is _ANSWERING:
            self._deadline.set(self.listener.keep_alive)

    def resume_writing(self) -> None:
        self.write_paused = False
        self.listener.unsent.remove(self)
        if self.state is _ANSWERING:
            self._deadline.clear()
        if self._writable is not None:
            self._writable.set()
            self._writable = None

    # Reading.

    def _read(self, data: bytes, at: int) -> None:
        reader, exchange = self._reader, self._exchange
        try:
            at = reader.read(data, at)
            if reader.framing is None:
                return  # the head is incomplete
            body, reader.body = reader.body, b""
            whole = reader.part is _END
            if not whole or exchange is not None:
                self._hold(len(body))
        except Refusal as refusal:
            self._refuse(refusal)
            return
        if at < len(data):
            self._keep(data, at)
        if whole:
            self.state = _ANSWERING
            if not self.write_paused:  # else the client must take an earlier response in time
                self._deadline.clear()
        else:
            self.state = _BODY
            self._deadline.set(self.listener.keep_alive)
        if exchange is None:
            self._begin(body, whole=whole)
            return
        exchange.feed(body, whole=whole)
        if exchange.is_full and not whole:
            self._pause_reading()

    def _begin(self, body: Body, *, whole: bool) -> None:
        """Call the application with the request whose head is complete."""
        reader = self._reader
        line, framing = reader.line, reader.framing
        assert line is not None
        assert framing is not None
        exchange = self._exchange = Exchange(self, line, framing, body, whole=whole)
        scope: Scope = {
            "type": "http",
            "asgi": _ASGI,
            "http_version": line.version,
            "scheme": "https" if self._secure else "http",
            "server": self._server,
            "client": self._client,
            "method": line.method,
            "root_path": "",
            "path": line.path,
            "raw_path": line.raw_path,
            "query_string": line.query,
            "headers": reader.headers,
            TARGET: line.target,
            "extensions": {WHOLE_REPLY: {"write": exchange.write_whole}},
        }
        task = _start(self._loop, exchange.run(self.listener.app, scope))
        if not task.done():
            exchange.task = task
            self.listener.tasks.add(task)

    def _keep(self, data: bytes, at: int) -> None:
        """Keep the bytes from the index ``at`` until the current request is answered."""
        self._unread, self._at = data, at
        if len(data) - at > UNREAD_LIMIT:
            self._pause_reading()

    def _read_unread(self) -> None:
        if self.state is not _HEAD:
            return
        data, self._unread = self._unread, b""
        self._read(data, self._at)
        if self._unread:
            return
        self.resume_reading()
        if self._eof and self.state in (_HEAD, _BODY):  # the last request is incomplete
            self._abort_exchange()
            self._close()

    def _hold(self, size: int) -> None:
        """Count ``size`` more bytes of a body that spans several packets.

        Bodies of one packet are not counted: the application reads them soon, and limits their size itself.
        """
        self.held += size
        self.listener.held += size
        if self.listener.held > self.listener.held_limit:
            raise Refusal(503, b"too many bytes of requests are held in memory; retry later", RETRY)

    def _release(self) -> None:
        self.listener.held -= self.held
        self.held = 0

    def _pause_reading(self) -> None:
        if not self._read_paused and not self._eof:
            self._read_paused = True
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        if self._read_paused and not self._eof and self.state is not _CLOSED:
            self._read_paused = False
            if not self._waits_for_turn:
                self.transport.resume_reading()

    def _wait_for_turn(self) -> None:
        if self.state in _LARGE_STATES and not self._waits_for_turn:
            self._waits_for_turn = True
            self.transport.pause_reading()
            self.listener.turns.wait(self)

    def take_turn(self) -> None:
        self._waits_for_turn = False
        if not (self._read_paused or self._eof or self.state is _CLOSED):
            self.transport.resume_reading()

    # Methods for the exchange.

    async def writable(self) -> None:
        while self.write_paused:
            if self._writable is None:
                self._writable = asyncio.Event()
            await self._writable.wait()

    def answered(self, *, keep_alive: bool) -> None:
        self._exchange = None
        if self.held:
            self._release()
        if self.state is _ANSWERING:
            if keep_alive:
                self._next()
            elif self._unread:
                self._linger()
            else:
                self._close()
        elif self.state is _BODY:
            if keep_alive:
                self.state = _DISCARDING
                self._begin_dropping()
                self.resume_reading()
            else:
                self._linger()

    def unsent(self) -> int:
        return self.transport.get_write_buffer_size()

    def cut(self, *, reset: bool) -> None:
        self.state = _CLOSED
        self._deadline.clear()
        if reset:
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.transport.abort()

    # After a response.

    def _next(self) -> None:
        self._reader.next()
        self.state = _HEAD
        self._deadline.set(self.listener.keep_alive)
        if self._unread:
            self._loop.call_soon(self._read_unread)
        elif self._eof:
            self._close()

    def _discard(self, data: bytes) -> None:
        reader = self._reader
        try:
            at = reader.skip(data, 0)
        except Refusal:
            self._linger()
            return
        if reader.part is not _END:
            self._drop(len(data))
            return
        if at < len(data):
            self._keep(data, at)
        self._next()

    def _linger(self) -> None:
        """Close the sending side, and read until the client closes.

        If the engine closed a connection with unread bytes, the system would reset it, and the client might lose the
        response. TLS has no half-closed connections: there, the client closes when it has read the response.
        """
        self._unread = b""
        if self._eof:
            self._close()
            return
        self.state, self._reader = _LINGERING, RequestReader()  # gives up the memory of the request
        self._begin_dropping()
        if self.transport.can_write_eof():
            try:
                self.transport.write_eof()
            except OSError:  # the client has reset the connection
                self.cut(reset=False)
        self.resume_reading()

    def _begin_dropping(self) -> None:
        self._dropped, self._linger_end = 0, self._loop.time() + LINGER_TIME
        self._deadline.set(LINGER_PAUSE)

    def _drop(self, size: int) -> None:
        self._dropped += size
        left = self._linger_end - self._loop.time()
        if left <= 0 or self._dropped > DROPPED_LIMIT:
            self.cut(reset=False)
        else:
            self._deadline.set(min(left, LINGER_PAUSE))

    def _close(self) -> None:
        """Close the connection once all responses are sent."""
        self.state = _CLOSED
        if self.transport.get_write_buffer_size():
            self._deadline.set(self.listener.keep_alive)
        else:
            self._deadline.clear()
        self.transport.close()

    def stop(self) -> None:
        """Close the connection after the response to the current request."""
        self.stopping = True
        if self.state is _HEAD or self.state is _DISCARDING:
            self._close()

    # Errors.

    def _refuse(self, refusal: Refusal) -> None:
        """Send ``refusal`` as the response to the current request, and end the connection.

        If the application has begun its own response, that is cut off, and ``refusal`` is not sent.
        """
        exchange = self._abort_exchange()
        if exchange is not None and exchange.started:
            self.cut(reset=exchange.ends_with_connection)
            return
        line = self._reader.line
        only_head = line is not None and line.method == "HEAD"
        self.transport.write(refusal.response(self.listener.date(), only_head=only_head))
        self._linger()

    def _abort_exchange(self) -> Exchange | None:
        exchange, self._exchange = self._exchange, None
        self._release()
        if exchange is not None:
            exchange.abort()
        return exchange

    def _expired(self) -> None:
        unsent = self.transport.get_write_buffer_size()
        if unsent and unsent != self._unsent:  # the client takes the response, slowly
            self._unsent = unsent
            self._deadline.set(self.listener.keep_alive)
        elif self.state is _HEAD and not unsent:
            self._close()
        elif self.state is _BODY and self._exchange is not None:
            if self._exchange.is_full or self._exchange.awaits_continue or self._waits_for_turn:
                self._deadline.set(self.listener.keep_alive)  # the client waits for the application
            else:
                self._refuse(Refusal(408, b"timed out waiting for the rest of the body; send the request again"))
        else:
            self.cut(reset=False)


def _address(name: Any) -> tuple[str, int] | None:
    """Return host and port of a socket's name; None for any other kind of name."""
    return (str(name[0]), int(name[1])) if isinstance(name, tuple) else None
