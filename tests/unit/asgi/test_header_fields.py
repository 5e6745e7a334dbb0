"""Header fields: names, values, folded lines, and great numbers."""

from __future__ import annotations

from tests.support.raw_exchanges import GOT, POSTED, Row, answered, check, each, get, post

HOST = (b"host", b"localhost")
TYPE = (b"content-type", b"application/json")

TAKEN = [
    answered("a value is trimmed", get(b"A: \t b c\t "), GOT, fields=(HOST, (b"a", b"b c"))),
    answered("an empty value", get(b"A:", b"B: "), GOT, fields=(HOST, (b"a", b""), (b"b", b""))),
    answered("a tab in a value", get(b"A: b\tc"), GOT, fields=(HOST, (b"a", b"b\tc"))),
    answered(
        "bytes beyond ASCII are handed on as sent",
        get("X-U: Grüße".encode(), b"X-L: Gr\xfc\xdfe\xff"),
        GOT,
        fields=(HOST, (b"x-u", "Grüße".encode()), (b"x-l", b"Gr\xfc\xdfe\xff")),
    ),
    answered(
        "repeated fields keep their order and number",
        get(b"A: 1", b"B: 2", b"a: 3", b"A: 1"),
        GOT,
        fields=(HOST, (b"a", b"1"), (b"b", b"2"), (b"a", b"3"), (b"a", b"1")),
    ),
    answered("all characters of a name", get(b"!#$%&'*+-.^_`|~0aZ: x"), GOT),
    answered(
        "a name with an underscore is another name",
        post(b"Content_Length: 1", b"Transfer_Encoding: chunked", b"Content-Length: 2"),
        POSTED,
    ),
    answered("4000 fields", get(*(b"a%d: b" % number for number in range(4000))), GOT),
    answered("a field of 32 KiB", get(b"A: " + b"b" * (32 << 10)), GOT),
    answered(
        "a body without a field of its length",
        post(b"A: b", body=b"") + get(),
        ("POST /t", b""),
        GOT,
        fields=(HOST, TYPE, (b"a", b"b")),
    ),
]

#: Each is refused, and no part of it reaches the application.
REFUSED = [
    Row("a space in a name", get(b"A b: c"), 400),
    Row("a space before the colon", get(b"A : b"), 400),
    Row("a tab before the colon", get(b"A\t: b"), 400),
    Row("a space before the colon of Host", get(b"Host : localhost"), 400),
    Row("a line without a colon", get(b"A"), 400),
    Row("a line without a name", get(b": b"), 400),
    Row("a name with NUL", get(b"A\x00: b"), 400),
    Row("a name with a bracket", get(b"A(b): c"), 400),
    Row("a name beyond ASCII", get("Ä: b".encode()), 400),
    Row("NUL in a value", get(b"A: b\x00c"), 400),
    Row("a bare CR in a value", get(b"A: b\rc"), 400),
    Row("a bare CR before a field", get(b"A: b\rContent-Length: 5"), 400),
    Row("a bare LF before a field", get(b"A: b\nContent-Length: 5"), 400),
    Row("CR CR LF after a value", get(b"A: b\r"), 400),
    Row("a control character in a value", get(b"A: b\x01c"), 400),
    Row("DEL in a value", get(b"A: b\x7fc"), 400),
    Row("a folded line", get(b"A: b", b" c"), 400),
    Row("a line folded with a tab", get(b"A: b", b"\tc"), 400),
    Row("a folded line after an empty value", get(b"A:", b" c"), 400),
    Row("a folded first line", b"GET /g HTTP/1.1\r\n Host: localhost\r\n\r\n", 400),
    Row("a folded Host", b"GET /g HTTP/1.1\r\nHost:\r\n localhost\r\n\r\n", 400),
    Row("a folded length", post(b"Content-Length:", b" 2"), 400),
    Row("a folded coding", post(b"Transfer-Encoding:", b" chunked", body=b"2\r\n42\r\n0\r\n\r\n"), 400),
    Row("a line of spaces only", get(b"   "), 400),
    Row("more fields than 64 KiB", get(*(b"a%d: b" % number for number in range(20_000))), 431),
    Row("a value of more than 64 KiB", get(b"A: " + b"b" * (65 << 10)), 431),
    Row("a name of more than 64 KiB", get(b"a" * (65 << 10) + b": b"), 431),
    Row("a target of more than 64 KiB", b"GET /" + b"g" * (65 << 10) + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 431),
]

ROWS = [*TAKEN, *REFUSED]


@each(ROWS)
async def test_header_fields_are_as_the_standard_says(row: Row) -> None:
    await check(row)
