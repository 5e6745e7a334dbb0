"""Framing of bodies: Content-Length, Transfer-Encoding, chunks and trailers, and attempts to smuggle a request."""

from __future__ import annotations

import pytest

from engine.asgi.heads import check_headers, parse_line
from engine.asgi.listener import HEAD_LIMIT, listen
from engine.asgi.reader import Part, RequestReader
from engine.asgi.responses import Refusal
from tests.support.raw_client import connect
from tests.support.raw_exchanges import CHUNKED, GET, GOT, OK, PLAIN, POSTED, End, Row, answered, check, each, get, post
from tests.support.scripted_app import ScriptedApp

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


# --- chunks and trailers -------------------------------------------------------------------------------------

LAST = b"0\r\n\r\n"
LONG = b"[" + b"0," * 100 + b"0]"


TAKEN = [
    answered("one chunk", CHUNKED + b"2\r\n42\r\n" + LAST, POSTED),
    answered("two chunks", CHUNKED + b"1\r\n4\r\n1\r\n2\r\n" + LAST, POSTED),
    answered("no chunk", CHUNKED + LAST + get(), ("POST /t", b""), GOT),
    answered("a size with leading zeros", CHUNKED + b"0002\r\n42\r\n000\r\n\r\n", POSTED),
    answered("a size in small letters", CHUNKED + b"%x\r\n" % len(LONG) + LONG + b"\r\n" + LAST, ("POST /t", LONG)),
    answered("a size in capitals", CHUNKED + b"%X\r\n" % len(LONG) + LONG + b"\r\n" + LAST, ("POST /t", LONG)),
    answered("an extension", CHUNKED + b'2;a=b;c="d e"\r\n42\r\n0;x\r\n\r\n', POSTED),
    answered("a chunk that looks like the end", CHUNKED + b"5\r\n" + LAST + b"\r\n" + LAST, ("POST /t", LAST)),
    answered(
        "a chunk of 100 KiB", CHUNKED + b"19000\r\n" + b"4" * 0x19000 + b"\r\n" + LAST, ("POST /t", b"4" * 0x19000)
    ),
    answered("a request behind a chunked body", CHUNKED + b"2\r\n42\r\n" + LAST + get(), POSTED, GOT),
]

#: Bytes in the place of a size and a chunk, whose last line ends here.
NO_CHUNKS = b"|no size|+2\r\n42|-2\r\n42|0x2\r\n42|2h\r\n42| 2\r\n42|2 \r\n42|2\t\r\n42|2_0\r\n42|2.\r\n42|2\n42|2\r42"
NO_CHUNKS += b"|2\r\n423|2;a\n42|2;a\r42|2;a\x00\r\n42|10000000000000002\r\n42|\xb2\r\n42|\x002\r\n42"

#: Bytes in the place of a chunk. The body is aborted, and what follows is no request.
WRONG = [
    *(
        Row(
            f"the chunk {chunk[:20].decode('latin-1')!r}",
            (CHUNKED + b"1\r\n4\r\n", chunk + LAST + get()),
            400,
            (ABORTED,),
        )
        for chunk in (*(line + b"\r\n" for line in NO_CHUNKS.split(b"|")), b"2\r\n42\n", b"2\r\n42")
    ),
    Row("a first chunk without a size", CHUNKED + b"no size\r\n" + get(), 400, (ABORTED,), cut=False),
    Row(
        "an end without an empty line", CHUNKED + b"2\r\n42\r\n0\r\nGET /g HTTP/1.1\r\nHost: a\r\n\r\n", 400, (ABORTED,)
    ),
    Row("a body without its last chunk", (CHUNKED + b"2\r\n42\r\n", End()), (), (ABORTED,)),
    Row("a body without its last line", (CHUNKED + b"2\r\n42\r\n0\r\n", End()), (), (ABORTED,)),
    Row("a chunk that breaks off", (CHUNKED + b"ffffffffffffffff\r\n42", End()), (), (ABORTED,)),
]


def trailers(*lines: bytes) -> bytes:
    """Return a chunked request with these trailers."""
    return CHUNKED + b"2\r\n42\r\n0\r\n" + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


