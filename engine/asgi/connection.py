"""HTTP/1.1 connections: uvicorn's protocol class with limits on the size and the time of a request.

Requests that exceed a limit or cannot be parsed get an error reply in the API's JSON form.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterable
from enum import Enum, auto
from functools import partial
from typing import Any

import httptools
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from engine.asgi.wire import WHOLE_REPLY

Header = tuple[bytes, bytes]

HEAD_LIMIT = 64 << 10  #: bytes of request line, headers and trailers
RETRY = b"retry-after: 1\r\n"
ALLOW = b"allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n"
UPGRADE_FIELDS = (b"upgrade", b"http2-settings")


class ListenerState(ServerState):
    """State that all connections of one listener share. ``idle`` is set while none of them is open."""

    def __init__(self, *, connection_limit: int, held_limit: int) -> None:
        super().__init__()
        self.connection_limit, self.held_limit = connection_limit, held_limit
        self.held = 0  #: total bytes of unanswered requests whose bodies span several packets
        self.idle = asyncio.Event()
        self.idle.set()


class _Rejection(Exception):
    """Error reply that the connection sends itself, in place of the application. The connection is then closed."""

    def __init__(self, status: int, code: bytes, message: bytes, more: bytes = b"") -> None:
        super().__init__(status, message)
        body = b'{"error_code":"%b","error_msg":"%b"}' % (code, message)
        self.reply = (
            STATUS_LINE[status]
            + b"content-type: application/json\r\ncontent-length: %d\r\n" % len(body)
            + b"x-request-id: %b\r\nconnection: close\r\n" % str(uuid.uuid4()).encode()
            + more
            + b"\r\n"
            + body
        )


def _not_http() -> _Rejection:
    return _Rejection(400, b"FSS.0400", b"cannot parse the request; send HTTP/1.1")


def _fields_too_large() -> _Rejection:
    return _Rejection(431, b"FSS.0400", b"request line, headers and trailers exceed %d bytes; send less" % HEAD_LIMIT)


class _Part(Enum):
    """Part of a request to which the next received bytes belong."""

    HEAD = auto()  #: also between two requests
    BODY = auto()
    TRAILERS = auto()  #: also a chunk before its first byte


_HEAD, _BODY, _TRAILERS = _Part


class Connection(HttpToolsProtocol):
    """HTTP connection that limits the bytes and the time of incomplete requests.

    The head (request line and headers) of a request must be complete ``timeout_keep_alive`` seconds after the
    connection opened or the previous response ended. Between two packets of a body, the same time may pass. A request
    to switch to another protocol, such as WebSocket, is answered as if it did not ask for the switch (RFC 9110, 7.8).
    After a rejected request, no further request of the connection is read; earlier requests are answered first.
    """

    server_state: ListenerState
    parser: httptools.HttpRequestParser

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._part, self._chunk = _HEAD, 0
        self._unread = 0  #: bytes of the head or the trailers after their first packet
        self._fields = 0  #: bytes of names and values, counted from the first trailer on
        self._plain_head: bytes | None = None
        self._rejection: _Rejection | None = None
        self._held, self._fed = 0, 0.0
        self._body_timer: asyncio.TimerHandle | None = None
        self.server_state.idle.clear()
        if len(self.connections) > self.server_state.connection_limit:
            self._reject(_Rejection(503, b"FSS.0503", b"too many connections; use fewer, or retry later", RETRY))
            return
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._stop_head_timer()
        self._stop_body_timer()
        self._hold(0)
        if not self.connections:
            self.server_state.idle.set()

    def data_received(self, data: bytes) -> None:
        if self._rejection is not None:
            return
        self._chunk = len(data)
        if self._part is not _BODY:
            self._unread += self._chunk
        try:
            if self._unread > HEAD_LIMIT + self._chunk:
                raise _fields_too_large()
            self._feed(data)
        except _Rejection as rejection:
            self._reject_current(rejection)
        except httptools.HttpParserError as error:
            # The parser raises its own error; an exception of a callback is its context.
            cause = error.__context__
            self._reject_current(cause if isinstance(cause, _Rejection) else _not_http())
        else:
            if self._body_timer is not None or (self.cycle is not None and self.cycle.more_body):
                self._watch_body()

    def _feed(self, data: bytes) -> None:
        """Parse ``data``.

        A parser stops after the head of a request to switch protocols. A new parser then reads this head again, without
        the headers that ask for the switch, and the bytes after it.
        """
        rest: bytes | memoryview = data
        while True:
            try:
                self.parser.feed_data(rest)
                return
            except httptools.HttpParserUpgrade as upgrade:
                rest = memoryview(rest)[upgrade.args[0] :]
            self.parser = httptools.HttpRequestParser(self)
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn sets it
            head, self._plain_head = self._plain_head, None
            self.parser.feed_data(head or b"")

    def _unset_keepalive_if_required(self) -> None:
        """Leave the timer for the head running.

        The method of uvicorn that this one overrides stops the timer at the first byte of a request. A client could
        then keep a connection open for ever by sending a single byte.
        """

    def _stop_head_timer(self) -> None:
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
            self.timeout_keep_alive_task = None

    # The next methods run for every request. They repeat the code of short uvicorn methods, because calling those for
    # each header and body costs more than their work.

    def on_message_begin(self) -> None:
        self._part, self._unread, self._fields = _HEAD, 0, 0
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._part is _HEAD:
            name = name.lower()
            if name == b"expect" and value.lower() == b"100-continue":
                self.expect_100_continue = True
            self.headers.append((name, value))
            return
        # Trailers are dropped: the request was authenticated and routed by its headers.
        self._fields = (self._fields or self._head_size()) + len(name) + len(value)
        if self._fields > HEAD_LIMIT:
            raise _fields_too_large()

    def on_headers_complete(self) -> None:
        # Sum the fields only if the bytes received since the head began could exceed the limit.
        if self._unread + self._chunk > HEAD_LIMIT and self._head_size() > HEAD_LIMIT:
            raise _fields_too_large()
        if self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":
                raise _Rejection(405, b"FSS.0405", b"CONNECT is not supported: this is not a proxy", ALLOW)
            self._plain_head = self._head_without_upgrade()
            return
        super().on_headers_complete()  # raises for a URL without a path: until then, the request has no cycle
        self._part, self._unread = _BODY, 0
        self._stop_head_timer()

    def on_chunk_header(self) -> None:
        self._part, self._unread = _TRAILERS, 0

    def on_body(self, body: bytes) -> None:
        self._part, self._unread = _BODY, 0
        cycle = self.cycle
        if cycle.response_complete:
            return
        cycle.body += body
        if len(cycle.body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        cycle.message_event.set()

    def on_message_complete(self) -> None:
        if self._plain_head is not None:
            return  # the head is parsed again, with its body
        cycle = self.cycle
        if self._part is _TRAILERS and not self.parser.should_keep_alive():
            # The parser obeys "Connection: close" in trailers and ignores all that follows.
            cycle.keep_alive = False
            if cycle.response_complete:
                self.transport.close()
        self._part, self._unread = _HEAD, 0
        if not cycle.response_complete:
            cycle.more_body = False
            cycle.message_event.set()

    def _head_without_upgrade(self) -> bytes:
        lines = [b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())]
        for name, value in self.headers:
            if name == b"connection":
                tokens = [token for token in value.split(b",") if token.strip().lower() not in UPGRADE_FIELDS]
                lines.append(b"connection: " + b",".join(tokens))
            elif name not in UPGRADE_FIELDS:
                lines.append(b"%b: %b" % (name, value))
        return b"\r\n".join((*lines, b"", b""))

    def on_response_complete(self) -> None:
        if self._held:
            self._hold_queued()
        if self._body_timer is not None:
            self._fed = self.loop.time()  # the client may have waited for this response
        if self._rejection is not None and not self.pipeline:
            self._end(self._rejection)
        else:
            super().on_response_complete()

    def _hold(self, size: int) -> None:
        self.server_state.held += size - self._held
        self._held = size

    def _hold_queued(self) -> None:
        self._hold(sum(len(cycle.body) for cycle, _ in self.pipeline))

    def _watch_body(self) -> None:
        """Count the bytes of a body that spans several packets, and start the timer for its next packet.

        Reject the request if the counted bytes of all connections of the listener exceed ``held_limit``. Called for
        each packet of such a body. Bodies of one packet are not counted: the application reads them soon, and limits
        their size itself.
        """
        if self.cycle.response_complete or self.transport.is_closing():
            self._stop_body_timer()
            return
        self._hold(self._held + self._chunk)
        if self.server_state.held > self.server_state.held_limit:
            rejection = _Rejection(
                503, b"FSS.0503", b"too many bytes of requests are held in memory; retry later", RETRY
            )
            self._reject(rejection, self.cycle)
            return
        if not self._body_missing():
            self._stop_body_timer()
            return
        self._fed = self.loop.time()
        if self._body_timer is None:
            self._body_timer = self.loop.call_later(self.timeout_keep_alive, self._check_body)

    def _check_body(self) -> None:
        """Reject the request if no packet of its body has arrived for ``timeout_keep_alive`` seconds.

        An arriving packet does not restart the timer; only its time is stored. When the timer ends early for that
        reason, it starts again for the remaining time.
        """
        self._body_timer = None
        if not self._body_missing():
            return
        if self.flow.read_paused or self.cycle.waiting_for_100_continue:
            self._fed = self.loop.time()  # the client waits for the engine
        left = self._fed + self.timeout_keep_alive - self.loop.time()
        if left > 0:
            self._body_timer = self.loop.call_later(left, self._check_body)
        else:
            rejection = _Rejection(
                408, b"FSS.0408", b"timed out waiting for the rest of the body; send the request again"
            )
            self._reject(rejection, self.cycle)

    def _body_missing(self) -> bool:
        return self.cycle.more_body and not self.cycle.response_complete and not self.transport.is_closing()

    def _stop_body_timer(self) -> None:
        if self._body_timer is not None:
            self._body_timer.cancel()
            self._body_timer = None

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        cycle.scope["extensions"] = {WHOLE_REPLY: {"write": partial(_write_whole, cycle)}}
        super()._start_asgi_task(cycle, app)

    def _head_size(self) -> int:
        return len(self.url) + sum(len(name) + len(value) for name, value in self.headers)

    def _reject_current(self, rejection: _Rejection) -> None:
        """Reject the request that the connection is reading, after the replies to earlier requests."""
        self._reject(rejection, None if self._part is _HEAD else self.cycle)

    def _reject(self, rejection: _Rejection, cycle: RequestResponseCycle | None = None) -> None:
        """Stop reading, answer all earlier requests, send ``rejection``, and close the connection.

        ``cycle`` is the rejected request if its head was read, else None. The application receives ``http.disconnect``
        for this request, even if the whole body has arrived. If the application has begun to respond to it, the
        response is cut off and ``rejection`` is not sent.
        """
        self._rejection = rejection
        self._stop_head_timer()
        self._stop_body_timer()
        waiting = self.cycle is not None and not self.cycle.response_complete
        if cycle is not None:
            cycle.disconnected = True
            cycle.message_event.set()
            waiting = bool(self.pipeline)
            if waiting:
                self.pipeline.popleft()  # the newest, which was not started
        self._hold_queued()
        if waiting:
            self.flow.pause_reading()
        elif cycle is not None and cycle.response_started:
            self.transport.close()
        else:
            self._end(rejection)

    def _end(self, rejection: _Rejection) -> None:
        if not self.transport.is_closing():
            self.transport.write(rejection.reply)
            self.transport.close()


def _write_whole(cycle: RequestResponseCycle, status: int, headers: Iterable[Header], body: bytes) -> bool:
    """Write the whole response to the request ``cycle`` at once, and return True.

    Return False, with nothing written, if the response must be sent by ``cycle.send``: the request is HEAD, a response
    has begun, or the send buffer is full. Return True without writing if the client has disconnected. ``headers`` must
    be valid; they are not checked.
    """
    if cycle.disconnected:
        return True  # the client has disconnected
    if cycle.response_started or cycle.flow.write_paused or cycle.scope["method"] == "HEAD":
        return False
    cycle.response_started = cycle.response_complete = True
    lines = [b"%b: %b\r\n" % header for header in headers]
    if not cycle.keep_alive:
        lines.append(b"connection: close\r\n")
    cycle.transport.write(b"".join((STATUS_LINE[status], *lines, b"\r\n", body)))
    cycle.message_event.set()
    if not cycle.keep_alive:
        cycle.transport.close()
    del cycle.scope["extensions"]  # they refer to the cycle: only the garbage collector would free both
    cycle.on_response()
    return True
