"""Framing of bodies: Content-Length, Transfer-Encoding, and attempts to smuggle a request in a body."""

from __future__ import annotations

import pytest

from engine.asgi.heads import check_headers, parse_line
from engine.asgi.responses import Refusal
from tests.support.raw_exchanges import GET, GOT, OK, PLAIN, POSTED, End, Row, answered, check, each, get, post

CHUNKS = b"2\r\n42\r\n0\r\n\r\n"
INNER = get()  #: request that an attacker hides in a body
EMPTY = ("POST /t", b"")

CODED = b"Transfer-Encoding: chunked"


LENGTHS = [
    answered("a length", post(b"Content-Length: 2"), POSTED),
    answered("a length of zero", post(b"Content-Length: 0", body=b"") + get(), EMPTY, GOT),
    answered("leading zeros", post(b"Content-Length: 0002"), POSTED),
    answered("spaces around a length", post(b"Content-Length: \t2 "), POSTED),
    answered("no space before a length", post(b"content-length:2"), POSTED),
    answered("a body of GET", GET + b"Content-Length: 2\r\n\r\n42" + PLAIN, ("GET /g", b"42"), POSTED, shared=True),
    answered("a body of DELETE", PLAIN.replace(b"POST", b"DELETE"), ("DELETE /t", b"42")),
    answered(
        "a body that looks like a request", post(b"Content-Length: %d" % len(INNER), body=INNER), ("POST /t", INNER)
    ),
    answered("more bytes than the length", post(b"Content-Length: 2", body=b"42" + INNER), POSTED, GOT),
    *(
        Row(f"the length {value.decode('latin-1')!r}", post(b"Content-Length: " + value), 400)
        for value in (
            *b'|+2|-2|2.0|0x2|2h|2 2|1e1|two|2,|2, 2|2, 3|2;a|"2"|\xb2|2\x0b'.split(b"|"),
            b"18446744073709551618",
            b"9" * 400,
        )
    ),
    Row("two equal lengths", post(b"Content-Length: 2", b"Content-Length: 2"), 400),
    Row("two different lengths", post(b"Content-Length: 2", b"Content-Length: 3"), 400),
    Row("two lengths in other letters", post(b"Content-Length: 2", b"content-length: 0"), 400),
    Row("a space before the colon of a length", post(b"Content-Length : 2"), 400),
]

CODINGS = [
    answered("chunked", post(CODED, body=CHUNKS), POSTED),
    answered("chunked in capitals", post(CODED.upper(), body=CHUNKS), POSTED),
    answered("a tab before chunked", post(b"Transfer-Encoding:\tchunked", body=CHUNKS), POSTED),
    answered("a space after chunked", post(CODED + b" ", body=CHUNKS), POSTED),
    Row("a tab after chunked", post(CODED + b"\t", body=CHUNKS), 400),
    answered("a chunked GET", get(CODED) + CHUNKS + PLAIN, ("GET /g", b"42"), POSTED, shared=True),
    *(
        Row(f"the coding {value.decode('latin-1')!r}", post(b"Transfer-Encoding: " + value, body=CHUNKS), status)
        for status, values in (
            (501, (b"gzip, chunked", b",chunked")),
            (400, (b"", b"gzip", b"identity", b"xchunked", b"chunkedx", b"chunked, gzip", b"chunked;q=1")),
            (400, (b"chunked, chunked", b"chunked,", b"chu nked", b"\x0bchunked", b'"chunked"')),
        )
        for value in values
    ),
    Row("two codings chunked", post(CODED, CODED, body=CHUNKS), 400),
    Row("two codings", post(b"Transfer-Encoding: identity", CODED, body=CHUNKS), 501),
    Row("a coding behind chunked", post(CODED, b"Transfer-Encoding: x", body=CHUNKS), 400),
    Row("a space before the colon of a coding", post(b"Transfer-Encoding : chunked", body=CHUNKS), 400),
    Row("a tab before the colon of a coding", post(b"Transfer-Encoding\t: chunked", body=CHUNKS), 400),
    Row("NUL in the name of a coding", post(b"Transfer-Encoding\x00: chunked", body=CHUNKS), 400),
    Row("a coding in HTTP/1.0", post(CODED, body=CHUNKS).replace(b"HTTP/1.1", b"HTTP/1.0"), 400),
]

#: Requests whose two framings differ. Neither is used.
SMUGGLED = [
    Row("a length, then a coding", post(b"Content-Length: 60", CODED, body=b"0\r\n\r\n" + INNER), 400),
    Row(
        "a coding, then a length",
        post(CODED, b"Content-Length: 4", body=b"2b\r\n" + INNER + b"0\r\n\r\n"),
        400,
    ),
    Row("an agreeing length and a coding", post(b"Content-Length: %d" % len(CHUNKS), CODED, body=CHUNKS), 400),
    Row(
        "a length and an unknown coding",
        post(b"Content-Length: 2", b"Transfer-Encoding: xchunked", body=b"42" + INNER),
        400,
    ),
    Row("a length and an empty coding", post(b"Content-Length: 2", b"Transfer-Encoding:", body=b"42" + INNER), 400),
    Row("a length of zero and a coding", post(b"Content-Length: 0", CODED, body=CHUNKS + INNER), 400),
    Row("a length behind a bare CR", post(b"A: b\rContent-Length: 60", b"Content-Length: 2", body=b"42" + INNER), 400),
    Row("a coding behind a bare LF", post(b"A: b\n" + CODED, b"Content-Length: 5", body=b"0\r\n\r\n"), 400),
    Row("a coding in a folded line", post(b"A: b", b" " + CODED, b"Content-Length: 2"), 400),
    Row(
        "a coding behind good requests", PLAIN + get() + post(b"Content-Length: 2", CODED), (OK, OK, 400), (POSTED, GOT)
    ),
]

ABORTED = ("POST /t", None)
BROKEN_OFF = [
    Row("a body that breaks off", (post(b"Content-Length: 3"), End()), (), (ABORTED,)),
    Row("a body that never starts", (post(b"Content-Length: 3", body=b""), End()), (), (ABORTED,)),
    Row("a body that breaks off behind another", (PLAIN + post(b"Content-Length: 3"), End()), OK, (POSTED, ABORTED)),
]

ROWS = [*LENGTHS, *CODINGS, *SMUGGLED, *BROKEN_OFF]


@each(ROWS)
async def test_a_body_ends_where_its_only_framing_says(row: Row) -> None:
    await check(row)


@pytest.mark.parametrize(
    "fields",
    [
        [(b"content-length", b"2"), (b"content-length", b"2")],
        [(b"content-length", b"2"), (b"transfer-encoding", b"chunked")],
        [(b"content-length", b"1_0")],
        [(b"content-length", b"+1")],
    ],
)
def test_unclear_lengths_are_refused_even_if_the_parser_lets_them_pass(fields: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(Refusal, match="400"):
        check_headers(parse_line(b"POST /t HTTP/1.1"), [(b"host", b"a"), *fields])
