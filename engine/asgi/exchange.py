"""One HTTP request and its response, as an ASGI application receives and sends them."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from typing import Any, Protocol

import structlog

from engine.asgi.heads import Framing, RequestLine
from engine.asgi.listener_state import ListenerState
from engine.asgi.reader import Body
from engine.asgi.responses import CONTINUE, STATUS_LINES, Header, Refusal, ResponseBody, has_date, header_lines
from engine.asgi.wire import HALF_CLOSED, RELEASE, TARGET, WHOLE_REPLY, App, Message, Scope

_ASGI = {"version": "3.0", "spec_version": "2.4"}
#: Argument of tasks that starts them at once: a request then reaches the engine without a further turn of the loop.
_EAGER: dict[str, Any] = {"eager_start": True} if sys.version_info >= (3, 12) else {}
BUFFERED = 64 << 10  #: bytes of a body that wait for the application before reading pauses

log = structlog.get_logger("functiond")


class ExchangeOwner(Protocol):
    """Connection, as its exchange uses it."""

    listener: ListenerState
    transport: asyncio.Transport
    write_paused: bool
    stopping: bool  #: Responses tell the client that the connection closes.

    def resume_reading(self) -> None: ...

    def expect_body(self) -> None:
        """Give the client the whole time for its body from now on."""

    def release(self, size: int) -> None:
        """Count ``size`` bytes of the body as no longer held in memory."""

    async def writable(self) -> None:
        """Return once the transport takes further bytes, or the connection is lost."""

    def answered(self, *, keep_alive: bool) -> None:
        """Handle the end of the response. All of its bytes are written."""

    def cut(self, *, reset: bool) -> None:
        """Close the connection within a response, so that the client does not take it for complete."""


class Exchange:
    """Request and response of one ASGI application call.

    The connection gives it the body piece by piece with ``feed``, and calls ``abort`` when the rest of the request
    cannot be read or the connection is lost, and ``half_close`` when the client has closed its sending side.
    """

    def __init__(
        self, owner: ExchangeOwner, line: RequestLine, framing: Framing, body: bytes | bytearray, *, whole: bool
    ) -> None:
        self._owner, self._line = owner, line
        self._body: bytes | bytearray = body
        self._whole = whole  # all of the body has arrived
        self._delivered = False  # the application has received the end of the body
        self._counted = not whole  # the body counts as held in memory
        self._keep_alive = framing.keep_alive
        self.awaits_continue = framing.expects_continue and not body and not whole
        self._half_closed = self._told = False  # told: the application has received it
        self._changed: asyncio.Event | None = None
        self._start: tuple[int, list[Header]] | None = None
        self._response: ResponseBody | None = None
        self.written = 0  #: bytes of the last write
        self._task: asyncio.Task[None] | None = None
        self.aborted = self.answered = False

    @property
    def started(self) -> bool:
        """Whether bytes of the response have been written."""
        return self._response is not None

    @property
    def ends_with_connection(self) -> bool:
        """Whether only the end of the connection ends the body of the response."""
        return self._response is not None and self._response.until_close

    @property
    def is_full(self) -> bool:
        """Whether more than enough of the body waits for the application."""
        return len(self._body) > BUFFERED

    def scope(
        self, headers: list[Header], client: tuple[str, int] | None, server: tuple[str, int] | None, *, secure: bool
    ) -> Scope:
        line = self._line
        return {
            "type": "http",
            "asgi": _ASGI,
            "http_version": line.version,
            "scheme": "https" if secure else "http",
            "server": server,
            "client": client,
            "method": line.method,
            "root_path": "",
            "path": line.path,
            "raw_path": line.raw_path,
            "query_string": line.query,
            "headers": headers,
            TARGET: line.target,
            "extensions": {WHOLE_REPLY: {"write": self.write_whole}},
        }

    def start(self, app: App, scope: Scope, loop: asyncio.AbstractEventLoop) -> None:
        """Call ``app`` in a task of the listener."""
        task = asyncio.Task(self._run(app, scope), loop=loop, **_EAGER)
        if not task.done():
            self._task = task
            self._owner.listener.tasks.add(task)

    async def _run(self, app: App, scope: Scope) -> None:
        """Call ``app``. Send a response with status 500 if it fails or does not send any."""
        try:
            await app(scope, self.receive, self.send)
        except asyncio.CancelledError:
            self._fail()
            raise
        except Exception:
            log.exception("request failed", method=self._line.method, path=self._line.path)
            self._fail()
        else:
            if not self.answered:
                # Unless the application may have taken the client for gone.
                if not (self.aborted or self._half_closed or self._owner.transport.is_closing()):
                    log.error("request ended without a response", method=self._line.method, path=self._line.path)
                self._fail()
        finally:
            if self._task is not None:
                self._owner.listener.tasks.discard(self._task)

    # Methods for the connection.

    def feed(self, body: Body, *, whole: bool) -> None:
        if self._body:
            if isinstance(self._body, bytes):
                self._body = bytearray(self._body)
            self._body += body
        else:
            self._body = body
        self._whole, self.awaits_continue = whole, False
        self._notify()

    def half_close(self) -> None:
        self._half_closed = True
        self._notify()

    def abort(self) -> None:
        """Tell the application that the client has disconnected. Ignore what it sends from now on."""
        self.aborted, self._body = True, b""
        self._notify()

    def _notify(self) -> None:
        if self._changed is not None:
            self._changed.set()
            self._changed = None

    # Methods for the application.

    async def receive(self) -> Message:
        if self.awaits_continue and not (self.aborted or self.answered):
            self.awaits_continue = False
            self._owner.transport.write(CONTINUE)
            self._owner.expect_body()
        while not (self.aborted or self.answered):
            if self._delivered:
                if self._half_closed and not self._told:
                    self._told = True
                    return {"type": "http.disconnect", HALF_CLOSED: True}
            elif self._body or self._whole:
                return self._take_body()
            if self._changed is None:
                self._changed = asyncio.Event()
            await self._changed.wait()
        return {"type": "http.disconnect"}

    def _take_body(self) -> Message:
        body, self._body = bytes(self._body), b""
        if self._whole:
            self._delivered = True
        else:
            self._owner.resume_reading()
        if not self._counted:
            return {"type": "http.request", "body": body, "more_body": False}
        return {"type": "http.request", "body": body, "more_body": not self._whole, RELEASE: self._release}

    def _release(self, size: int) -> None:
        if not (self.aborted or self.answered):
            self._owner.release(size)

    def write_whole(self, status: int, headers: Sequence[Header], body: bytes) -> bool:
        """Write the whole response at once, and return True.

        Return False, with nothing written, if the response must be sent by ``send``: the request is HEAD, a response
        has begun, or the send buffer is full. Return True without writing if the client has disconnected. ``headers``
        must include the length of the body and none of Connection, Keep-Alive and Transfer-Encoding. Raises ValueError
        if one of them contains CR, LF or NUL.
        """
        if self.aborted:
            return True
        owner = self._owner
        if self._start is not None or self.answered or owner.write_paused or self._line.method == "HEAD":
            return False
        keep_alive, persistence = self._persistence(self._keep_alive)
        lines = header_lines(headers)
        date = b"" if b"ate:" in lines and has_date(lines) else owner.listener.date()  # the first test is fast
        data = b"".join((STATUS_LINES[status], lines, date, persistence, b"\r\n", body))
        self.written = len(data)
        owner.transport.write(data)
        self._complete(keep_alive=keep_alive)
        return True

    async def send(self, message: Message) -> None:
        if self.aborted or self._owner.transport.is_closing():
            return
        if message["type"] == "http.response.start" and self._start is None:
            self._start = (message["status"], list(message.get("headers", ())))
            return
        if self.answered and self._line.method == "HEAD":  # complete since its first message
            return
        if message["type"] != "http.response.body" or self._start is None or self.answered:
            raise RuntimeError(f"unexpected ASGI message {message['type']}")
        if self._owner.write_paused:
            await self._owner.writable()
            if self.aborted or self._owner.transport.is_closing():
                return
        self._write(message.get("body", b""), more=message.get("more_body", False))

    def _write(self, piece: bytes, *, more: bool) -> None:
        head, response = b"", self._response
        if response is None:
            head, response = self._begin_response(len(piece), more=more)
        data = head + response.encode(piece, more=more)
        self._response = response
        if data:
            self.written = len(data)
            self._owner.transport.write(data)
        if more and self._line.method != "HEAD":
            return
        if response.is_short:
            log.error("response shorter than its Content-Length", path=self._line.path)
            self._owner.cut(reset=False)
        else:
            self._complete(keep_alive=self._keep_alive)

    def _begin_response(self, size: int, *, more: bool) -> tuple[bytes, ResponseBody]:
        assert self._start is not None
        status, headers = self._start
        response = ResponseBody(
            status,
            headers,
            only_head=self._line.method == "HEAD",
            chunks=self._line.version == "1.1",
            size=None if more else size,
        )
        self._keep_alive, persistence = self._persistence(self._keep_alive and response.keep_alive)
        self.awaits_continue = False  # from now on, 100 Continue would be part of the response
        lines = header_lines(response.headers)
        date = b"" if has_date(lines) else self._owner.listener.date()
        return b"".join((STATUS_LINES[status], lines, date, persistence, b"\r\n")), response

    def _persistence(self, keep_alive: bool) -> tuple[bool, bytes]:
        """Return whether the connection may serve another request, and the header line that tells the client.

        A client that waits for 100 Continue and gets the response instead may or may not send the body: nobody could
        tell where the next request begins (RFC 9110, 10.1.1).
        """
        if not keep_alive or self._owner.stopping or self.awaits_continue:
            return False, b"Connection: close\r\n"
        return True, b"" if self._line.version == "1.1" else b"Connection: keep-alive\r\n"

    def _complete(self, *, keep_alive: bool) -> None:
        self.answered, self._body = True, b""
        if self._changed is not None:
            self._notify()
        self._owner.answered(keep_alive=keep_alive)

    def _fail(self) -> None:
        """End the exchange of an application that ended without a complete response."""
        if self.aborted or self.answered:
            return
        if self._half_closed and self._start is None:
            self._owner.cut(reset=False)  # the application took the end of the stream for a disconnect
        elif self._response is None:
            self._keep_alive, self._start = False, None
            refusal = Refusal(500, b"internal error; see the engine's log")
            only_head = self._line.method == "HEAD"
            self._owner.transport.write(refusal.response(self._owner.listener.date(), only_head=only_head))
            self._complete(keep_alive=False)
        else:
            self._owner.cut(reset=self.ends_with_connection)
