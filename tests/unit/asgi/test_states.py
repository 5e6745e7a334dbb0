"""States of connections: each declared change happens, and no other."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
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
    """Client whose requests to /held are answered by a step; those to /early are answered before their body."""

    def __init__(self, port: int, changes: Changes) -> None:
        self._port, self.changes = port, changes
        self.release = asyncio.Semaphore(0)

    async def open(self) -> None:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self._port)

    async def step(self, what: bytes | str, until: State) -> None:
        """Make a step of a walk, and wait until the connection is in the state ``until``."""
        if isinstance(what, bytes):
            self.writer.write(what)
        elif what == ANSWER:
            self.release.release()
        else:
            self.writer.close()
        await self.changes.reach(until)


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


ANSWER, LEAVE = "the application answers", "the client leaves"
#: Steps to each change: bytes that the client sends or another event, and the state that they lead to.
WALKS: dict[Change, tuple[tuple[bytes | str, State], ...]] = {
    (HEAD, BODY): ((STARTED, BODY),),
    (HEAD, ANSWERING): ((WHOLE, ANSWERING),),
    (HEAD, LINGERING): ((GARBAGE, LINGERING),),
    (HEAD, CLOSED): ((LEAVE, CLOSED),),
    (BODY, ANSWERING): ((STARTED, BODY), (b"k", ANSWERING)),
    (BODY, DISCARDING): ((EARLY + b"1", DISCARDING),),
    (BODY, LINGERING): ((EARLY.replace(b"Host", b"Connection: close\r\nHost") + b"1", LINGERING),),
    (BODY, CLOSED): ((STARTED, BODY), (LEAVE, CLOSED)),
    (ANSWERING, HEAD): ((WHOLE, ANSWERING), (ANSWER, HEAD)),
    (ANSWERING, LINGERING): ((CLOSING + WHOLE, ANSWERING), (ANSWER, LINGERING)),
    (ANSWERING, CLOSED): ((CLOSING, ANSWERING), (ANSWER, CLOSED)),
    (DISCARDING, HEAD): ((EARLY + b"1", DISCARDING), (b"2345678", DISCARDING), (b"9", HEAD)),
    (DISCARDING, LINGERING): ((CHUNKS + b"1\r\n1", DISCARDING), (b"no end", LINGERING)),
    (DISCARDING, CLOSED): ((EARLY + b"1", DISCARDING), (LEAVE, CLOSED)),
    (LINGERING, CLOSED): ((GARBAGE, LINGERING), (LEAVE, CLOSED)),
}


def test_the_walks_cover_every_declared_change() -> None:
    assert set(WALKS) == {(state, after) for state, following in NEXT.items() for after in following}


@pytest.mark.parametrize("change", WALKS, ids=lambda change: "-".join(state.name.lower() for state in change))
async def test_a_declared_change_happens(change: Change, monkeypatch: pytest.MonkeyPatch) -> None:
    async with connected(monkeypatch) as client:
        for what, until in WALKS[change]:
            await client.step(what, until)
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
