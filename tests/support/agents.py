"""Engine's end of the connection to agents, and node supervisors that a test starts."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import signal
import ssl
import subprocess
import sys
import zipfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

from engine.executors.nodes import connection as wire
from engine.executors.nodes.connection import Connection, ConnectionOwner
from engine.executors.nodes.messages import (
    Fetch,
    FromAgent,
    FromEngine,
    Gone,
    Hello,
    Joined,
    Kill,
    Ping,
    Pong,
    Prepare,
    Prepared,
    Refused,
    Start,
    Welcome,
    from_agent,
    send,
)
from engine.isolation.limits import INSTANCE_VARIABLE
from engine.isolation.processes import PAGE, carries
from engine.model import CodePackage, Function
from engine.runtimes.protocol import Answer, FrameReader, Logged, Progress, invoke_frame
from tests.support.certificates import write_certificate
from tests.support.executing import function

LIMIT = 30  #: seconds
SECRET = "5" * 64
LEASE = 5.0  #: seconds, so that a busy machine loses no node
Message = TypeVar("Message")


class EngineEnd:
    """Listener for agents, with ``folder``/node.token for them. ``packages`` has the code that they may fetch."""

    def __init__(self, folder: Path, welcome: dict[str, Any]) -> None:
        self.folder, self.welcome = folder, welcome
        self.port, self.fingerprint = 0, ""
        self.connect: Callable[[ConnectionOwner], Connection] = Connection
        self.refusal = ""
        self.packages: dict[str, bytes] = {}
        self.fetched: list[str] = []
        self.connections: list[AgentEnd] = []
        self._connected, self._joined = asyncio.Queue[AgentEnd](), asyncio.Queue[AgentEnd]()

    async def connected(self) -> AgentEnd:
        """Wait until the next agent has shown its token."""
        async with asyncio.timeout(LIMIT):
            return await self._connected.get()

    async def joined(self) -> AgentEnd:
        """Wait until the next agent has joined."""
        async with asyncio.timeout(LIMIT):
            return await self._joined.get()

    def accept(self) -> Connection:
        end = AgentEnd(self)
        self.connections.append(end)
        return end.connection

    def handle(self, end: AgentEnd, message: FromAgent) -> None:
        """Answer a message as the engine does. A test may replace this method."""
        match message:
            case Hello():
                end.hello = message
                self._connected.put_nowait(end)
                if self.refusal:
                    send(end.connection, Refused(self.refusal))
                    return
                end.connection.limit = wire.LONGEST_CONTROL
                values: dict[str, Any] = {
                    "session": f"session-{len(self.connections)}",
                    "name": "node",
                    "lease": LEASE,
                    "region": "local-1",
                    "processes": 64,
                    "term_grace": 0.0,
                    "sandbox": {"isolation": "process", "fork_server": "off"},
                }
                send(end.connection, Welcome(**(values | self.welcome)))
            case Joined():
                end.joined = message
                self._joined.put_nowait(end)
            case Ping() if not end.silent:
                end.pongs += 1
                send(end.connection, Pong(message.number, end.lease))
            case Fetch():
                self.fetched.append(message.sha256)
                end.connection.send(wire.PACKAGE, message.number, self.packages[message.sha256])
                end.connection.send(wire.PACKAGE, message.number, b"")

    def add(self, source: str) -> CodePackage:
        """Add a zip package with this source as index.py."""
        written = io.BytesIO()
        with zipfile.ZipFile(written, "w") as archive:
            archive.writestr(zipfile.ZipInfo("index.py"), source)
        return self.add_bytes(written.getvalue())

    def add_bytes(self, package: bytes) -> CodePackage:
        name = hashlib.sha256(package).hexdigest()
        self.packages[name] = package
        return CodePackage(sha256=name, digest="", size=len(package))


class AgentEnd:
    """Engine's end of the connection of one agent (protocol ``ConnectionOwner``)."""

    def __init__(self, engine: EngineEnd) -> None:
        self.engine, self.connection = engine, engine.connect(self)
        self.hello: Hello
        self.joined: Joined
        self.silent = False  #: answer no pings
        self.lease: float = engine.welcome.get("lease", LEASE)  #: promised from now on
        self.pongs = 0
        self.messages: list[FromAgent] = []
        self.streams: dict[int, bytearray] = {}
        self.ended: set[int] = set()  #: streams that the agent has ended
        self.hosted: dict[int, Remote] = {}
        self.lost = asyncio.Event()
        self._numbers = count(2, 2)
        self._changed = asyncio.Event()

    def received(self, kind: int, channel: int, body: bytes) -> None:
        if kind == wire.CONTROL:
            message = from_agent(body)
            self.messages.append(message)
            self.engine.handle(self, message)
        elif kind == wire.STREAM:
            self.streams.setdefault(channel, bytearray()).extend(body)
            if not body:
                self.ended.add(channel)
        else:
            self.hosted[channel].received(kind, body)
        self._changed.set()

    def closed(self, reason: str) -> None:
        self.lost.set()
        self._changed.set()

    def send(self, message: FromEngine) -> None:
        send(self.connection, message)

    async def shorten(self, seconds: float) -> None:
        """Wait for the next ping, and promise so many seconds only."""
        self.lease, before = seconds, self.pongs
        await self.until(lambda: self.pongs > before)

    def pause(self, paused: bool) -> None:
        """Read nothing that the agent sends, or read again."""
        transport = self.connection._transport
        assert transport is not None
        transport.pause_reading() if paused else transport.resume_reading()

    async def until(self, look: Callable[[], Any]) -> Any:
        """Wait until ``look`` returns a true value, and return it."""
        async with asyncio.timeout(LIMIT):
            while not (value := look()):
                self._changed.clear()
                await self._changed.wait()
            return value

    async def message(self, kind: type[Message], number: int) -> Message:
        """Wait for the message of this kind about a number."""
        return await self.until(  # type: ignore[no-any-return]
            lambda: next((m for m in self.messages if isinstance(m, kind) and getattr(m, "number", -1) == number), None)
        )

    async def prepare(self, asked: Function, *gpus: str) -> Remote:
        remote = Remote(self, next(self._numbers))
        self.hosted[remote.number] = remote
        self.send(Prepare(number=remote.number, function=asked, memory=asked.memory_size, gpus=gpus))
        await self.message(Prepared, remote.number)
        return remote

    async def start(self, source: str, handler: str = "handler", *, token: str = "", **fields: Any) -> Remote:
        """Start an instance of a function with this source, and wait until it is ready."""
        remote = await self.prepare(function(handler, code=self.engine.add(source), **fields))
        await remote.start(token)
        return remote


