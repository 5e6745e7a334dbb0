"""Bounds of a listener: sizes of heads, time of heads and bodies, bytes held by all connections, and connections."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import anyio
import pytest

from engine.asgi import listener
from engine.asgi.admission import ClientRules
from engine.asgi.forwarded import TrustedProxies
from engine.asgi.listener import HEAD_LIMIT, listen
from engine.asgi.listener_state import ListenerState
from engine.asgi.streaming import EVENTS, Stream, Write, stream
from engine.asgi.wire import Receive, Reply, Scope, Send, respond
from tests.support.raw_client import RawClient, connect, read_answers
from tests.support.raw_exchanges import (
    CHUNKED,
    GOT,
    LIMIT,
    OK,
    PLAIN,
    POSTED,
    Row,
    check,
    check_refusal,
    get,
    get_of,
    post,
)
from tests.support.scripted_app import PROBE, ScriptedApp, no_problems

ABORTED = ("POST /t", None)
STREAMED = 16 << 20
BRIEF = 0.4  #: seconds of a limit whose end a test waits for


async def statuses(client: RawClient) -> list[int]:
    """Return the statuses of all answers, once the listener has closed the connection."""
    with anyio.fail_after(LIMIT):
        return [answer.status for answer in read_answers(await client.rest())]


async def is_served(port: int) -> bool:
    async with connect(port) as client:
        await client.send(PROBE)
        return await statuses(client) == [200]


@pytest.mark.parametrize(("size", "status"), [(HEAD_LIMIT, OK), (HEAD_LIMIT + 3, 431)])
async def test_a_head_up_to_the_limit_is_taken_and_a_larger_one_is_not(size: int, status: int) -> None:
    await check(Row("", get_of(size), status, (GOT,) if status == OK else ()))


#: Beginnings of requests, and bytes that the client repeats without end.
POURED = {
    "blank lines": (b"", b"\r\n" * 3000, 0),
    "a request line": (b"GET /", b"g" * 6000, 0),
    "a field": (get()[:-2] + b"x: ", b"a" * 6000, 0),
    "fields": (get()[:-2], b"x: y\r\n" * 1000, 0),
    "a size of a chunk": (CHUNKED, b"0" * 6000, 1),
    "an extension of a chunk": (CHUNKED + b"2;", b"x" * 6000, 1),
    "a trailer": (CHUNKED + b"2\r\n42\r\n0\r\nx: ", b"a" * 6000, 1),
    "trailers": (CHUNKED + b"2\r\n42\r\n0\r\n", b"x: y\r\n" * 1000, 1),
}


@pytest.mark.parametrize(("before", "piece", "begun"), POURED.values(), ids=POURED)
async def test_bytes_without_end_are_refused(before: bytes, piece: bytes, begun: int) -> None:
    app = ScriptedApp()
    async with no_problems(), listen(app, "127.0.0.1", 0) as port, connect(port) as client:
        await client.send(before)
        for _ in range(3 * HEAD_LIMIT // len(piece)):
            await client.send(piece)
        with anyio.fail_after(LIMIT):
            [answer] = read_answers(await client.rest())

        assert await is_served(port)
    check_refusal(answer)
    assert answer.status == 431
    assert app.seen == [ABORTED] * begun


async def test_a_chunk_that_comes_apart_from_its_size_is_no_trailer() -> None:
    size = 3 * HEAD_LIMIT
    app = ScriptedApp()
    async with listen(app, "127.0.0.1", 0) as port, connect(port) as client:
        await client.send(CHUNKED + b"%x\r\n" % size)
        await app.entered.wait()
        for _ in range(3):
            await client.send(b"x" * HEAD_LIMIT)
        await client.send(b"\r\n0\r\n\r\n")
        client.end()

        assert await statuses(client) == [200]
    assert app.seen == [("POST /t", b"x" * size)]


@pytest.mark.parametrize("before", [b"", get()])
async def test_a_silent_connection_is_closed_in_time_without_an_answer(before: bytes) -> None:
    async with listen(ScriptedApp(), "127.0.0.1", 0, keep_alive=BRIEF) as port, connect(port) as client:
        await client.send(before)

        assert await statuses(client) == [200] * bool(before)


@pytest.mark.parametrize("before", [b"", get(), PLAIN])
async def test_a_head_must_be_complete_in_time(before: bytes) -> None:
    async with listen(ScriptedApp(), "127.0.0.1", 0, keep_alive=BRIEF) as port, connect(port) as client:
        await client.send(before + get()[:-2])

        assert (await statuses(client))[: bool(before)] == [200] * bool(before)
        assert client.received.count(b"HTTP/1.1 200 ") == bool(before)


async def test_a_head_that_comes_byte_by_byte_must_be_complete_in_time() -> None:
    app = ScriptedApp()
    async with listen(app, "127.0.0.1", 0, keep_alive=BRIEF) as port, connect(port) as client:
        await client.send(get()[:-2] + b"x: ")
        with anyio.fail_after(LIMIT):
            await client.pour(b"a", pause=0.05)

    assert app.seen == []


async def test_a_request_may_take_longer_than_its_head() -> None:
    app = ScriptedApp()
    async with listen(app, "127.0.0.1", 0, keep_alive=BRIEF) as port, connect(port) as client:
        await client.send(post(b"Content-Length: 2", b"Connection: close").replace(b"/t", b"/hold"))
        await app.entered.wait()
        await asyncio.sleep(1.5 * BRIEF)  # longer than the limit for a head
        app.release.set()

        assert await statuses(client) == [200]


@pytest.mark.parametrize("head", [post(b"Content-Length: 10", body=b""), CHUNKED], ids=["length", "chunks"])
@pytest.mark.parametrize("sent", [b"", b"1", b"a\r\n1"], ids=["nothing", "one-byte", "more"])
async def test_a_body_that_stops_coming_is_cut_off(head: bytes, sent: bytes) -> None:
    app = ScriptedApp()
    async with no_problems(), listen(app, "127.0.0.1", 0, keep_alive=BRIEF) as port, connect(port) as client:
        await client.send(head + sent)
        with anyio.fail_after(LIMIT):
            [answer] = read_answers(await client.rest())

    assert answer.status == 408
    check_refusal(answer)
    assert b"FSS.0408" in answer.body
    assert app.seen == [ABORTED]


async def test_a_body_that_comes_slowly_is_not_cut_off() -> None:
    app = ScriptedApp()
    async with listen(app, "127.0.0.1", 0, keep_alive=1) as port, connect(port) as client:
        await client.send(post(b"Content-Length: 4", body=b""))
        for _ in range(4):
            await client.send(b"4")
            await asyncio.sleep(0.3)
        client.end()

        assert await statuses(client) == [200]
    assert app.seen == [("POST /t", b"4444")]


async def test_bodies_beyond_what_may_be_held_are_refused_and_not_run() -> None:
    app = ScriptedApp()
    held = listen(app, "127.0.0.1", 0, held_limit=1800)
    async with held as port, connect(port) as first, connect(port) as second:
        await first.send(post(b"Content-Length: 800", body=b"x" * 799))
        await second.send(post(b"Content-Length: 260", body=b"x" * 5))
        assert await is_served(port)  # the listener has received what was sent before
        await second.send(b"x" * 255)
        [answer] = read_answers(await second.rest())
        await first.send(b"x")
        first.end()
        assert await statuses(first) == [200]

    assert answer.status == 503
    check_refusal(answer)
    assert b"FSS.0503" in answer.body
    assert answer.all(b"retry-after") == [b"1"]
    assert sorted(app.seen, key=str) == sorted([ABORTED, ("POST /t", b"x" * 800)], key=str)


@pytest.mark.parametrize("behind", ["a proxy", "no proxy"])
async def test_half_sent_bodies_of_one_client_leave_room_for_those_of_another(behind: str) -> None:
    app, proxied = ScriptedApp(), behind == "a proxy"
    rules = ClientRules(proxies=TrustedProxies(["127.0.0.1"] if proxied else []))
    held = listen(app, "127.0.0.1", 0, held_limit=8000 if proxied else 4000, rules=rules)
    async with held as port, AsyncExitStack() as clients:
        for number in [1] * 12 + [2]:
            source = "127.0.0.1" if proxied else f"127.0.0.{number}"
            client = await clients.enter_async_context(connect(port, source=source))
            fields = [b"X-Forwarded-For: 192.0.2.%d" % number] if proxied else []
            await client.send(post(b"Content-Length: 800", *fields, body=b"x" * 799))
            assert await is_served(port)
        await client.send(b"x")
        client.end()

        assert await statuses(client) == [200]
    assert app.seen.count(("POST /t", b"x" * 800)) == 1


@pytest.mark.parametrize("head", [get()[:-2] + b"x: ", b"GET /"], ids=["fields", "line"])
async def test_incomplete_heads_beyond_what_may_be_held_are_refused(head: bytes) -> None:
    held = listen(ScriptedApp(), "127.0.0.1", 0, held_limit=40_000)
    async with held as port, connect(port) as first, connect(port) as second:
        await first.send(head + b"a" * 15_000)
        await second.send(head)
        assert await is_served(port)
        await second.send(b"a" * 25_000)
        [answer] = read_answers(await second.rest())
        await second.send(get()[:-2])
        await first.send(b" HTTP/1.1\r\nHost: localhost\r\n\r\n" if head == b"GET /" else b"\r\n\r\n")
        first.end()
        assert await statuses(first) == [200]

    assert answer.status == 503
    check_refusal(answer)


async def test_bytes_behind_a_request_beyond_what_may_be_held_end_their_connection() -> None:
    app = ScriptedApp()
    held = listen(app, "127.0.0.1", 0, held_limit=50_000)
    async with held as port, connect(port) as first, connect(port) as second:
        for client in (first, second):
            await client.send(PLAIN.replace(b"/t", b"/hold"))
        await first.send(get_of(20_000))
        assert await is_served(port)
        with pytest.raises(ConnectionResetError):  # noqa: PT012
            await second.send(get_of(20_000))
            await second.rest()
        app.release.set()
        first.end()
        assert await statuses(first) == [200, 200]


@pytest.mark.parametrize("more", [get(b"x: y")[:-2], PLAIN[:-1], get_of(20_000)], ids=["head", "body", "request"])
async def test_no_bytes_are_counted_once_all_connections_have_ended(
    more: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    states: list[ListenerState] = []

    def remembered(*args: Any, **bounds: Any) -> ListenerState:
        states.append(ListenerState(*args, **bounds))
        return states[-1]

    monkeypatch.setattr(listener, "ListenerState", remembered)
    async with listen(ScriptedApp(), "127.0.0.1", 0) as port:
        for _ in range(2):
            async with connect(port) as client:
                await client.send(PLAIN + more)
                await client.until(b"42")
                assert states[0].room.taken > 0 or more == get_of(20_000)
            assert await is_served(port)

    assert states[0].room.taken == 0


async def test_bytes_of_answered_and_of_lost_requests_are_held_no_more() -> None:
    app = ScriptedApp()
    large = post(b"Content-Length: 800", body=b"")
    async with listen(app, "127.0.0.1", 0, held_limit=1800) as port:
        for _ in range(3):
            async with connect(port) as answered, connect(port) as lost:
                await answered.send(large + b"x" * 700)
                await answered.send(b"x" * 100)
                answered.end()
                assert await statuses(answered) == [200]
                await lost.send(large + b"x" * 700)
                lost.reset()
                assert await is_served(port)
        async with connect(port) as client:
            await client.send(large + b"x" * 700)
            await client.send(b"x" * 100)
            client.end()

            assert await statuses(client) == [200]
    assert [body for _, body in app.seen if body] == [b"x" * 800] * 4


async def test_a_body_that_a_live_log_does_not_read_is_not_held() -> None:
    others, more = ScriptedApp(), anyio.Event()

    async def follow(write: Write) -> None:
        await write(b"one\n")
        await more.wait()
        await write(b"two\n")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/t":
            await stream(receive, send, Stream(content_type=EVENTS, run=follow))
        else:
            await others(scope, receive, send)

    async with no_problems(), listen(app, "127.0.0.1", 0, held_limit=2000) as port, connect(port) as client:
        await client.send(post(b"Content-Length: 9000", body=b"x" * 900))
        await client.until(b"one\n")
        for _ in range(8):
            await client.send(b"x" * 900)
            assert await is_served(port)
        more.set()
        await client.until(b"two\n")


async def test_connections_beyond_the_limit_are_refused_until_others_close() -> None:
    async with listen(ScriptedApp(), "127.0.0.1", 0, rules=ClientRules(connections=1)) as port:
        async with connect(port) as first:
            await first.send(PLAIN)
            await first.until(b"42")
            for _ in range(20):
                async with connect(port) as second:
                    [answer] = read_answers(await second.rest())
                check_refusal(answer)
                assert (answer.status, answer.all(b"retry-after")) == (503, [b"1"])
            await first.send(PROBE)
            assert len(await statuses(first)) == 2
        assert await is_served(port)


async def test_a_refused_connection_that_has_sent_its_request_gets_its_answer() -> None:
    app = ScriptedApp()
    async with listen(app, "127.0.0.1", 0, rules=ClientRules(connections=1)) as port, connect(port) as first:
        await first.send(PLAIN)
        await first.until(b"42")
        for _ in range(20):
            async with connect(port) as second:
                await second.send(PLAIN)

                assert await statuses(second) == [503]
    assert app.seen == [POSTED]


class Streaming:
    """Application that sends 16 MiB in parts. ``ended`` is set when it has ended."""

    def __init__(self) -> None:
        self.ended = anyio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % STREAMED)]})
        for _ in range(16):
            await send({"type": "http.response.body", "body": bytes(1 << 20), "more_body": True})
        await send({"type": "http.response.body", "body": b""})
        self.ended.set()


async def test_a_client_that_reads_nothing_of_a_streamed_answer_is_cut_off_in_time() -> None:
    app = Streaming()
    async with (
        no_problems(),
        listen(app, "127.0.0.1", 0, keep_alive=BRIEF) as port,
        connect(port, buffer=4096) as client,
    ):
        await client.send(get())
        with anyio.fail_after(LIMIT):
            await app.ended.wait()

        assert await is_served(port)


async def test_a_client_that_reads_no_earlier_answer_is_cut_off_in_time() -> None:
    ended = anyio.Semaphore(0)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(scope, send, Reply(body=bytes(STREAMED)))
        ended.release()

    async with (
        no_problems(),
        listen(app, "127.0.0.1", 0, keep_alive=BRIEF) as port,
        connect(port, buffer=4096) as client,
    ):
        await client.send(get() * 2)
        with anyio.fail_after(LIMIT):
            await ended.acquire()
            await ended.acquire()


async def test_a_client_that_reads_slowly_gets_all_of_a_streamed_answer() -> None:
    app = Streaming()
    async with no_problems(), listen(app, "127.0.0.1", 0, keep_alive=1) as port, connect(port) as client:
        await client.send(get(b"Connection: close"))
        for size in range(2 << 20, STREAMED, 2 << 20):
            await client.until_size(size)
            await asyncio.sleep(0.2)
        with anyio.fail_after(LIMIT):
            [answer] = read_answers(await client.rest())

    assert len(answer.body) == STREAMED


async def test_two_hundred_connections_that_send_nothing_do_not_stop_others() -> None:
    async with listen(ScriptedApp(), "127.0.0.1", 0, grace=0) as port, AsyncExitStack() as stack:
        for number in range(200):
            client = await stack.enter_async_context(connect(port))
            await client.send(get()[: number % 20])

        assert await is_served(port)
