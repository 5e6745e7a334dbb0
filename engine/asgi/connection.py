"""HTTP/1.1 connections: states, limits of time and memory, refusals, and the end of a connection.

A connection handles one request at a time. Bytes of later requests wait unread.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Mapping
from enum import Enum, auto

from engine.asgi.addresses import address_of
from engine.asgi.admission import Admission
from engine.asgi.deadline import BodyTime, Deadline, DropTime
from engine.asgi.exchange import Exchange
from engine.asgi.listener_state import LARGE, HeldBytes, ListenerState
from engine.asgi.reader import Body, Part, RequestReader
from engine.asgi.responses import Refusal
from engine.asgi.tls import limit_buffers
from engine.asgi.wire import HOLD_FOR

_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: on, 0 seconds
UNREAD_LIMIT = 64 << 10  #: bytes of later requests that are held before reading pauses; one packet may exceed it


class State(Enum):
    """Use of the bytes that a client sends next."""

    HEAD = auto()  #: They are part of a head. The previous request is answered.
    BODY = auto()  #: They are part of the body of the request that the application handles.
    ANSWERING = auto()  #: They wait. The application has the whole request and has not answered it completely.
    DISCARDING = auto()  #: They are the rest of an answered request, and are dropped. The next request follows.
    LINGERING = auto()  #: They are dropped. The last response is written, and the client has to close the connection.
    CLOSED = auto()  #: They are dropped. The transport is closed, or closes once the last response is sent.


#: States that may follow each state.
NEXT: Mapping[State, frozenset[State]] = {
    State.HEAD: frozenset({State.BODY, State.ANSWERING, State.LINGERING, State.CLOSED}),
    State.BODY: frozenset({State.ANSWERING, State.DISCARDING, State.LINGERING, State.CLOSED}),
    State.ANSWERING: frozenset({State.HEAD, State.LINGERING, State.CLOSED}),
    State.DISCARDING: frozenset({State.HEAD, State.LINGERING, State.CLOSED}),
    State.LINGERING: frozenset({State.CLOSED}),
    State.CLOSED: frozenset(),
}

_HEAD, _BODY, _ANSWERING, _DISCARDING, _LINGERING, _CLOSED = State
_LARGE_STATES = (_BODY, _DISCARDING, _LINGERING)
_END = Part.END


class Connection(asyncio.Protocol):
    """Connection of a client, in one of the states of ``State``.

    At most one request begins at each turn of the event loop, so that a client with many requests in one packet does
    not keep others waiting.
    """

    transport: asyncio.Transport

    def __init__(self, listener: ListenerState, admission: Admission | None = None) -> None:
        self.listener, self._admission = listener, admission or Admission()
        self.state = _HEAD
        self.stopping = self.write_paused = False
        self._loop = asyncio.get_running_loop()
        self._reader = RequestReader()
        self._deadline = Deadline(self._loop, self._expired)
        self._exchange: Exchange | None = None
        self._unread, self._at = b"", 0  # bytes of later requests, from the index ``_at``
        self._read_paused = self._waits_for_turn = self._eof = self._proxied = False
        self._body_time = BodyTime(self._loop, listener.rules.body_timeout)
        client = self._admission.network or "proxies"
        self.held, self._waiting = HeldBytes(listener, client), HeldBytes(listener, client)  # body; other bytes
        self._dropping = DropTime(self._loop)
        self._unsent = 0  # bytes of responses that the client had not taken at the previous deadline
        self._writable: asyncio.Event | None = None

    # Events of the transport.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport
        info, listener = transport.get_extra_info, self.listener
        self._secure = info("sslcontext") is not None
        if self._secure:
            limit_buffers(transport)
        self._client, self._server = address_of(info("peername")), address_of(info("sockname"))
        self._proxied = self._client is not None and self._client[0] in listener.rules.proxies
        choose = listener.rules.choose
        self._app = listener.app if choose is None else choose(self._client, self._server)
        listener.connections.add(self)
        listener.idle.clear()
        self._deadline.set(listener.keep_alive)
        if self._admission.refusal is not None:
            self._refuse(self._admission.refusal)

    def connection_lost(self, exc: Exception | None) -> None:
        self.state = _CLOSED
        self._forget_requests()
        self._abort_exchange()
        self._deadline.close()
        self.resume_writing()
        self._admission.release()
        self.listener.connections.discard(self)
        if not self.listener.connections:
            self.listener.idle.set()

    def data_received(self, data: bytes) -> None:
        state = self.state
        if state is _BODY or (state is _HEAD and not self._unread):
            self._read(data, 0)
        elif state is _HEAD or state is _ANSWERING:
            try:
                self._keep(self._unread[self._at :] + data if self._unread else data, 0)
            except Refusal:  # sent now, it would be taken for the answer to the current request
                self.cut(reset=True)
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

    def _read(self, data: bytes, at: int) -> None:
        reader, exchange = self._reader, self._exchange
        try:
            at = reader.read(data, at)
            if reader.framing is None:
                self._waiting.replace(reader.incomplete.__alloc__())
                return
            body, reader.body = reader.body, b""
            whole = reader.part is _END
            if exchange is not None:
                self.held.add(len(body))
            if at < len(data):
                self._keep(data, at)
            elif self._waiting.size:
                self._waiting.clear()
        except Refusal as refusal:
            self._refuse(refusal)
            return
        if whole:
            self.state = _ANSWERING
            if not self.write_paused:  # else the client must take an earlier response in time
                self._deadline.clear()
        else:
            self.state = _BODY
            if exchange is None:
                self._body_time.start()
            self._body_time.add(len(body))
            self._await_body()
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
        exchange = Exchange(self, line, framing, body, whole=whole)
        scope = exchange.scope(reader.headers, self._client, self._server, secure=self._secure)
        if not whole:
            self.held.count(len(body))
            scope[HOLD_FOR] = self.held.move
        if self._proxied:
            if refusal := self._admission.assign(self.listener.rules.proxies.read_into(scope)):
                self._refuse(refusal)
                return
            self.held.move(self._admission.network)
        self._exchange = exchange
        if self._eof:
            exchange.half_close()
        exchange.start(self._app, scope, self._loop)
        if not whole:  # checked once the application has had its first step, and may have named the holder
            self._loop.call_soon(self._check_held)

    def _check_held(self) -> None:
        if self._exchange is not None and (refusal := self.held.refusal()):
            self._refuse(refusal)

    def expect_body(self) -> None:
        self._body_time.start()
        self._await_body()

    def _await_body(self) -> None:
        self._deadline.set(min(self.listener.keep_alive, self._body_time.left()))

    def _keep(self, data: bytes, at: int) -> None:
        """Keep the bytes from the index ``at`` until the current request is answered."""
        self._unread, self._at = data, at
        self._waiting.replace(len(data))
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
        if self._eof and self.state in (_HEAD, _BODY, _DISCARDING):  # the last request is incomplete
            self._abort_exchange()
            self._close()

    def _pause_reading(self) -> None:
        if not self._read_paused and not self._eof:
            self._read_paused = True
            self._body_time.pause()
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        if self._read_paused:
            self._read_paused = False
            self._read_on()

    def _wait_for_turn(self) -> None:
        if self.state in _LARGE_STATES and not self._waits_for_turn:
            self._waits_for_turn = True
            self._body_time.pause()
            self.transport.pause_reading()
            self.listener.turns.wait(self)

    def take_turn(self) -> None:
        self._waits_for_turn = False
        self._read_on()

    def _read_on(self) -> None:
        if self._read_paused or self._waits_for_turn or self._eof or self.state is _CLOSED:
            return
        self.transport.resume_reading()
        if self.state is _BODY:
            self._body_time.resume()
            self._await_body()

    # Methods for the exchange.

    def release(self, size: int) -> None:
        self.held.release(size)

    async def writable(self) -> None:
        while self.write_paused:
            if self._writable is None:
                self._writable = asyncio.Event()
            await self._writable.wait()

    def answered(self, *, keep_alive: bool) -> None:
        self._exchange = None
        self.held.clear()
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
                self._deadline.set(self._dropping.start())
                self.resume_reading()
            else:
                self._linger()

    def unsent(self) -> int:
        return self.transport.get_write_buffer_size()

    def cut(self, *, reset: bool) -> None:
        self.state = _CLOSED
        self._deadline.clear()
        sock = self.transport.get_extra_info("socket") if reset else None
        if sock is not None:  # else TLS has lost the connection, and ``connection_lost`` follows
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.transport.abort()

    # After a response.

    def _next(self) -> None:
        self._reader.next()
        if self._proxied:
            self._admission.unassign()
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
            if at < len(data):
                self._keep(data, at)
        except Refusal:
            self._linger()
            return
        if reader.part is _END:
            self._next()
        else:
            self._drop(len(data))

    def _linger(self) -> None:
        """Close the sending side, and read until the client closes.

        If the engine closed a connection with unread bytes, the system would reset it, and the client might lose the
        response. TLS has no half-closed connections: there, close_notify follows once the client sends no more.
        """
        self._forget_requests()
        if self._eof:
            self._close()
            return
        self.state = _LINGERING
        self._deadline.set(self._dropping.start(ends_tls=self._secure))
        self._write_eof()
        self.resume_reading()

    def _forget_requests(self) -> None:
        """Give up the memory of an incomplete head and of later requests."""
        self._unread, self._reader = b"", RequestReader()
        self._waiting.clear()

    def _write_eof(self) -> None:
        """Close the sending side where the transport can, or the connection if the client has reset it."""
        if self.transport.can_write_eof():
            try:
                self.transport.write_eof()
            except OSError:
                self.cut(reset=False)

    def _drop(self, size: int) -> None:
        if left := self._dropping.left(size):
            self._deadline.set(left)
        else:
            self.cut(reset=False)

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
            self._write_eof()  # tells the client even if a fork of this process holds the socket
            self._close()

    def _refuse(self, refusal: Refusal) -> None:
        """Send ``refusal`` as the response to the current request, and end the connection.

        If the application has begun its own response, that is cut off, and ``refusal`` is not sent.
        """
        exchange = self._abort_exchange()
        if exchange is not None and exchange.started:
            self.cut(reset=exchange.ends_with_connection)
            return
        only_head = (line := self._reader.line) is not None and line.method == "HEAD"
        self.transport.write(refusal.response(self.listener.date(), only_head=only_head))
        self._linger()

    def _abort_exchange(self) -> Exchange | None:
        exchange, self._exchange = self._exchange, None
        self.held.clear()
        if exchange is not None:
            exchange.abort()
        return exchange

    def _expired(self) -> None:
        unsent = self.transport.get_write_buffer_size()
        if unsent and unsent != self._unsent:  # the client takes the response, slowly
            self._unsent = unsent
            self._deadline.set(self.listener.keep_alive)
        elif (self.state is _HEAD or (self.state is _LINGERING and self._secure)) and not unsent:
            self._close()
        elif self.state is _BODY and self._exchange is not None and not self.write_paused:
            if self._exchange.is_full or self._waits_for_turn:  # the client waits for the application
                self._deadline.set(self.listener.keep_alive)
            elif self._exchange.awaits_continue:
                self.expect_body()
            else:
                self.listener.rules.turned_away.note("slow_bodies", self.held.holder)
                self._refuse(Refusal(408, b"timed out waiting for the rest of the body; send the request again"))
        else:
            self.cut(reset=False)