class Remote:
    """Instance on the node of an agent."""

    def __init__(self, end: AgentEnd, number: int) -> None:
        self.end, self.number = end, number
        self.name = f"instance{number}of{os.urandom(4).hex()}"
        self.seen: list[Answer | Logged | Progress | tuple[int, bytes]] = []  #: frames and raw output, in their order
        self.bytes = self.sent = 0
        self._reader = FrameReader()
        self._tickets = count(1)

    def received(self, kind: int, body: bytes) -> None:
        self.bytes += len(body)
        self.seen += self._reader.feed(body) if kind == wire.FRAMES else [(kind, body)]

    async def start(self, token: str = "") -> None:
        self.end.send(Start(number=self.number, instance=self.name, token=token))
        await self.answer(0)

    def call(self, event: bytes = b"{}") -> int:
        ticket = next(self._tickets)
        self.send(invoke_frame(ticket, f"request-{ticket}", "", event))
        return ticket

    def send(self, frame: bytes) -> None:
        self.sent += len(frame)
        self.end.connection.send(wire.FRAMES, self.number, frame)

    async def invoke(self, event: bytes = b"{}") -> bytes:
        answer = await self.answer(self.call(event))
        assert answer.code == 0, answer
        return answer.result

    async def answer(self, ticket: int) -> Answer:
        found = await self.end.until(
            lambda: (
                next(
                    (seen for seen in self.seen if isinstance(seen, Answer) and seen.ticket == ticket),
                    None,
                )
                or self._gone()
            )
        )
        assert isinstance(found, Answer), found
        return found

    def kill(self) -> None:
        self.end.send(Kill(self.number))

    async def gone(self) -> Gone:
        found: Gone = await self.end.until(self._gone)
        return found

    def _gone(self) -> Gone | None:
        gone = (m for m in self.end.messages if isinstance(m, Gone) and m.number == self.number)
        return next(gone, None)

    def pids(self) -> list[int]:
        """Return the processes of the instance, as this machine sees them."""
        found = (int(entry) for entry in os.listdir("/proc") if entry.isdigit())
        return [pid for pid in found if carries(pid, INSTANCE_VARIABLE, self.name)]


