"""API of the engine for functions on a node: connections that go through that of the agent."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from engine.executors.nodes import connection as wire
from engine.executors.nodes.messages import StreamRead, send
from engine.executors.nodes.streams import WINDOW
from tests.support.agents import AgentEnd, Remote, engine_end, node
from tests.support.waiting import in_own_task

pytestmark = pytest.mark.asyncio(loop_scope="module")

SOURCE = """
import os, socket
from urllib.parse import urlsplit

def handler(event, context):
    url = urlsplit(os.environ["FUNCTIOND_URL"])
    with socket.create_connection((url.hostname, url.port)) as connection:
        connection.sendall(b"x" * event["send"])
        if event["end"]:
            connection.shutdown(socket.SHUT_WR)
        if "gate" in event:
            open(event["gate"]).read()
        read = 0
        while data := connection.recv(65536):
            read += len(data)
        return str(read)
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def end(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[AgentEnd]:
    """Yield the engine's end of an agent that all tests of this module use."""
    folder = tmp_path_factory.mktemp("node")
    async with in_own_task(engine_end(folder, api_ports=[8080])) as engine, in_own_task(node(engine)):
        yield await engine.joined()


def stream_of(end: AgentEnd) -> int:
    """Return the number of the stream that the agent opened last."""
    return max(end.streams, default=0)


def read(end: AgentEnd, number: int) -> int:
    return sum(m.size for m in end.messages if isinstance(m, StreamRead) and m.number == number)


async def begin(end: AgentEnd, remote: Remote, event: bytes) -> tuple[int, int]:
    """Call the function. Return the ticket, and the number of the stream that it opens."""
    before = stream_of(end)
    ticket = remote.call(event)
    await end.until(lambda: stream_of(end) > before)
    return ticket, stream_of(end)


async def test_a_connection_of_a_function_is_forwarded(end: AgentEnd) -> None:
    remote = await end.start(SOURCE)
    ticket, number = await begin(end, remote, b'{"send": 7, "end": true}')
    await end.until(lambda: number in end.ended)
    end.connection.send(wire.STREAM, number, b"y" * 5)
    end.connection.send(wire.STREAM, number, b"")

    assert (await remote.answer(ticket)).result == b"5"
    assert end.streams[number] == b"x" * 7
    assert number % 2
    await end.until(lambda: read(end, number) == 5)


async def test_the_agent_waits_for_acknowledgements(end: AgentEnd) -> None:
    remote = await end.start(SOURCE)
    ticket, number = await begin(end, remote, b'{"send": 9000000, "end": true}')
    seen = list[int]()
    while number not in end.ended:
        await end.until(lambda: number in end.ended or len(end.streams[number]) - sum(seen) > WINDOW // 2)
        seen.append(len(end.streams[number]) - sum(seen))
        send(end.connection, StreamRead(number, seen[-1]))
    end.connection.send(wire.STREAM, number, b"")

    assert (await remote.answer(ticket)).result == b"0"
    assert len(end.streams[number]) == sum(seen) == 9_000_000
    assert max(seen) <= WINDOW


async def test_the_agent_acknowledges_what_the_function_reads(end: AgentEnd, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    remote = await end.start(SOURCE)
    os.mkfifo(gate)
    event = b'{"send": 1, "end": false, "gate": "%s"}' % str(gate).encode()
    ticket, number = await begin(end, remote, event)
    for _ in range(200):
        end.connection.send(wire.STREAM, number, b"y" * wire.PIECE)
    other = await end.start("def handler(event, context): return 1")
    await other.invoke()
    held = read(end, number)
    gate.open("w").close()
    end.connection.send(wire.STREAM, number, b"")

    assert (await remote.answer(ticket)).result == str(200 * wire.PIECE).encode()
    assert held < 200 * wire.PIECE
    await end.until(lambda: read(end, number) == 200 * wire.PIECE)


async def test_a_connection_that_a_function_drops_ends(end: AgentEnd) -> None:
    remote = await end.start(SOURCE)
    _, number = await begin(end, remote, b'{"send": 1, "end": false}')
    remote.kill()
    await end.until(lambda: number in end.ended)
    for _ in range(4):
        end.connection.send(wire.STREAM, number, b"y" * wire.PIECE)

    await end.until(lambda: read(end, number) == 4 * wire.PIECE)


async def test_functions_have_no_access_unless_the_engine_gives_it(tmp_path: Path) -> None:
    source = "import os\ndef handler(event, context): return [name for name in os.environ if 'FUNCTIOND_U' in name]"
    async with engine_end(tmp_path) as engine, node(engine):
        remote = await (await engine.joined()).start(source)

        assert await remote.invoke() == b"[]"
