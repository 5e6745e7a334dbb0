"""Framing of HTTP/1.1: rejected upgrades, trailers, and errors after valid requests."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import anyio
import pytest

from engine.asgi.heads import HEAD_LIMIT
from engine.asgi.listener import listen
from engine.asgi.wire import Receive, Scope, Send
from tests.support.http_app import BASE, serve, urn_of

ORDER = b'{"order": 4711}'
#: Request head of Java's HTTP client in its default version HTTP/2.
JAVA = (
    b"POST /java HTTP/1.1\r\n"
    b"Connection: Upgrade, HTTP2-Settings\r\n"
    b"Content-Length: %d\r\n"
    b"Host: localhost\r\n"
    b"HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\r\n"
    b"Upgrade: h2c\r\n"
    b"User-Agent: Java-http-client/17\r\n"
    b"Content-Type: application/json\r\n\r\n"
)
PLAIN = b"POST /plain HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\nok"
CHUNKED = b"POST /chunked HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
#: Last request of an exchange: closes the connection if it is still open.
END = b"GET /end HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
END_ANSWER = re.compile(rb"HTTP/1.1 200 OK\r\ncontent-length: 0\r\ndate: [^\r]+\r\nconnection: close\r\n\r\n\Z")
GARBAGE = b"\x16\x03\x01 garbage\r\n\r\n"


class Recorder:
    """Record each request and echo its body. Requests to /hold are answered once ``release`` is set."""

    def __init__(self) -> None:
        self.release = anyio.Event()
        self.entered = anyio.Event()
        self.seen: list[tuple[str, bytes | None]] = []  #: path and body; None for an aborted body
        self.headers: list[dict[bytes, bytes]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.entered.set()
        body, more = b"", True
        if scope["path"] == "/early":  # answered in parts before the body has arrived
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"9")]})
            await send({"type": "http.response.body", "body": b"early", "more_body": True})
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.seen.append((scope["path"], None))
                return
            body, more = body + message["body"], message["more_body"]
        if scope["path"] != "/end":
            self.seen.append((scope["path"], body))
            self.headers.append(dict(scope["headers"]))
        if scope["path"] == "/hold":
            await self.release.wait()
        length = b"%d" % len(body)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
        await send({"type": "http.response.body", "body": body})


class Exchange:
    """Listener in front of a recorder, with raw clients."""

    def __init__(self, app: Recorder, port: int) -> None:
        self.app, self.port = app, port

    async def send(self, *pieces: bytes) -> bytes:
        """Send each piece in its own packet, then ``END``. Return all responses except that to ``END``."""
        async with self.connect() as (reader, writer):
            for piece in pieces:
                writer.write(piece)
                await asyncio.sleep(0.02)  # makes separate packets likely, not certain
            writer.write(END)
            return END_ANSWER.sub(b"", await reader.read())

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            yield reader, writer
        finally:
            writer.close()
            await asyncio.gather(writer.wait_closed(), return_exceptions=True)


@pytest.fixture
async def exchange() -> AsyncIterator[Exchange]:
    app = Recorder()
    async with listen(app, "127.0.0.1", 0, keep_alive=1) as port:
        yield Exchange(app, port)


def statuses(answers: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1.1 (\d{3}) ", answers)]


def pieces_of(data: bytes, *cuts: bytes) -> list[bytes]:
    """Split ``data`` in front of each of ``cuts``."""
    pieces = []
    for cut in cuts:
        before, found, after = data.partition(cut)
        assert found, cut
        pieces.append(before)
        data = found + after
    return [*pieces, data]


@pytest.mark.parametrize(
    "cuts",
    [(), (b"{",), (b"4711",), (b"Upgrade,", b"h2c", b"Java-", b"\r\n{")],
    ids=["joined", "body-apart", "in-the-body", "in-the-head"],
)
async def test_an_upgrade_that_is_not_offered_is_read_as_an_ordinary_request(
    exchange: Exchange, cuts: tuple[bytes, ...]
) -> None:
    answers = await exchange.send(*pieces_of(JAVA % len(ORDER) + ORDER, *cuts))

    assert answers.endswith(ORDER)
    assert statuses(answers) == [200]
    assert exchange.app.seen == [("/java", ORDER)]
    assert exchange.app.headers[0] == {
        b"connection": b"",
        b"content-length": b"15",
        b"host": b"localhost",
        b"user-agent": b"Java-http-client/17",
        b"content-type": b"application/json",
    }


@pytest.mark.parametrize("word", [b"websocket", b"h2c", b"TLS/1.2, HTTP/2.0", b"anything"])
async def test_whatever_an_upgrade_asks_for_it_is_an_ordinary_request(exchange: Exchange, word: bytes) -> None:
    head = b"GET /x?y=1 HTTP/1.1\r\nHost: a\r\nconnection: keep-alive\r\nConnection: foo,  UPGRADE\r\nupgrade: %b\r\n"

    assert statuses(await exchange.send(head % word + b"Sec-WebSocket-Key: aGVsbG8=\r\n\r\n" + PLAIN)) == [200, 200]
    assert exchange.app.seen == [("/x", b""), ("/plain", b"ok")]
    assert exchange.app.headers[0][b"sec-websocket-key"] == b"aGVsbG8="


async def test_the_body_of_an_upgrade_is_not_the_next_request(tmp_path: Path) -> None:
    async with serve(tmp_path) as api:
        await api.create()
        client = Exchange(Recorder(), api.port)
        function = f"{BASE}/{urn_of()}"
        head = JAVA.replace(b"/java", f"{function}/invocations-async".encode()).replace(b"Upgrade,", b"Upgrade, close,")
        body = f"DELETE {function.removesuffix(':latest')} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()

        assert statuses(await client.send(head % len(body) + body)) == [406]  # the body is not JSON
        assert statuses(await client.send(head % len(ORDER) + ORDER)) == [202]
        assert [request.payload for request in api.engine.requests] == [ORDER]


async def test_requests_behind_upgrades_are_read_too(exchange: Exchange) -> None:
    one = JAVA % len(ORDER) + ORDER
    answers = await exchange.send(one + PLAIN + one * 50 + PLAIN)

    assert statuses(answers) == [200] * 53
    assert exchange.app.seen == [("/java", ORDER), ("/plain", b"ok"), *[("/java", ORDER)] * 50, ("/plain", b"ok")]


@pytest.mark.parametrize("cuts", [(), (b"\r\n\r\n7",), (b"order", b"0\r\n\r\n")])
async def test_an_upgrade_may_have_a_chunked_body(exchange: Exchange, cuts: tuple[bytes, ...]) -> None:
    head = CHUNKED + b"Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
    body = b'7\r\n{"order\r\n8\r\n": 4711}\r\n0\r\n\r\n'
    answers = await exchange.send(*pieces_of(head + body + PLAIN, *cuts))

    assert statuses(answers) == [200, 200]
    assert exchange.app.seen == [("/chunked", ORDER), ("/plain", b"ok")]


async def test_an_upgrade_that_closes_is_the_last_request(exchange: Exchange) -> None:
    head = JAVA.replace(b"Upgrade, HTTP2-Settings", b"close, Upgrade, HTTP2-Settings") % len(ORDER)

    assert statuses(await exchange.send(head + ORDER + PLAIN)) == [200]
    assert exchange.app.seen == [("/java", ORDER)]


async def test_an_upgrade_may_wait_for_100_continue(exchange: Exchange) -> None:
    async with exchange.connect() as (reader, writer):
        writer.write(JAVA.replace(b"Host:", b"Expect: 100-continue\r\nHost:") % len(ORDER))
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(ORDER)
        assert (await reader.readuntil(ORDER)).startswith(b"HTTP/1.1 200 OK")


async def test_a_head_that_asks_for_an_upgrade_is_as_bounded_as_any(exchange: Exchange) -> None:
    head = JAVA % 0
    room = HEAD_LIMIT - len("/java") - sum(len(line) - len(b": ") for line in head.split(b"\r\n")[1:-2])
    largest, larger = (head[:-2] + b"x: " + b"a" * size + b"\r\n\r\n" for size in (room - 1, room))

    assert statuses(await exchange.send(largest)) == [200]
    assert statuses(await exchange.send(larger)) == [431]


async def test_the_body_of_an_upgrade_must_come_in_time(exchange: Exchange) -> None:
    async with exchange.connect() as (reader, writer):
        writer.write(JAVA % 10 + b"x")

        with anyio.fail_after(60):
            assert statuses(await reader.read()) == [408]
    assert exchange.app.seen == [("/java", None)]


@pytest.mark.parametrize("fields", [b"", b"Content-Length: 62\r\n", b"Connection: Upgrade\r\nUpgrade: h2c\r\n"])
async def test_connect_is_refused_and_what_follows_is_not_read(exchange: Exchange, fields: bytes) -> None:
    head = b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n" + fields + b"\r\n"
    answers = await exchange.send(PLAIN + head + PLAIN)

    assert statuses(answers) == [200, 405]
    assert all(part in answers for part in (b"allow: GET", b"connection: close", b'"error_code":"FSS.0405"'))
    assert exchange.app.seen == [("/plain", b"ok")]


async def test_trailers_are_dropped(exchange: Exchange) -> None:
    trailers = (
        b"X-Auth-Token: stolen\r\nHost: elsewhere\r\nX-Real-IP: 10.0.0.1\r\nUpgrade: h2c\r\nConnection: upgrade\r\n"
    )
    answers = await exchange.send(CHUNKED + b"\r\n2\r\nok\r\n0\r\n" + trailers + b"\r\n" + PLAIN)

    assert statuses(answers) == [200, 200]
    assert exchange.app.seen == [("/chunked", b"ok"), ("/plain", b"ok")]
    assert exchange.app.headers == [
        {b"host": b"localhost", b"transfer-encoding": b"chunked"},
        {b"host": b"localhost", b"content-length": b"2"},
    ]


async def test_trailers_are_dropped_also_where_the_headers_are_read_late(exchange: Exchange) -> None:
    async with exchange.connect() as (reader, writer):
        writer.write(CHUNKED + b"\r\n2\r\nok\r\n0\r\nX-Auth-Token: stolen\r\n")
        await exchange.app.entered.wait()
        writer.write(b"X-Real-IP: 10.0.0.1\r\n\r\n")
        await reader.readuntil(b"\r\n\r\nok")

    assert exchange.app.headers == [{b"host": b"localhost", b"transfer-encoding": b"chunked"}]


@pytest.mark.parametrize("line", [b"x: y\r\n" * 1000, b"x" * 6000], ids=["many", "one-without-end"])
async def test_trailers_without_end_are_cut_off(exchange: Exchange, line: bytes) -> None:
    async with exchange.connect() as (_, writer):
        writer.write(CHUNKED + b"\r\n2\r\nok\r\n0\r\n")
        sent = 0
        while sent < 1000 * HEAD_LIMIT and not writer.is_closing():
            writer.write(line)
            with suppress(ConnectionError):
                await writer.drain()
            sent += len(line)

        assert sent < 1000 * HEAD_LIMIT
    assert exchange.app.seen == [("/chunked", None)]


async def test_trailers_count_with_the_head(exchange: Exchange) -> None:
    fixed = len("/chunkedHostlocalhostTransfer-Encodingchunkedxy")
    trailer = b"y: " + b"b" * 1000 + b"\r\n"
    for size, status in ((HEAD_LIMIT - fixed - 1000, 200), (HEAD_LIMIT - fixed - 999, 431)):
        head = CHUNKED + b"x: " + b"a" * size + b"\r\n\r\n"
        assert statuses(await exchange.send(head + b"0\r\n" + trailer + b"\r\n")) == [status]


async def test_a_chunk_that_comes_apart_from_its_size_is_no_trailer(exchange: Exchange) -> None:
    size = 3 * HEAD_LIMIT
    async with exchange.connect() as (reader, writer):
        writer.write(CHUNKED + b"\r\n%x\r\n" % size)
        await exchange.app.entered.wait()
        for _ in range(3):
            writer.write(b"x" * HEAD_LIMIT)
            await writer.drain()
        writer.write(b"\r\n0\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        assert await reader.readexactly(size) == b"x" * size


async def test_an_error_behind_a_good_request_does_not_take_its_answer(exchange: Exchange) -> None:
    answers = await exchange.send(PLAIN + GARBAGE)

    assert statuses(answers) == [200, 400]
    assert exchange.app.seen == [("/plain", b"ok")]


async def test_earlier_requests_are_answered_before_an_error(exchange: Exchange) -> None:
    async with exchange.connect() as (reader, writer):
        writer.write(PLAIN.replace(b"/plain", b"/hold") + PLAIN + GARBAGE)
        await exchange.app.entered.wait()
        writer.write(PLAIN)  # is no longer read
        exchange.app.release.set()

        assert statuses(await reader.read()) == [200, 200, 400]
    assert exchange.app.seen == [("/hold", b"ok"), ("/plain", b"ok")]


async def test_a_body_that_breaks_off_behind_others_is_refused_in_its_turn(exchange: Exchange) -> None:
    async with exchange.connect() as (reader, writer):
        writer.write(PLAIN.replace(b"/plain", b"/hold") + CHUNKED + b"\r\nno size\r\n")
        await exchange.app.entered.wait()
        exchange.app.release.set()

        assert statuses(await reader.read()) == [200, 400]
    assert exchange.app.seen == [("/hold", b"ok")]


async def test_a_body_that_breaks_off_is_not_handed_on_as_whole(exchange: Exchange) -> None:
    assert statuses(await exchange.send(CHUNKED + b"\r\n2\r\nok\r\n", b"no size\r\n")) == [400]
    assert exchange.app.seen == [("/chunked", None)]


@pytest.mark.parametrize("target", [b"http://localhost", b"http://localhost?x=1", b"http://a:99999999/"])
async def test_a_target_without_a_path_is_refused_after_earlier_answers(exchange: Exchange, target: bytes) -> None:
    bad = b"GET " + target + b" HTTP/1.1\r\nHost: localhost\r\n\r\n"

    assert statuses(await exchange.send(PLAIN, bad)) == [200, 400]
    assert statuses(await exchange.send(PLAIN + PLAIN + bad)) == [200, 200, 400]
    assert exchange.app.seen == [("/plain", b"ok")] * 3


async def test_close_in_a_trailer_closes_the_connection(exchange: Exchange) -> None:
    with anyio.fail_after(60):
        answers = await exchange.send(CHUNKED + b"\r\n2\r\nok\r\n0\r\nConnection: close\r\n\r\n", PLAIN)

    assert statuses(answers) == [200]
    assert b"connection: close" in answers
    assert exchange.app.seen == [("/chunked", b"ok")]


async def test_an_answer_under_way_is_cut_off_and_not_followed_by_an_error(exchange: Exchange) -> None:
    async with exchange.connect() as (reader, writer):
        writer.write(CHUNKED.replace(b"/chunked", b"/early") + b"\r\n")
        answer = await reader.readuntil(b"early")
        writer.write(b"no size\r\n")

        assert statuses(answer + await reader.read()) == [200]
    assert exchange.app.seen == [("/early", None)]
