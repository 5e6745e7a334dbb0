"""Tests of the listener for agents, by clients that are none."""

from __future__ import annotations

import asyncio
import errno
import math
import re
import socket
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from engine import __version__
from engine.errors import Deferred, SettingsError
from engine.executors.call import End
from engine.executors.nodes import messages
from engine.executors.nodes.connection import CONTROL, PIECE, STREAM, Connection
from engine.executors.nodes.listener import Listener
from engine.executors.nodes.messages import (
    Gone,
    Hello,
    Joined,
    Ping,
    Pong,
    Prepare,
    Problem,
    Refused,
    Start,
    Welcome,
)
from engine.executors.nodes.streams import MOST
from tests.support.executing import function, invocation
from tests.support.nodes import NodePool, node_pool
from tests.support.ports import free_port
from tests.support.waiting import until

OWN = rf"the engine {__version__} \({messages.WIRE}\)"


class Client:
    """Owner of a connection that keeps what it receives."""

    def __init__(self) -> None:
        self.messages: list[messages.FromEngine] = []
        self.ended: list[int] = []  #: streams
        self.reason: str | None = None

    def received(self, kind: int, channel: int, body: bytes) -> None:
        if kind == STREAM and not body:
            self.ended.append(channel)
            return
        assert kind == CONTROL
        self.messages.append(messages.from_engine(body))

    def closed(self, reason: str) -> None:
        self.reason = reason


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[NodePool]:
    async with node_pool(tmp_path, "n1", "n2", lease=1.0) as made:
        yield made


async def connect(opened: NodePool) -> tuple[Client, Connection]:
    host, port = opened.launcher.nodes.address.split(":")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    client = Client()
    connection = Connection(client)
    await asyncio.get_running_loop().create_connection(lambda: connection, host, int(port), ssl=context)
    return client, connection


def hello(opened: NodePool, name: str = "n1", *, ahead: float = 0, **fields: Any) -> Hello:
    values: dict[str, Any] = {
        "version": __version__,
        "wire": messages.WIRE,
        "token": opened.token(name).read_text().strip(),
        "at": time.time() + ahead,
        "cpus": 2.0,
        "memory": 512,
    }
    return Hello(**(values | fields))


async def greet(opened: NodePool, name: str = "n1", **fields: Any) -> tuple[Client, Connection]:
    """Send ``Hello``, and wait for the answer or the end."""
    client, connection = await connect(opened)
    messages.send(connection, hello(opened, name, **fields))
    await until(lambda: client.messages or client.reason is not None)
    return client, connection


async def join(opened: NodePool, name: str = "n1", **fields: Any) -> tuple[Client, Connection, str]:
    """Join as a node. Return its session, too."""
    client, connection = await greet(opened, name, **fields)
    (welcome,) = client.messages
    assert isinstance(welcome, Welcome)
    messages.send(connection, Joined(walls={"isolation": "process"}))
    await opened.ready(name)
    return client, connection, welcome.session


def reason_of(client: Client) -> str:
    (refused,) = client.messages
    assert isinstance(refused, Refused)
    return refused.reason


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        (
            {"token": "n1." + "0" * 64 + ".00"},
            "its token is not that of a node of this engine; copy the token file again",
        ),
        ({"token": ""}, "its token is not that of a node of this engine; copy the token file again"),
        (
            {"version": "0.0.1"},
            rf"it runs functiond 0.0.1 \({messages.WIRE}\), {OWN}",
        ),
        ({"wire": 0}, rf"it runs functiond {__version__} \(0\), {OWN}"),
        ({"ahead": -3600}, r"its clock is 3[56]\d\d s behind that of the engine"),
        ({"cpus": math.nan}, "it claims nan processors and 512 MB .*"),
        ({"cpus": math.inf}, "it claims inf processors and 512 MB .*"),
        ({"memory": -1}, "it claims 2.0 processors and -1 MB .*"),
    ],
    ids=["another token", "no token", "an older version", "older messages", "another clock", "nan", "inf", "memory"],
)
async def test_an_agent_that_does_not_fit_is_refused_with_the_reason(
    opened: NodePool, fields: dict[str, Any], reason: str
) -> None:
    with capture_logs() as logs:
        client, _ = await greet(opened, **fields)
        await until(lambda: client.reason is not None and logs)

    assert re.fullmatch(reason, reason_of(client))
    assert re.match(reason, logs[0]["reason"])
    assert opened.state("n1") in ("absent", "refused")


async def test_a_second_agent_with_a_token_is_refused_while_the_first_lives(opened: NodePool) -> None:
    _, first, _ = await join(opened)

    second, _ = await greet(opened)

    assert reason_of(second) == "another agent has joined with this token; give each machine a node of its own"
    assert (first.open, opened.state("n1")) == (True, "ready")


async def test_an_agent_whose_connection_has_ended_is_replaced_by_one_that_knows_its_session(opened: NodePool) -> None:
    _, first, session = await join(opened)

    _, _, later = await join(opened, previous=session)

    await until(lambda: not first.open)
    await until(lambda: opened.sessions.held == [later])
    assert opened.launcher.statistics().losses == {"restarted": 1}


