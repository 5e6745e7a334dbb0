"""Listener for agents: admits those that show the token of a node, and closes all other connections."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable

import structlog

from engine.errors import SettingsError
from engine.executors.nodes import messages
from engine.executors.nodes.certificate import Credentials
from engine.executors.nodes.connection import CONTROL, LONGEST_CONTROL, Connection, ConnectionOwner, ProtocolError
from engine.executors.nodes.messages import Hello

_TIMEOUT = 10.0  #: seconds for the TLS handshake, and then for ``Hello``
_STRANGERS = 64  #: connections that have not shown a token yet
_PAUSE = 1.0  #: seconds after a failed accept, such as for lack of descriptors

log = structlog.get_logger("functiond.nodes")

#: Admits a node by its name and its first message. Returns the owner of its connection, or why it is refused.
Admit = Callable[[str, Hello, Connection], Awaitable[ConnectionOwner | str]]


class Listener:
    """Socket on which agents connect. ``run`` accepts connections until it is cancelled."""

    def __init__(self, listen: str, credentials: Credentials, admit: Admit) -> None:
        """Bind the socket. Raises SettingsError."""
        self._credentials, self._admit = credentials, admit
        host, _, port = listen.rpartition(":")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            self.socket = socket.create_server((host.strip("[]"), int(port)), family=family, backlog=1024)
        except (OSError, ValueError) as error:
            problem = str(getattr(error, "strerror", "") or error).partition(" (while")[0]  # the rest is the address
            advice = "choose another executor.nodes.listen"
            raise SettingsError(f"cannot listen on {listen} ({problem}); {advice}") from None
        self.socket.setblocking(False)
        self._strangers = asyncio.Semaphore(_STRANGERS)
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while True:
                await self._strangers.acquire()
                try:
                    accepted, address = await loop.sock_accept(self.socket)
                except OSError as error:
                    log.warning("agents cannot connect", problem=error.strerror)
                    self._strangers.release()
                    await asyncio.sleep(_PAUSE)
                    continue
                task = asyncio.create_task(self._meet(accepted, f"{address[0]}:{address[1]}"))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        finally:
            self.socket.close()
            for task in self._tasks:
                task.cancel()

    async def _meet(self, accepted: socket.socket, address: str) -> None:
        """Hold one connection until it is admitted or closed."""
        stranger = Stranger()
        connection = Connection(stranger)
        problem = ""
        try:
            async with asyncio.timeout(2 * _TIMEOUT):
                await asyncio.get_running_loop().connect_accepted_socket(
                    lambda: connection, accepted, ssl=self._credentials.context, ssl_handshake_timeout=_TIMEOUT
                )
                hello = await stranger.hello
            problem = await self._greet(hello, connection)
        except TimeoutError:
            problem = "it sent nothing in time"
        except (OSError, ProtocolError) as error:
            problem = str(error) or type(error).__name__
        finally:
            self._strangers.release()
            if connection.owner is stranger:
                connection.abort(problem)
        if problem:
            log.warning("agent refused", address=address, reason=problem)

    async def _greet(self, hello: Hello, connection: Connection) -> str:
        """Admit an agent. Return why it is refused."""
        name = self._credentials.name_of(hello.token)
        problem: ConnectionOwner | str = "its token is not that of a node of this engine; copy the token file again"
        if name is not None:
            problem = await self._admit(name, hello, connection)
        if not isinstance(problem, str):
            connection.limit, connection.owner = LONGEST_CONTROL, problem
            return ""
        messages.send(connection, messages.Refused(problem))
        connection.close(problem)
        return f"{problem} (node {name})" if name else problem


class Stranger:
    """Owner of a connection that has not shown a token (protocol ``ConnectionOwner``)."""

    def __init__(self) -> None:
        self.hello: asyncio.Future[Hello] = asyncio.get_running_loop().create_future()

    def received(self, kind: int, channel: int, body: bytes) -> None:
        message = messages.from_agent(body) if kind == CONTROL else None
        if not isinstance(message, Hello) or self.hello.done():
            raise ProtocolError("it did not begin with Hello")
        self.hello.set_result(message)

    def closed(self, reason: str) -> None:
        if not self.hello.done():
            self.hello.set_exception(ProtocolError(reason))
