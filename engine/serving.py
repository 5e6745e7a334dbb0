"""uvicorn in our loop, as a resource that owns its port: its HTTP protocol without its server.

``uvicorn.Server`` takes the signals and wakes up ten times a second to look at flags; here the listening socket and
the connections are all there is, so an idle server sleeps. Without that tick there is no Date header to refresh: it
is left off, as RFC 9110 allows.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, MutableMapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio
from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from engine.errors import SettingsError
from engine.trigger_seams import WHOLE_REPLY as WHOLE_REPLY

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Header = tuple[bytes, bytes]

HEAD_LIMIT = 64 << 10  #: bytes of request line and headers
BACKLOG = 2048
RETRY = b"retry-after: 1\r\n"


class _State(ServerState):
    """What the connections share; ``idle`` is set while there are none."""

    def __init__(self, *, connection_limit: int, held_limit: int) -> None:
        super().__init__()
        self.connection_limit, self.held_limit = connection_limit, held_limit
        self.held = 0  #: bytes of requests without an answer whose bodies did not come at once
        self.idle = asyncio.Event()
        self.idle.set()


class _Connection(HttpToolsProtocol):
    """Bounds what a client may send before its request is complete, in bytes and in time.

    One timer runs from the connection, or the last answer, to the end of the next head; another while a body is
    under way that did not come at once.
    """

    server_state: _State

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._in_head, self._head, self._chunk = True, 0, 0
        self._held, self._fed = 0, 0.0
        self._body_timer: asyncio.TimerHandle | None = None
        self.server_state.idle.clear()
        if len(self.connections) > self.server_state.connection_limit:
            self._refuse(503, b"FSS.0503", b"too many connections: use fewer, or retry", RETRY)
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
        self._chunk = len(data)
        if self._in_head:
            self._head += self._chunk
        if self._head > HEAD_LIMIT + self._chunk:
            self._refuse_head()
            return
        super().data_received(data)
        if self._body_timer is not None or (self.cycle is not None and self.cycle.more_body):
            self._watch_body()

    def _unset_keepalive_if_required(self) -> None:
        """Called for any bytes; but only a whole head ends the wait for it, or one byte would do to stay for ever."""

    def _stop_head_timer(self) -> None:
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
            self.timeout_keep_alive_task = None

    def on_message_begin(self) -> None:
        self._in_head, self._head = True, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        # The sum is only taken if the bytes that came since the head began could exceed the limit at all.
        if self._head + self._chunk > HEAD_LIMIT and self._head_size() > HEAD_LIMIT:
            raise ValueError("head too large")
        self._in_head, self._head = False, 0
        self._stop_head_timer()
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        if self._held:
            self._hold(sum(len(cycle.body) for cycle, _ in self.pipeline))
        if self._body_timer is not None:
            self._fed = self.loop.time()  # till now it may have waited for us
        super().on_response_complete()

    def _hold(self, size: int) -> None:
        self.server_state.held += size - self._held
        self._held = size

    def _watch_body(self) -> None:
        """Called for each packet of a body that did not come at once: what did is soon the engine's to bound."""
        if self.cycle.response_complete or self.transport.is_closing():
            self._stop_body_timer()
            return
        self._hold(self._held + self._chunk)
        if self.server_state.held > self.server_state.held_limit:
            self._cut_off(503, b"FSS.0503", b"too many bytes of requests are held: retry later", RETRY)
        if not self._body_missing():
            self._stop_body_timer()
            return
        self._fed = self.loop.time()
        if self._body_timer is None:
            self._body_timer = self.loop.call_later(self.timeout_keep_alive, self._check_body)

    def _check_body(self) -> None:
        """The timer is not set anew for each packet: it looks when the last one came."""
        self._body_timer = None
        if not self._body_missing():
            return
        if self.flow.read_paused or self.cycle.waiting_for_100_continue:
            self._fed = self.loop.time()  # it waits for us
        left = self._fed + self.timeout_keep_alive - self.loop.time()
        if left > 0:
            self._body_timer = self.loop.call_later(left, self._check_body)
        else:
            self._cut_off(408, b"FSS.0408", b"the body stopped coming: send the request again")

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

    def send_400_response(self, msg: str) -> None:
        """Called for whatever is not HTTP, and for a head that ``on_headers_complete`` refused."""
        if self._in_head and self.headers is not None and self._head_size() > HEAD_LIMIT:
            self._refuse_head()
        else:
            self._refuse(400, b"FSS.0400", b"this is not an HTTP/1.1 request")

    def _refuse_head(self) -> None:
        self._refuse(431, b"FSS.0400", b"request line and headers may have %d bytes" % HEAD_LIMIT)

    def _cut_off(self, status: int, code: bytes, message: bytes, more: bytes = b"") -> None:
        """End the request whose body is coming. It hears why, unless that could be taken for another one's answer."""
        self._hold(0)
        self.cycle.disconnected = True  # even if its last byte has come: who is refused must not be run
        self.cycle.message_event.set()
        if self.pipeline or self.cycle.response_started:
            self.transport.close()
        else:
            self._refuse(status, code, message, more)

    def _refuse(self, status: int, code: bytes, message: bytes, more: bytes = b"") -> None:
        body = b'{"error_code":"%b","error_msg":"%b"}' % (code, message)
        self.transport.write(
            STATUS_LINE[status]
            + b"content-type: application/json\r\ncontent-length: %d\r\n" % len(body)
            + b"x-request-id: %b\r\nconnection: close\r\n" % str(uuid.uuid4()).encode()
            + more
            + b"\r\n"
            + body
        )
        self.transport.close()