async def test_the_node_of_another_token_is_not_touched(opened: NodePool) -> None:
    await join(opened, "n2")
    await greet(opened, "n1", version="0.0.1")

    assert (opened.state("n1"), opened.state("n2")) == ("refused", "ready")


async def test_pings_are_answered_with_the_seconds_of_the_lease(opened: NodePool) -> None:
    client, connection, _ = await join(opened)

    messages.send(connection, Ping(7))
    await until(lambda: len(client.messages) == 2)

    assert client.messages[1] == Pong(7, 1.0)


async def test_a_shorter_lease_does_not_end_a_longer_one_that_was_promised_before(opened: NodePool) -> None:
    client, connection, _ = await join(opened)
    node, opened.launcher.nodes._remaining = opened.launcher.nodes.node("n1"), lambda: 0.1
    before = node.fence_at
    node._remaining = lambda: 0.1
    messages.send(connection, Ping(1))
    await until(lambda: len(client.messages) == 2)
    welcomed = time.monotonic()
    await join(opened, "n2")

    assert client.messages[1] == Pong(1, 0.1)
    assert node.fence_at >= before
    assert opened.launcher.nodes.node("n2").fence_at >= welcomed + 1.0  # as in ``Welcome``


async def test_a_node_that_was_silent_while_it_joined_gets_no_work_before_it_has(opened: NodePool) -> None:
    client, connection = await greet(opened)
    await until(lambda: opened.state("n1") == "silent")
    messages.send(connection, Ping(1))
    await until(lambda: len(client.messages) == 2)
    assert opened.state("n1") == "joining"

    messages.send(connection, Joined(walls={}, folders=("images", "zone=secure")))
    await opened.ready("n1")
    labels = opened.launcher.nodes.node("n1").labels  # a node gives itself no others than those of folders
    assert {"folder.images=yes", "zone=secure"} & {*labels} == {"folder.images=yes"}


async def test_a_node_whose_pings_end_is_silent_and_then_fenced(opened: NodePool) -> None:
    client, _, _ = await join(opened)

    await until(lambda: opened.state("n1") == "silent")
    await until(lambda: opened.state("n1") == "lost")

    await until(lambda: client.reason is not None)
    await until(lambda: opened.sessions.held == [])
    fenced = opened.launcher.statistics().fence_seconds
    assert (fenced.count, fenced.total < 1.5) == (1, True)


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"GET / HTTP/1.1\r\nHost: engine\r\n\r\n", "it sent a message of 1195725856 bytes"),
        ((1 << 30).to_bytes(4, "big") + bytes(5), "it sent a message of 1073741824 bytes"),
        ((3).to_bytes(4, "big") + bytes(5) + b"abc", "it sent a message that is not of this protocol"),
        ((3).to_bytes(4, "big") + b"\1" + bytes(4) + b"abc", "it did not begin with Hello"),
    ],
    ids=["HTTP", "1 GiB", "garbage", "frames"],
)
async def test_garbage_is_closed_with_the_reason(opened: NodePool, sent: bytes, reason: str) -> None:
    with capture_logs() as logs:
        client, connection = await connect(opened)
        assert connection._transport is not None
        connection._transport.write(sent)
        await until(lambda: client.reason is not None and logs)

    assert logs[0]["reason"].startswith(reason)


async def test_a_client_without_tls_is_closed_with_the_reason(opened: NodePool) -> None:
    host, port = opened.launcher.nodes.address.split(":")
    with capture_logs() as logs:
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"\0" * 100)
        assert await reader.read() is not None
        await until(lambda: logs)
        writer.close()

    assert logs[0]["event"] == "agent refused"


async def test_an_agent_that_sends_more_of_a_stream_than_the_engine_has_read_is_closed(tmp_path: Path) -> None:
    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held.append(writer)

    held: list[asyncio.StreamWriter] = []
    api = await asyncio.start_server(hold, "127.0.0.1", 0, limit=1)
    async with node_pool(tmp_path, "n1", api=api.sockets[0].getsockname()[1], api_ports=(1,)) as opened:
        client, connection, _ = await join(opened)
        for _ in range(400):
            connection.send(STREAM, 1, bytes(PIECE))
        await until(lambda: client.reason is not None)
        await until(lambda: opened.state("n1") == "lost")

        assert opened.pool.nodes.report().nodes[0].reason == "it sent too much of a stream"  # type: ignore[union-attr]
        for writer in held:
            writer.transport.abort()
    api.close()


async def test_a_stream_that_the_api_refused_is_not_opened_again(tmp_path: Path) -> None:
    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.append(writer)

    port, accepted = free_port(), list[asyncio.StreamWriter]()
    async with node_pool(tmp_path, "n1", lease=30.0, api=port, api_ports=(1,)) as opened:
        client, connection, _ = await join(opened)
        connection.send(STREAM, 1, b"first")
        await until(lambda: client.ended == [1])
        api = await asyncio.start_server(accept, "127.0.0.1", port)
        connection.send(STREAM, 1, b"second")
        await until(lambda: messages.StreamRead(1, 6) in client.messages or accepted)
        connection.send(STREAM, 1, b"")
        await until(lambda: not opened.launcher.nodes.node("n1")._streams._tasks)

        assert not accepted
        connection.abort("the test ends")
        api.close()


