"""Reading of bodies and sending of replies, by a listener and by plain ASGI messages."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from engine.asgi.listener import listen
from engine.asgi.wire import ClientDisconnect, Receive, Reply, Scope, Send, read_body, respond
from engine.errors import PayloadTooLarge


def receiver(*messages: dict[str, Any]) -> Receive:
    left = list(messages)

    async def receive() -> dict[str, Any]:
        return left.pop(0)

    return receive


def piece(size: int, *, more: bool = True) -> dict[str, Any]:
    return {"type": "http.request", "body": b"x" * size, "more_body": more}


GONE: dict[str, Any] = {"type": "http.disconnect"}


async def test_a_body_may_come_in_any_number_of_pieces_of_any_size() -> None:
    sizes = [1] * 10_000 + [5_000, 1, 70_000, 0, 4_096, 4_095, 3]
    bodies = [bytes([number % 256]) * size for number, size in enumerate(sizes)]
    messages = [{"type": "http.request", "body": body, "more_body": True} for body in bodies]

    assert await read_body(receiver(*messages, piece(0, more=False)), {}, sum(sizes)) == b"".join(bodies)


@pytest.mark.parametrize(
    ("messages", "headers", "error"),
    [
        ([GONE], {}, ClientDisconnect),
        ([piece(2), GONE], {}, ClientDisconnect),
        ([piece(5), GONE], {}, ClientDisconnect),
        ([piece(6, more=False)], {}, PayloadTooLarge),
        ([piece(6)], {}, PayloadTooLarge),
        ([piece(3), piece(3)], {}, PayloadTooLarge),
        ([piece(5), piece(1)], {}, PayloadTooLarge),
        ([], {b"content-length": b"6"}, PayloadTooLarge),  # before the body is read
    ],
)
async def test_a_body_that_does_not_end_or_is_too_large_is_an_error(
    messages: list[dict[str, Any]], headers: dict[bytes, bytes], error: type[Exception]
) -> None:
    with pytest.raises(error):
        await read_body(receiver(*messages), headers, 5)


async def lines_of(reply: Reply) -> tuple[int, list[str], bytes]:
    """Return status, header lines except Date, and body of ``reply``, as a client of a listener receives them."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(scope, send, reply)

    async with listen(app, "127.0.0.1", 0) as port, httpx.AsyncClient(trust_env=False, verify=False) as client:
        received = await client.get(f"http://127.0.0.1:{port}/")
    lines = [f"{name}: {value}" for name, value in received.headers.items() if name != "date"]
    return received.status_code, lines, received.content


@pytest.mark.parametrize(
    ("reply", "lines"),
    [
        (Reply(body=b"{}"), ["content-length: 2", "content-type: application/json"]),
        (Reply(), ["content-length: 0"]),
        (Reply(content_type=b"text/plain"), ["content-length: 0", "content-type: text/plain"]),
        (
            Reply(headers=((b"content-type", b"text/x"),), body=b"a", content_type=b""),
            ["content-type: text/x", "content-length: 1"],
        ),
        (Reply(status=204, body=b"left out"), []),
        (Reply(status=205, body=b"left out"), ["content-length: 0"]),
        (Reply(status=304, body=b"left out"), []),
    ],
)
async def test_a_reply_names_the_length_and_the_type_of_its_body_if_its_status_has_one(
    reply: Reply, lines: list[str]
) -> None:
    assert await lines_of(reply) == (reply.status, lines, reply.body if reply.status == 200 else b"")
