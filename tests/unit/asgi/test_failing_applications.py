"""Applications that fail, answer nothing, or answer with fields that would be misread."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest

from engine.asgi.listener import listen
from engine.asgi.wire import Receive, Reply, Scope, Send, respond
from tests.support.raw_client import connect, read_answers
from tests.support.raw_exchanges import (
    CHUNKED,
    OK,
    PLAIN,
    POSTED,
    Row,
    answered,
    check,
    check_refusal,
    each,
    get,
    masked,
)
from tests.support.scripted_app import PROBE, ScriptedApp, problems


def to(path: bytes, request: bytes = PLAIN) -> bytes:
    return request.replace(b"/t", path)


def failing(name: str, sent: bytes, *seen: tuple[str, bytes], answers: tuple[int, ...] = (500,), **fields: Any) -> Row:
    """Return a row in which the application fails, which is logged."""
    return Row(name, sent, answers, seen, logs=True, shared=False, **fields)


RAISED = ("POST /raise", b"42")
ROWS = [
    failing("raises", to(b"/raise"), RAISED),
    failing("raises for HTTP/1.0", to(b"/raise").replace(b"HTTP/1.1", b"HTTP/1.0"), RAISED),
    failing("raises for HEAD", get().replace(b"GET /g", b"HEAD /raise"), ("HEAD /raise", b""), bodiless=(0,)),
    failing("raises behind a good request", PLAIN + to(b"/raise"), POSTED, RAISED, answers=(OK, 500)),
    failing("answers nothing", to(b"/silent"), ("POST /silent", b"42")),
    Row("answers 204", get().replace(b"/g", b"/204") + PLAIN, (204, OK), (("GET /204", b""), POSTED), shared=False),
    Row("answers 304", get().replace(b"/g", b"/304") + PLAIN, (304, OK), (("GET /304", b""), POSTED), shared=False),
    answered(
        "answers in parts", to(b"/parts", CHUNKED) + b"2\r\n42\r\n0\r\n\r\n" + PLAIN, ("POST /parts", b"42"), POSTED
    ),
]


@each(ROWS)
async def test_each_request_has_one_answer(row: Row) -> None:
    await check(row)


@pytest.mark.parametrize("version", [b"HTTP/1.1", b"HTTP/1.0"])
async def test_an_answer_that_fails_midway_does_not_look_complete(version: bytes) -> None:
    with problems() as logged:
        async with listen(ScriptedApp(), "127.0.0.1", 0) as port, connect(port) as client:
            await client.send(to(b"/midway").replace(b"HTTP/1.1", version))
            with suppress(ConnectionResetError) if version == b"HTTP/1.1" else pytest.raises(ConnectionResetError):
                await client.rest()

    assert client.received.endswith(b"1\r\n4\r\n") or version == b"HTTP/1.0"
    assert logged


async def test_a_second_answer_to_a_request_is_not_sent() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(scope, send, Reply(body=scope["raw_path"]))
        if scope["path"] != "/probe":
            await respond(scope, send, Reply(body=b"again"))

    with problems() as logged:
        async with listen(app, "127.0.0.1", 0) as port, connect(port) as client:
            await client.send(PLAIN + PROBE)
            received = await client.rest()

    assert [answer.body for answer in read_answers(received)] == [b"/t", b"/probe"]
    assert logged


async def answer_of(reply: Reply) -> bytes:
    """Return the bytes of an answer with ``reply``, and of the answer to a second request."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(scope, send, Reply() if scope["path"] == "/probe" else reply)

    async with listen(app, "127.0.0.1", 0) as port, connect(port) as client:
        await client.send(get() + PROBE)
        return await client.rest()


@pytest.mark.parametrize("value", [b"a\r\nSet-Cookie: b", b"a\nb", b"a\rb", b"a\x00b"])
@pytest.mark.parametrize("is_name", [False, True], ids=["value", "name"])
async def test_a_field_that_would_be_two_is_not_sent(value: bytes, is_name: bool) -> None:
    with problems() as logged:
        received = await answer_of(Reply(headers=(((value, b"x") if is_name else (b"x", value)),)))

    [answer] = read_answers(received)
    assert answer.status == 500
    check_refusal(answer)
    assert b"Cookie" not in received
    assert logged


async def test_a_date_of_the_application_is_the_only_one() -> None:
    date = b"Mon, 01 Jan 2024 00:00:00 GMT"
    first, second = read_answers(await answer_of(Reply(headers=((b"Date", date),))))

    assert first.all(b"date") == [date]
    assert len(second.all(b"date")) == 1


async def test_an_answer_is_written_as_the_application_says() -> None:
    received = await answer_of(Reply(status=201, body=b"{}", headers=((b"X-A", b"b"), (b"x-a", b"Gr\xfc\xdfe"))))

    first, _, _ = masked(received).partition(b"{}")
    status, *lines = first.removesuffix(b"\r\n\r\n").split(b"\r\n")
    assert status == b"HTTP/1.1 201 Created"
    assert sorted(line.lower() for line in lines) == [
        b"content-length: 2",
        b"content-type: application/json",
        b"date: *",
        b"x-a: b",
        b"x-a: gr\xfc\xdfe",
    ]