async def test_an_agent_that_opens_too_many_streams_is_closed(tmp_path: Path) -> None:
    async with node_pool(tmp_path, "n1", lease=30.0, api=free_port(), api_ports=(1,)) as opened:
        client, connection, _ = await join(opened)
        for number in range(1, 4 * MOST, 2):
            connection.send(STREAM, number, b"x")
        await until(lambda: len(client.ended) == 2 * MOST)
        connection.send(STREAM, 4 * MOST + 1, b"x")
        await until(lambda: opened.state("n1") == "lost")

        assert opened.pool.nodes.report().nodes[0].reason == "it opened too many streams"  # type: ignore[union-attr]


async def test_an_agent_that_reads_nothing_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.executors.nodes.connection.MOST", 1 << 20)
    async with node_pool(tmp_path, "n1", lease=30.0) as opened:
        _, connection, _ = await join(opened)
        assert connection._transport is not None
        connection._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection._transport.pause_reading()
        for _ in range(1000):
            if opened.state("n1") != "ready":
                break
            for number in range(1000):
                messages.send(connection, Ping(number))
            await asyncio.sleep(0)

        assert opened.pool.nodes.report().nodes[0].reason == "it does not read"  # type: ignore[union-attr]
        connection.abort("the test ends")


async def test_an_admitted_agent_that_breaks_the_protocol_is_lost_alone(opened: NodePool) -> None:
    await join(opened, "n2")
    client, connection, _ = await join(opened)

    messages.send(connection, hello(opened))
    await until(lambda: client.reason is not None)
    await until(lambda: opened.state("n1") == "lost")

    assert opened.state("n2") in ("ready", "silent")


async def starting(opened: NodePool, client: Client, connection: Connection) -> asyncio.Future[bool]:
    """Start an instance, whose process never answers."""
    code = await opened.package({"index.py": "def handler(event, context): pass"})
    task = asyncio.ensure_future(opened.pool.warm(function("handler", code=code)))
    await until(lambda: isinstance(client.messages[-1], Prepare))
    messages.send(connection, messages.Prepared(2, command="python"), 2)
    await until(lambda: isinstance(client.messages[-1], Start))
    return task


async def test_a_false_reason_for_a_failed_start_loses_the_node_alone(opened: NodePool) -> None:
    client, connection, _ = await join(opened)
    task = await starting(opened, client, connection)
    messages.send(connection, Gone(number=2, problem=Problem(text="none", field="runtime")), 2)

    assert not await task
    assert opened.state("n1") == "lost"


async def test_a_node_that_ends_no_killed_instance_is_fenced(opened: NodePool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.executors.nodes.node.KILL_TIMEOUT", 0.0)
    client, connection, _ = await join(opened)
    task = await starting(opened, client, connection)
    (instance,) = opened.pool.allocator.present
    instance.kill(End.TIMEOUT)
    messages.send(connection, Ping(1))
    await asyncio.wait_for(instance.closed.wait(), 30)

    assert not await task
    assert opened.pool.nodes.report().nodes[0].reason == "it has not ended an instance that was killed"  # type: ignore[union-attr]


async def test_a_node_that_is_lost_right_before_a_launch_is_a_loss(opened: NodePool) -> None:
    client, _, _ = await join(opened)
    code = await opened.package({"index.py": "def handler(event, context): pass"})
    running = asyncio.ensure_future(opened.pool.execute(function("handler", code=code), invocation()))
    await until(lambda: isinstance(client.messages[-1], Prepare))
    node = opened.launcher.nodes.node("n1")
    node._handle(messages.Prepared(2, command="python"))
    node.connection.abort("the test ends it")

    with pytest.raises(Deferred):  # the start was tried again, and waits for another node
        await running


async def test_a_reset_connection_of_an_agent_to_others_is_told_as_what_it_is(opened: NodePool) -> None:
    client, connection, _ = await join(opened)
    code = await opened.package({"index.py": "def handler(event, context): pass"})
    running = asyncio.ensure_future(opened.pool.execute(function("handler", code=code), invocation()))
    await until(lambda: isinstance(client.messages[-1], Prepare))
    problem = Problem.of(ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"))
    messages.send(connection, messages.Prepared(2, problem=problem), 2)

    assert "Connection reset by peer" in (await running).message
    assert opened.state("n1") == "ready"


async def test_an_address_that_is_taken_is_told_once(opened: NodePool) -> None:
    address = opened.launcher.nodes.address
    expected = f"cannot listen on {address} (Address already in use); choose another executor.nodes.listen"
    with pytest.raises(SettingsError, match=re.escape(expected)):
        Listener(address, opened.launcher.nodes, print)  # type: ignore[arg-type]
