"""Whole answers, byte by byte, except the values of Date and X-Request-Id."""

from __future__ import annotations

from tests.support.raw_exchanges import GOT, OK, PLAIN, POSTED, Row, Until, answered, check, each, get, post

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def lines(*text: str, body: bytes = b"") -> bytes:
    """Return an answer with these lines as its head."""
    return "\r\n".join((*text, "", "")).encode() + body


ECHO = ("HTTP/1.1 200 OK", "Content-Length: 2", "Content-Type: text/plain", "Date: *")
EMPTY = ("HTTP/1.1 200 OK", "Content-Length: 0", "Content-Type: text/plain", "Date: *")
CLOSE, KEEP = "Connection: close", "Connection: keep-alive"


def refusal(status: str, text: str, *more: str) -> bytes:
    """Return an error reply of the listener."""
    body = b'{"error_code":"FSS.0%b","error_msg":"%b"}' % (status[:3].encode(), text.encode())
    head = ("Content-Type: application/json", f"Content-Length: {len(body)}", "Cache-Control: no-store")
    return lines(f"HTTP/1.1 {status}", *head, "X-Request-Id: *", *more, "Date: *", CLOSE, body=body)


METHODS = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
ANSWERS = [
    answered(
        "a POST",
        PLAIN + get(b"Connection: close"),
        POSTED,
        GOT,
        closed=True,
        whole=lines(*ECHO, body=b"42") + lines(*EMPTY, CLOSE),
    ),
    answered(
        "a HEAD",
        get(b"Connection: close").replace(b"GET", b"HEAD"),
        ("HEAD /g", b""),
        closed=True,
        bodiless=(0,),
        whole=lines(*EMPTY, CLOSE),
    ),
    answered("HTTP/1.0", b"GET /g HTTP/1.0\r\n\r\n", GOT, closed=True, whole=lines(*EMPTY, CLOSE)),
    answered(
        "keep-alive",
        b"GET /g HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /g HTTP/1.0\r\n\r\n",
        GOT,
        GOT,
        closed=True,
        whole=lines(*EMPTY, KEEP) + lines(*EMPTY, CLOSE),
    ),
    Row(
        "100 Continue",
        (post(b"Expect: 100-continue", b"Connection: close", b"Content-Length: 2", body=b""), Until(CONTINUE), b"42"),
        (100, OK),
        (POSTED,),
        closed=True,
        whole=CONTINUE + lines(*ECHO, CLOSE, body=b"42"),
    ),
    answered(
        "an answer without length",
        post(b"Connection: close", b"Content-Length: 2").replace(b"/t", b"/parts"),
        ("POST /parts", b"42"),
        closed=True,
        whole=lines(
            "HTTP/1.1 200 OK", "Transfer-Encoding: chunked", "Date: *", CLOSE, body=b"1\r\n4\r\n1\r\n2\r\n0\r\n\r\n"
        ),
    ),
    answered(
        "such an answer to HTTP/1.0",
        post(b"Connection: keep-alive", b"Content-Length: 2")
        .replace(b"HTTP/1.1", b"HTTP/1.0")
        .replace(b"/t", b"/parts"),
        ("POST /parts", b"42"),
        closed=True,
        whole=lines("HTTP/1.1 200 OK", "Date: *", CLOSE, body=b"42"),
    ),
]
REFUSALS = [
    Row(
        "no Host",
        b"GET /g HTTP/1.1\r\n\r\n",
        400,
        whole=refusal("400 Bad Request", "the request has 0 Host headers; send exactly one"),
    ),
    Row(
        "CONNECT",
        get().replace(b"GET", b"CONNECT"),
        405,
        whole=refusal("405 Method Not Allowed", "CONNECT is not supported: this is not a proxy", f"Allow: {METHODS}"),
    ),
    Row(
        "an expectation",
        get(b"Expect: x"),
        417,
        whole=refusal("417 Expectation Failed", "only the expectation 100-continue is supported"),
    ),
    Row(
        "a method",
        get().replace(b"GET", b"BREW"),
        501,
        whole=refusal(
            "501 Not Implemented",
            "this method is not supported; use one of GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, TRACE",
        ),
    ),
    Row(
        "WebSocket",
        get(b"Connection: Upgrade", b"Upgrade: websocket"),
        501,
        whole=refusal("501 Not Implemented", "WebSocket is not supported; send ordinary requests"),
    ),
    Row(
        "a version",
        get().replace(b"1.1", b"2.0"),
        505,
        whole=refusal("505 HTTP Version Not Supported", "HTTP/2.0 is not supported; send HTTP/1.1"),
    ),
    Row(
        "a refused HEAD",
        get(b"Expect: x").replace(b"GET", b"HEAD"),
        417,
        bodiless=(0,),
        whole=refusal("417 Expectation Failed", "only the expectation 100-continue is supported").partition(b"{")[0],
    ),
]


@each([*ANSWERS, *REFUSALS])
async def test_an_answer_has_exactly_these_bytes(row: Row) -> None:
    await check(row)
