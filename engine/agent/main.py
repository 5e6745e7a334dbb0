"""Agent: joins an engine, and starts and ends instances as it says. The end of the connection ends the process."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import resource
import socket
import ssl
import time
from collections.abc import Mapping
from functools import partial
from itertools import count
from typing import NoReturn

import msgspec
import structlog
import uvloop

from engine import __version__
from engine.agent.api import ApiListener
from engine.agent.hosted import Hosted, Node
from engine.agent.link import Configuration, Report, encode, now
from engine.agent.packages import Packages
from engine.agent.relay import Outlet, Relay
from engine.errors import InvalidField, SettingsError
from engine.executors.local.choice import IsolationOptions
from engine.executors.local.launcher import LocalLauncher, LocalOptions, open_launcher
from engine.executors.local.spawn import FunctionAccess
from engine.executors.logs import LogFiles, LogRecorder
from engine.executors.nodes import connection as wire
from engine.executors.nodes import messages
from engine.executors.nodes.connection import Connection, ProtocolError
from engine.executors.nodes.messages import send
from engine.executors.nodes.streams import Streams
from engine.isolation.bubblewrap import api_sockets
from engine.logs.feed import LogBoard
from engine.metrics.prometheus import configure_logging
from engine.model.clock import SystemClock
from engine.runtimes.catalog import BY_BOOTSTRAP, Family, runtime_name

_TIMEOUT = 10.0  #: seconds for the connection, and for the engine's first message
_PINGS = 5  #: during a lease
#: One runtime of each family; any version of Python and Node.js runs functions of all.
_SAMPLES = {Family.PYTHON: runtime_name(Family.PYTHON, (3, 9)), Family.NODE: runtime_name(Family.NODE, (18, 15))}
_SAMPLES |= {family: name for name, family in BY_BOOTSTRAP.items()}

log = structlog.get_logger("functiond.agent")


def run(configuration: Configuration, link: socket.socket) -> NoReturn:
    """Run an agent until the end of its connection, and exit."""
    configure_logging(configuration.log_format, "info")
    os.umask(0o077)  # functions have the umask that was read by ``spawn``
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    link.setblocking(False)  # a stopped supervisor cannot stop the agent
    uvloop.run(Agent(configuration, link).run())
    os._exit(1)


class Agent:
    """Owner of the connection to the engine. Every problem with it exits the process, and so ends all instances."""

    def __init__(self, configuration: Configuration, link: socket.socket) -> None:
        self._configuration, self._link = configuration, link
        self._connection: Connection
        self._node: Node | None = None  #: set when the agent has joined
        self._greeted_at = 0.0  #: seconds by ``now``
        self._verified = False  #: the engine has the certificate that the token file names
        self._welcome: asyncio.Future[messages.Welcome]
        self._timer: asyncio.TimerHandle | None = None
        self._pings: dict[int, float] = {}  #: times of those without an answer, by their numbers

    async def run(self) -> None:
        self._welcome = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(_TIMEOUT):
                await self._connect()
                welcome = await self._welcome
        except TimeoutError:
            self._exit("the engine does not answer", Report())
        except OSError as error:
            problem = str(error) or type(error).__name__
            if getattr(error, "reason", "") == "WRONG_VERSION_NUMBER":
                problem = "no TLS is spoken there: this is not the address of executor.nodes.listen"
            self._exit(f"cannot connect: {problem}", Report())
        self._report(Report(session=welcome.session))
        self._set_deadline(self._greeted_at + welcome.lease)  # the engine has promised no less
        pinging = asyncio.create_task(self._ping(welcome.lease / _PINGS))
        try:
            await self._join(welcome)
        except (SettingsError, msgspec.ValidationError) as error:
            self._report(Report(refused=True))
            send(self._connection, messages.Unfit(str(error)))
            self._connection.close(f"this machine is unfit: {error}")
            await asyncio.sleep(_TIMEOUT)  # ``closed`` ends it
        await pinging

    # --- joining ---

    async def _connect(self) -> None:
        configuration, loop = self._configuration, asyncio.get_running_loop()
        loop.add_reader(self._link, os._exit, 1)  # the supervisor has ended
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # the fingerprint is checked instead
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        transport, self._connection = await loop.create_connection(
            lambda: Connection(self), configuration.host, configuration.port, ssl=context
        )
        certificate = transport.get_extra_info("ssl_object").getpeercert(True)
        if not hmac.compare_digest(hashlib.sha256(certificate).hexdigest(), configuration.fingerprint):
            problem = "its certificate is not the one that the token file names; copy the token file again"
            self._exit(problem, Report(refused=True))
        self._verified, self._greeted_at = True, now()
        hello = messages.Hello(
            version=__version__,
            wire=messages.WIRE,
            token=configuration.token,
            previous=configuration.previous,
            at=time.time(),
            cpus=configuration.cpus,
            memory=configuration.memory,
        )
        send(self._connection, hello)

    async def _join(self, welcome: messages.Welcome) -> None:
        connection, configuration = self._connection, self._configuration
        numbers, starts, outlet = count(1, 2), dict[str, messages.Start](), Outlet(connection)
        packages = Packages(configuration.folder / "packages", configuration.cache, connection, numbers)
        await packages.load()
        streams = Streams(connection)
        self._api = ApiListener(streams, numbers)
        port = await self._api.open() if welcome.api_ports else 0
        files = LogFiles(configuration.tmp, 0)  # gets no lines, which all go to the engine
        launcher = await open_launcher(
            self._options(welcome, port, starts),
            code_path=packages.folder,
            check_code=None,
            interpreters=None,
            recorder=LogRecorder(files, limit=0, clock=SystemClock(), board=LogBoard()),
            make_instance=partial(Relay, outlet),
        )
        for listening in api_sockets(configuration.tmp) if port else ():
            await self._api.add(listening)
        lacks = await _lacks(launcher)
        self._node = Node(connection, launcher, packages, outlet, streams, starts, {})
        folders, kills = tuple(launcher.folders), configuration.kills
        send(connection, messages.Joined(walls=launcher.walls, lacks=lacks, kills=kills, folders=folders))
        log.info("joined", node=welcome.name, engine=connection.peer(), lacks=lacks)

    def _options(self, welcome: messages.Welcome, port: int, starts: Mapping[str, messages.Start]) -> LocalOptions:
        access = FunctionAccess(f"http://127.0.0.1:{port}", lambda _, instance: starts[instance].token)
        ports = dict.fromkeys((*welcome.api_ports, port), port) if port else {}
        asked, own = welcome.sandbox.get("folders", {}), self._configuration.folders
        folders = {name: {**asked[name], "source": own[name].source} for name in own.keys() & asked.keys()}
        for name, folder in folders.items():
            if own[name].mode == "ro":
                folder["mode"] = "ro"
        return LocalOptions(
            tmp=self._configuration.tmp,
            marker=self._configuration.marker,
            region=welcome.region,
            processes=welcome.processes,
            term_grace=welcome.term_grace,
            access=access if port else None,
            agency_of=lambda _, instance: starts[instance].agency,
            sandbox=msgspec.convert(welcome.sandbox | {"api_ports": ports, "folders": folders}, IsolationOptions),
        )

    async def _ping(self, pause: float) -> None:
        for number in count():
            self._pings[number] = now()
            send(self._connection, messages.Ping(number))
            await asyncio.sleep(pause)

    # --- called by the connection ---

    def received(self, kind: int, channel: int, body: bytes) -> None:
        node = self._node
        if kind == wire.CONTROL and self._verified:
            self._handle(messages.from_engine(body))
        elif kind == wire.FRAMES and node is not None:
            if channel in node.hosted:  # otherwise its end is on the way
                node.hosted[channel].feed(body)
        elif kind == wire.STREAM and node is not None:
            node.streams.received(channel, body)
        elif kind == wire.PACKAGE and node is not None:
            node.packages.received(channel, body)
        else:
            raise ProtocolError(f"it sent a message of kind {kind} out of order")

    def closed(self, reason: str) -> None:
        self._exit(reason, Report())

    # --- internal ---

    def _handle(self, message: messages.FromEngine) -> None:
        node = self._node
        match message:
            case messages.Welcome() if not self._welcome.done():
                self._connection.limit = wire.LONGEST_CONTROL
                self._welcome.set_result(message)
            case messages.Refused():
                self._exit(f"refused: {message.reason}", Report(refused=True))
            case messages.Leave():
                self._exit(f"sent away: {message.reason}", Report(left=True))
            case messages.Pong() if message.number in self._pings:
                self._set_deadline(self._pings.pop(message.number) + message.seconds)
            case messages.NoPackage() if node is not None:
                node.packages.failed(message.number, message.reason)
            case messages.StreamRead() if node is not None:
                node.streams.acknowledged(message.number, message.size)
            case messages.Prepare() if node is not None and message.number not in node.hosted:
                Hosted(node, message)
            case messages.Start() if node is not None and message.number in node.hosted:
                node.hosted[message.number].start(message)
            case messages.Kill() if node is not None:
                if message.number in node.hosted:  # otherwise its end is on the way
                    node.hosted[message.number].kill()
            case _:
                raise ProtocolError(f"it sent {type(message).__name__} out of order")

    def _set_deadline(self, deadline: float) -> None:
        """Have the supervisor end the agent at a time by ``now``. If the supervisor is stopped, the agent exits."""
        self._report(Report(deadline=deadline))
        if self._timer is not None:
            self._timer.cancel()
        reason = "no sign of the engine within the lease"
        self._timer = asyncio.get_running_loop().call_later(deadline - now(), self._exit, reason, Report())

    def _report(self, report: Report) -> None:
        self._link.send(encode(report))

    def _exit(self, reason: str, report: Report) -> NoReturn:
        """End the process and, as it is the only child of process 1, all instances."""
        configuration = self._configuration
        try:
            self._report(report)
            log.warning("agent ends", engine=f"{configuration.host}:{configuration.port}", reason=reason)
        finally:  # also if the supervisor is stopped and reads nothing, or nobody reads the log
            os._exit(0)


async def _lacks(launcher: LocalLauncher) -> dict[str, str]:
    lacks = {}
    for family, runtime in _SAMPLES.items():
        try:
            await launcher.check_runtime(runtime)
        except InvalidField as error:
            lacks[family.value] = error.allowed
    return lacks
