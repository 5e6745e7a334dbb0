"""Expect: 100-continue, and refusals of requests whose body the client holds back."""

from __future__ import annotations

import anyio
import pytest

from engine.asgi.listener import listen
from engine.asgi.wire import Receive, Reply, Scope, Send, respond
from tests.support.raw_client import connect, read_answers
from tests.support.raw_exchanges import GOT, OK, PLAIN, POSTED, End, Row, Until, answered, check, each, get, post
from tests.support.scripted_app import ScriptedApp, no_problems

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
HEAD = post(b"Expect: 100-continue", b"Content-Length: 2", body=b"")
CHUNKED = post(b"Expect: 100-continue", b"Transfer-Encoding: chunked", body=b"")
INNER = get()

ROWS = [
    Row("a client that waits", (HEAD, Until(CONTINUE), b"42"), (100, OK), (POSTED,)),
    Row("a client that waits, chunked", (CHUNKED, Until(CONTINUE), b"2\r\n42\r\n0\r\n\r\n"), (100, OK), (POSTED,)),
    Row(
        "an expectation in capitals",
        (HEAD.replace(b"100-continue", b"100-Continue"), Until(CONTINUE), b"42"),
        (100, OK),
        (POSTED,),
    ),
    Row(
        "two requests that wait",
        (HEAD, Until(CONTINUE), b"42" + HEAD, Until(CONTINUE, 2), b"42"),
        (100, OK) * 2,
        (POSTED,) * 2,
    ),
    answered("a client that does not wait", HEAD + b"42", POSTED, cut=False),
    Row(
        "a client that waits behind others",
        (PLAIN * 2 + HEAD, Until(CONTINUE), b"42"),
        (OK, OK, 100, OK),
        (POSTED,) * 3,
    ),
    answered("an expectation without a body", get(b"Expect: 100-continue") + PLAIN, GOT, POSTED),
    answered(
        "an expectation with an empty body",
        post(b"Expect: 100-continue", b"Content-Length: 0", body=b""),
        ("POST /t", b""),
    ),
    Row("another expectation", post(b"Expect: the-unexpected", b"Content-Length: 2") + INNER, 417),
    answered("an empty expectation", post(b"Expect:", b"Content-Length: 2"), POSTED),
    Row("two expectations", post(b"Expect: 100-continue, x", b"Content-Length: 2") + INNER, 417),
    answered("a client of HTTP/1.0", HEAD.replace(b"HTTP/1.1", b"HTTP/1.0") + b"42", POSTED, closed=True),
    Row("a client that gives up", (HEAD, Until(CONTINUE), End()), 100, (("POST /t", None),), closed=True),
    *(
        Row(f"a refusal of {name}", head.replace(b"/t", b"/413"), 413, (("POST /413", b""),), closed=True, shared=False)
        for name, head in (("a length", HEAD), ("chunks", CHUNKED))
    ),
]


@each(ROWS)
async def test_a_client_that_expects_100_continue_gets_it(row: Row) -> None:
    await check(row)


@pytest.mark.parametrize("status", [401, 404, 413, 429])
async def test_a_refused_client_that_sends_its_body_all_the_same_is_not_misread(status: int) -> None:
    app = ScriptedApp()
    async with listen(app, "127.0.0.1", 0) as port, connect(port) as client:
        await client.send(HEAD.replace(b"/t", b"/%d" % status).replace(b": 2", b": %d" % len(INNER)))
        await client.until(b"{}")
        await client.send(INNER + INNER)
        [answer] = read_answers(await client.rest())

    assert (answer.status, answer.all(b"connection")) == (status, [b"close"])
    assert app.seen == [(f"POST /{status}", b"")]


async def test_a_client_is_not_asked_for_its_body_after_the_answer() -> None:
    received, done = list[str](), anyio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(scope, send, Reply(body=b"{}"))
        received.append((await receive())["type"])
        done.set()

    async with no_problems(), listen(app, "127.0.0.1", 0) as port, connect(port) as client:
        await client.send(HEAD)
        [answer] = read_answers(await client.rest())
        with anyio.fail_after(30):
            await done.wait()

    assert (answer.status, received) == (200, ["http.disconnect"])
