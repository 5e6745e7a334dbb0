"""States of connections: each declared change happens, and no other."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import anyio
import pytest

from engine.asgi import listener
from engine.asgi.admission import Admission
from engine.asgi.connection import NEXT, Connection, State
from engine.asgi.listener_state import ListenerState
from engine.asgi.wire import Receive, Scope, Send

HEAD, BODY, ANSWERING, DISCARDING, LINGERING, CLOSED = State
Change = tuple[State, State]

WHOLE = b"POST /held HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nok"
CLOSING = WHOLE.replace(b"Host", b"Connection: close\r\nHost")
STARTED = WHOLE[:-1]
CHUNKS = b"POST /early HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
EARLY = b"POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n"
GARBAGE = b"\x16\x03\x01 garbage\r\n\r\n"


class Changes(list[Change]):
    """Changes of the state of one connection."""

    def __init__(self) -> None:
        self._more = asyncio.Event()

    def add(self, before: State, after: State) -> None:
        self.append((before, after))
        self._more.set()
        self._more = asyncio.Event()

    async def reach(self, state: State) -> None:
        """Wait until the connection is in ``state``."""
        with anyio.fail_after(30):
            while (self[-1][1] if self else HEAD) is not state:
                await self._more.wait()


class Watched(Connection):
    """Connection that records the changes of its state."""

    def __init__(self, state: ListenerState, admission: Admission, changes: Changes) -> None:
        self._state, self._changes = HEAD, changes
        super().__init__(state, admission)

    @property
    def state(self) -> State:
        return self._state

    @state.setter
    def state(self, state: State) -> None:
        before, self._state = self._state, state
        if state is not before:
            self._changes.add(before, state)


class Client:
    """Client whose requests to /held are answered by ``answer``; those to /early are answered before their body."""

    def __init__(self, port: int, changes: Changes) -> None:
        self._port, self.changes = port, changes
        self.release = asyncio.Semaphore(0)

    async def open(self) -> None:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self._port)

    async def send(self, data: bytes, until: State) -> None:
        """Send ``data``, and wait until the connection is in the state ``until``."""
        self.writer.write(data)
        await self.changes.reach(until)

    async def answer(self, until: State) -> None:
        self.release.release()
        await self.changes.reach(until)

    async def leave(self) -> None:
        self.writer.close()
        await self.changes.reach(CLOSED)


@asynccontextmanager
async def connected(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Client]:
    changes = Changes()
    states: list[ListenerState] = []

    def make(state: ListenerState, admission: Admission) -> Watched:
        states.append(state)
        return Watched(state, admission, changes)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] != "/early":
            while (await receive()).get("more_body"):
                pass
            await client.release.acquire()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    monkeypatch.setattr(listener, "Connection", make)
    async with listener.listen(app, "127.0.0.1", 0, grace=0.1) as port:
        client = Client(port, changes)
        await client.open()
        yield client
        client.writer.close()
        await asyncio.gather(client.writer.wait_closed(), return_exceptions=True)
    assert [state.room.taken for state in states] == [0]
    assert not states[0].connections
    assert not states[0].tasks


async def body(client: Client) -> None:
    await client.send(STARTED, BODY)


async def whole(client: Client) -> None:
    await client.send(WHOLE, ANSWERING)


async def answered(client: Client) -> None:
    await whole(client)
    await client.answer(HEAD)


async def rest(client: Client) -> None:
    await body(client)
    await client.send(b"k", ANSWERING)


async def refused(client: Client) -> None:
    await client.send(GARBAGE, LINGERING)


async def early(client: Client) -> None:
    await client.send(EARLY + b"1", DISCARDING)


async def early_and_closing(client: Client) -> None:
    await client.send(EARLY.replace(b"Host", b"Connection: close\r\nHost") + b"1", LINGERING)


async def early_and_whole(client: Client) -> None:
    await early(client)
    await client.send(b"2345678", DISCARDING)
    await client.send(b"9", HEAD)


async def early_and_broken(client: Client) -> None:
    await client.send(CHUNKS + b"1\r\n1", DISCARDING)
    await client.send(b"no end", LINGERING)


async def early_and_gone(client: Client) -> None:
    await early(client)
    await client.leave()


async def closing(client: Client) -> None:
    await client.send(CLOSING, ANSWERING)
    await client.answer(CLOSED)


async def closing_with_more(client: Client) -> None:
    await client.send(CLOSING + WHOLE, ANSWERING)
    await client.answer(LINGERING)


async def gone(client: Client) -> None:
    await client.leave()


async def gone_in_the_body(client: Client) -> None:
    await body(client)
    await client.leave()


async def refused_and_gone(client: Client) -> None:
    await refused(client)
    await client.leave()


WALKS: dict[Change, Callable[[Client], Awaitable[None]]] = {
    (HEAD, BODY): body,
    (HEAD, ANSWERING): whole,
    (HEAD, LINGERING): refused,
    (HEAD, CLOSED): gone,
    (BODY, ANSWERING): rest,
    (BODY, DISCARDING): early,
    (BODY, LINGERING): early_and_closing,
    (BODY, CLOSED): gone_in_the_body,
    (ANSWERING, HEAD): answered,
    (ANSWERING, LINGERING): closing_with_more,
    (ANSWERING, CLOSED): closing,
    (DISCARDING, HEAD): early_and_whole,
    (DISCARDING, LINGERING): early_and_broken,
    (DISCARDING, CLOSED): early_and_gone,
    (LINGERING, CLOSED): refused_and_gone,
}


def test_the_walks_cover_every_declared_change() -> None:
    assert set(WALKS) == {(state, after) for state, following in NEXT.items() for after in following}


@pytest.mark.parametrize("change", WALKS, ids=lambda change: "-".join(state.name.lower() for state in change))
async def test_a_declared_change_happens(change: Change, monkeypatch: pytest.MonkeyPatch) -> None:
    async with connected(monkeypatch) as client:
        await WALKS[change](client)
        assert client.changes[-1] == change


@pytest.mark.parametrize("seed", range(40))
async def test_no_other_change_happens(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    choices = random.Random(seed)
    pieces = (
        WHOLE,
        WHOLE * 3,
        STARTED,
        b"k",
        CLOSING,
        EARLY,
        EARLY + b"123456789",
        CHUNKS,
        b"1\r\n1\r\n",
        b"0\r\n\r\n",
    )
    rare = (GARBAGE, b"no chunk\r\n", b"")
    async with connected(monkeypatch) as client:
        for _ in range(choices.randint(1, 12)):
            piece = choices.choice(pieces if choices.random() < 0.9 else rare)
            if client.writer.is_closing():
                break
            if not piece:
                client.writer.write_eof()
                break
            client.writer.write(piece)
            for _ in range(choices.randint(0, 2)):
                client.release.release()
            await asyncio.sleep(choices.choice((0, 0, 0.002)))
        client.release.release()

    assert client.changes[-1][1] is CLOSED
    for before, after in client.changes:
        assert after in NEXT[before], client.changes
