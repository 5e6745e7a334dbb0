"""Streams of events for pages of the console: limits, joining of changes, and their end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest

from engine.asgi.streaming import Stream
from engine.asgi.wire import Message, Scope
from engine.errors import InvalidRequest, ShuttingDown, Unavailable
from engine.http.api.routing import Call
from engine.http.console.live import EACH, LISTENERS, LiveEvents
from engine.logs.feed import LogBoard
from engine.metrics.loop_lag import LoopLag
from engine.protocols.audit import AuditTrail
from tests.support.waiting import until


async def no_body() -> Message:
    return {"type": "http.request"}


class Events:
    """Events with one call that is valid until a test changes ``valid``."""

    def __init__(self, pause: float = 0.01) -> None:
        self.valid, self.lag, self.board, self.audit = True, LoopLag(), LogBoard(), AuditTrail()
        self.live = LiveEvents(lambda call: self.valid, self.board, self.audit, self.lag, pause=pause)
        self.written: list[bytes] = []
        self.moments: list[float] = []  #: of what was written

    def call(self, method: str = "GET", accept: bytes = b"text/event-stream", client: str = "") -> Call:
        headers = [(b"accept", accept)]
        scope: Scope = {"path_params": {}, "method": method, "raw_path": b"", "query_string": b"", "headers": headers}
        if client:
            scope["client"] = (client, 1)
        return Call(scope, no_body, "local-1")

    async def write(self, piece: bytes) -> None:
        self.written.append(piece)
        self.moments.append(anyio.current_time())

    async def follow(self, reply: Stream) -> None:
        await reply.run(self.write)

    @asynccontextmanager
    async def listening(self, streams: int = 1, client: str = "") -> AsyncIterator[None]:
        """Follow as many streams until the block ends."""
        async with anyio.create_task_group() as tasks:
            for _ in range(streams):
                reply = await self.live.show(self.call(client=client))
                assert isinstance(reply, Stream)
                tasks.start_soon(self.follow, reply)
                await anyio.wait_all_tasks_blocked()
            yield
            tasks.cancel_scope.cancel()

    @property
    def changes(self) -> int:
        return sum(b"event: change" in piece for piece in self.written)


async def test_changes_in_a_row_are_one_event_and_one_more_after_the_pause() -> None:
    events = Events(pause=0.05)
    async with events.listening():
        for number in (1, 2):
            for _ in range(100):
                events.live.note_change("ignored")
            await until(lambda number=number: events.changes >= number)  # type: ignore[misc]
        await anyio.sleep(0.1)

    assert events.changes == 2
    assert events.moments[-1] - events.moments[-2] > 0.04


async def test_a_stream_ends_when_its_request_is_valid_no_more() -> None:
    events = Events()
    async with events.listening():
        events.valid = False
        events.live.note_change()
        await anyio.sleep(0.02)
        again = await events.live.show(events.call())

        assert isinstance(again, Stream)
    assert events.changes == 0


async def test_streams_end_at_once_when_the_engine_stops() -> None:
    events = Events(pause=0.0)
    async with anyio.create_task_group() as tasks:
        reply = await events.live.show(events.call())
        assert isinstance(reply, Stream)
        tasks.start_soon(events.follow, reply)
        await anyio.wait_all_tasks_blocked()
        events.live.stop()

    with pytest.raises(ShuttingDown):
        await events.live.show(events.call())


async def test_nothing_listens_after_the_end_of_all_streams() -> None:
    events = Events()
    events.lag.requests = 1
    async with events.listening():
        assert events.audit.has_subscribers
        assert events.lag.requests == 0

    assert not events.audit.has_subscribers
    assert events.lag.requests == 1


async def test_there_is_a_limit_of_streams() -> None:
    events = Events()
    async with events.listening(LISTENERS):
        with pytest.raises(Unavailable, match="64 pages"):
            await events.live.show(events.call())


async def test_a_browser_that_opens_the_path_gets_a_reason() -> None:
    events = Events()
    with pytest.raises(InvalidRequest, match="text/event-stream"):
        await events.live.show(events.call(accept=b"text/html"))


async def test_a_browser_keeps_connections_for_pages_however_many_windows_it_has() -> None:
    events = Events()
    async with events.listening(EACH, "192.0.2.1"):
        refused = await events.live.show(events.call(client="192.0.2.1"))
        other = await events.live.show(events.call(client="192.0.2.2"))

        assert (refused.status, isinstance(other, Stream)) == (204, True)
    assert isinstance(await events.live.show(events.call(client="192.0.2.1")), Stream)