@asynccontextmanager
async def engine_end(folder: Path, *, kind: type[EngineEnd] = EngineEnd, **welcome: Any) -> AsyncIterator[EngineEnd]:
    """Listen for agents as an engine. ``welcome`` replaces fields of ``Welcome``."""
    write_certificate(folder)
    engine = kind(folder, welcome)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    server = await asyncio.get_running_loop().create_server(engine.accept, "127.0.0.1", 0, ssl=context)
    engine.port = server.sockets[0].getsockname()[1]
    engine.fingerprint = hashlib.sha256(ssl.PEM_cert_to_DER_cert((folder / "cert.pem").read_text())).hexdigest()
    write_token(folder / "node.token", engine.fingerprint)
    try:
        yield engine
    finally:
        server.close()
        for end in engine.connections:
            end.connection.abort("the test ends")


def write_token(file: Path, fingerprint: str) -> None:
    file.touch(0o600)
    file.write_text(f"node.{SECRET}.{fingerprint}\n")


class Node:
    """Node supervisor in a process. ``log`` has its lines up to now, and those of its agents."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self.process, self._log = process, log

    @property
    def log(self) -> str:
        return self._log.read_text()

    def agent(self) -> int:
        """Return the process of the agent, as this machine sees it."""
        commands = {pid: Path(f"/proc/{pid}/cmdline").read_text() for pid in descendants(self.process.pid)}
        return next(pid for pid, command in commands.items() if "\0engine.agent\0" in command)

    def processes(self) -> list[int]:
        """Return the supervisor, the agent and those between them."""
        agent, below = self.agent(), list(descendants(self.process.pid))
        return [self.process.pid, *below[: below.index(agent) + 1]]

    def visible(self) -> str:
        """Return command lines and environments of these processes, which others of this machine may read."""
        names = ("cmdline", "environ")
        return "".join(Path(f"/proc/{pid}/{name}").read_text() for pid in self.processes() for name in names)

    def memory(self) -> int:
        """Return the resident bytes of the agent."""
        return int(Path(f"/proc/{self.agent()}/statm").read_text().split()[1]) * PAGE

    async def settled(self, remote: Remote) -> None:
        """Wait until an instance that writes without end waits for a reader."""
        waited = 0
        while waited < 20:
            before = [_written(pid) for pid in remote.pids()]
            await asyncio.sleep(0.01)
            waited = waited + 1 if before == [_written(pid) for pid in remote.pids()] and any(before) else 0

    async def end(self) -> int:
        """Stop the supervisor, and return its exit code."""
        if self.process.returncode is None:
            with suppress(ProcessLookupError):
                self.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(LIMIT):
            return await self.process.wait()


@asynccontextmanager
async def node(
    engine: EngineEnd,
    *options: str,
    prefix: Sequence[str] = (),
    path: str | None = None,
    log: Path | None = None,
    ticket: str = "",
) -> AsyncIterator[Node]:
    """Run a node supervisor until the block ends. ``prefix`` is a program that starts it.

    ``path`` is its search path for programs, and ``log`` the file for its lines. With ``ticket``, the supervisor gets
    this text at its standard input, which stays open, in place of the token file.
    """
    log = log or engine.folder / f"log-{os.urandom(4).hex()}"
    command = [sys.executable, "-P", "-m", "engine", "agent", "--join", f"https://127.0.0.1:{engine.port}"]
    token = "-" if ticket else str(engine.folder / "node.token")
    command += ["--token", token, "--data-dir", str(engine.folder / "agent"), *options]
    with log.open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            *prefix,
            *command,
            stdin=subprocess.PIPE if ticket else None,
            stderr=errors,
            env=os.environ | ({"PATH": path} if path is not None else {}),
        )
    if process.stdin is not None:
        process.stdin.write(ticket.encode())
    started = Node(process, log)
    try:
        yield started
    finally:
        await started.end()


def _written(pid: int) -> int:
    """Return the bytes that a process has written."""
    return int(Path(f"/proc/{pid}/io").read_text().partition("wchar: ")[2].split()[0])


def descendants(pid: int) -> Iterator[int]:
    """Yield all processes below one, parents before their children."""
    parents = dict[int, int]()
    for entry in os.listdir("/proc"):
        with suppress(OSError, ValueError):
            parents[int(entry)] = int(Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[1])
    for found in [child for child, parent in parents.items() if parent == pid]:
        yield found
        yield from descendants(found)