def _write_whole(cycle: RequestResponseCycle, status: int, headers: Iterable[Header], body: bytes) -> bool:
    """What ``cycle.send`` does with a start and a body, for headers that the engine itself made."""
    if cycle.disconnected:
        return True  # nobody listens
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
    del cycle.scope["extensions"]  # which refers to the cycle: only the collector would free the two
    cycle.on_response()
    return True


@asynccontextmanager
async def listen(
    app: App,
    host: str,
    port: int,
    *,
    grace: float = 5.0,
    keep_alive: int = 75,
    connections: int = 8192,
    held_limit: int = 256 << 20,
) -> AsyncIterator[int]:
    """Serve ``app`` until the block is left; gives the port, which is a free one for ``port`` 0.

    Leaving closes the door first, then lets running requests finish for ``grace`` seconds; what is left is
    cancelled, and cut off if it needs longer than that again to say so.
    A client has ``keep_alive`` seconds for a head, and between two packets of a body. More than so many connections,
    or bytes of unanswered requests that came in more than one packet, are refused with 503.
    Raises SettingsError if the address cannot be had.
    """
    config = Config(
        app,
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        timeout_keep_alive=keep_alive,
    )
    config.load()
    state = _State(connection_limit=connections, held_limit=held_limit)
    server = await _open(lambda: _Connection(config=config, server_state=state, app_state={}), host, port)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        with anyio.CancelScope(shield=True):
            await _end(server, state, grace)


async def _open(make: Callable[[], asyncio.Protocol], host: str, port: int) -> asyncio.Server:
    # localhost has two addresses, which would get two different free ports.
    host = "127.0.0.1" if host == "localhost" else host
    try:
        server = await asyncio.get_running_loop().create_server(make, host, port, backlog=BACKLOG)
    except OSError as error:
        problem = error.strerror or str(error)
        raise SettingsError(f"cannot listen on {host} port {port} ({problem}): choose another --port") from None
    return server


async def _end(server: asyncio.Server, state: _State, grace: float) -> None:
    server.close()
    for connection in list(state.connections):
        connection.shutdown()
    with anyio.move_on_after(grace):
        await state.idle.wait()
        while state.tasks:  # of callers that went away
            await asyncio.wait(set(state.tasks))
    for task in state.tasks:
        task.cancel()
    if state.tasks:  # who is cancelled may still say so to its caller
        await asyncio.wait(set(state.tasks), timeout=grace)
    for connection in list(state.connections):
        connection.transport.abort()
    while state.tasks:
        for task in state.tasks:
            task.cancel()
        await asyncio.wait(set(state.tasks))
    await state.idle.wait()
    await server.wait_closed()