FIELDS = ((b"host", b"localhost"), (b"content-type", b"application/json"), (b"transfer-encoding", b"chunked"))
TRAILERS = [
    answered(
        "trailers are dropped",
        trailers(b"X-Auth-Token: stolen", b"Host: elsewhere", b"X-Real-IP: 10.0.0.1") + get(),
        POSTED,
        GOT,
        fields=FIELDS,
    ),
    answered(
        "trailers are not obeyed", trailers(b"Connection: close", b"Upgrade: h2c") + get(), POSTED, GOT, fields=FIELDS
    ),
    Row("a length in a trailer", trailers(b"Content-Length: 60") + get(), 400, (ABORTED,)),
    Row("a coding in a trailer", trailers(b"Transfer-Encoding: chunked") + get(), 400, (ABORTED,)),
    answered("a websocket in a trailer", trailers(b"Upgrade: websocket", b"Connection: upgrade") + get(), POSTED, GOT),
    answered("an expectation in a trailer", trailers(b"Expect: 100-continue") + get(), POSTED, GOT),
    Row("a trailer with a space in its name", trailers(b"A b: c") + get(), 400, (ABORTED,)),
    Row("a folded trailer", trailers(b"A: b", b" c") + get(), 400, (ABORTED,)),
    Row("a trailer with NUL", trailers(b"A: b\x00") + get(), 400, (ABORTED,)),
    Row("a bare LF after a trailer", trailers(b"A: b\nC: d") + get(), 400, (ABORTED,)),
    answered("many small trailers", trailers(*[b"a: b"] * 5000) + get(), POSTED, GOT),
    Row("trailers of more than 64 KiB", trailers(*[b"a: " + b"b" * 1000] * 70) + get(), 431, (ABORTED,)),
    Row("a trailer of more than 64 KiB", trailers(b"a: " + b"b" * (65 << 10)) + get(), 431, (ABORTED,)),
]

CHUNKED_ROWS = [*TAKEN, *WRONG, *TRAILERS]


@each(CHUNKED_ROWS)
async def test_a_chunked_body_ends_at_its_last_line(row: Row) -> None:
    await check(row)


async def test_trailers_are_dropped_also_where_the_headers_are_read_late() -> None:
    app = ScriptedApp()
    async with listen(app, "127.0.0.1", 0) as port, connect(port) as client:
        await client.send(CHUNKED + b"2\r\n42\r\n0\r\nX-Auth-Token: stolen\r\n")
        await app.entered.wait()
        await client.send(b"X-Real-IP: 10.0.0.1\r\n\r\n")
        await client.until(b"\r\n\r\n42")

    assert app.fields == [list(FIELDS)]


@pytest.mark.parametrize(("more", "status"), [(0, OK), (3, 431)])
async def test_trailers_count_with_the_head(more: int, status: int) -> None:
    field = b"x: " + b"a" * (HEAD_LIMIT - 2000)
    head = post(field, b"Transfer-Encoding: chunked", body=b"")
    trailer = b"y: " + b"b" * (HEAD_LIMIT - len(head) - len(b"y: \r\n") + more) + b"\r\n"
    sent = head + b"2\r\n42\r\n0\r\n" + trailer + b"\r\n"
    await check(Row("", sent, status, (POSTED,) if status == OK else (ABORTED,)))


EXTENSION = b";" + b"x" * 35_000


@pytest.mark.parametrize("size", [1, 1000, 1 << 20])
@pytest.mark.parametrize(("count", "fits"), [(1, True), (2, False)])
def test_extensions_count_over_the_whole_body_however_it_arrives(size: int, count: int, fits: bool) -> None:
    sent = CHUNKED + b"1\r\n.\r\n" * 20_000 + b"1%b\r\n.\r\n" % EXTENSION * count + b"0\r\n\r\n"
    reader = RequestReader()

    def read_all() -> bool:
        at = 0
        while at < len(sent):
            at += reader.read(sent[at : at + size], 0)
        return reader.part is Part.END

    if fits:
        assert read_all()
    else:
        with pytest.raises(Refusal, match="431"):
            read_all()
