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

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Header = tuple[bytes, bytes]

HEAD_LIMIT = 64 << 10  #: bytes of request line and headers
BACKLOG = 2048
#: An ASGI extension of ours: ``scope["extensions"][WHOLE_REPLY]["write"](status, headers, body)`` writes a reply in
#: one piece, for half the cost of two messages. False: it could not, send the messages.
WHOLE_REPLY = "functiond.whole_reply"


class _State(ServerState):
    """What the connections share; ``idle`` is set while there are none."""

    def __init__(self) -> None:
        super().__init__()
        self.idle = asyncio.Event()
        self.idle.set()


class _Connection(HttpToolsProtocol):
    """Bounds what a client may send before its request begins, in bytes and in time."""

    server_state: _State

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._in_head, self._head, self._chunk = True, 0, 0
        self.server_state.idle.clear()
        # Closes a connection that never says anything; the first bytes cancel it.
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
        if not self.connections:
            self.server_state.idle.set()

    def data_received(self, data: bytes) -> None:
        self._chunk = len(data)
        if self._in_head:
            self._head += self._chunk
        if self._head > HEAD_LIMIT + self._chunk:
            self._refuse_head()
        else:
            super().data_received(data)

    def on_message_begin(self) -> None:
        self._in_head, self._head = True, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        # The sum is only taken if the bytes that came since the head began could exceed the limit at all.
        if self._head + self._chunk > HEAD_LIMIT and self._head_size() > HEAD_LIMIT:
            raise ValueError("head too large")
        self._in_head, self._head = False, 0
        super().on_headers_complete()

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

    def _refuse(self, status: int, code: bytes, message: bytes) -> None:
        body = b'{"error_code":"%b","error_msg":"%b"}' % (code, message)
        self.transport.write(
            STATUS_LINE[status]
            + b"content-type: application/json\r\ncontent-length: %d\r\n" % len(body)
            + b"x-request-id: %b\r\nconnection: close\r\n\r\n" % str(uuid.uuid4()).encode()
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
async def listen(app: App, host: str, port: int, *, grace: float = 5.0, keep_alive: int = 75) -> AsyncIterator[int]:
    """Serve ``app`` until the block is left; gives the port, which is a free one for ``port`` 0.

    Leaving closes the door first, then lets running requests finish for ``grace`` seconds; what is left is
    cancelled, and cut off if it needs longer than that again to say so.
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
    state = _State()
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
