"""Mutations: each changes one part of a valid request into something that servers may read differently."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from tests.integration.framing.requests import HIDDEN, Request, chunk

Mutation = Callable[[Random, Request], None]

#: Bytes that end, join or split parts of a message in one parser or another.
SPECIAL = (
    b"\r", b"\n", b"\r\n", b"\0", b" ", b"\t", b":", b"\x0b", b"\x0c", b"\x7f", b"\x80", b"\xff", b",", b";", b'"',
    b"0",
)  # fmt: skip
METHODS = (
    b"get", b"Post", b"BREW", b"PRI", b"TRACE", b"CONNECT", b"M-SEARCH", b"PROPFIND", b"QUERY", b"", b"GE\tT",
    b"G\xc3\x89T", b"POST GET", b"\x16\x03\x01", b"HTTP/1.1", b"GET\0",
)  # fmt: skip
TARGETS = (
    b"", b"*", b"x", b"/a b", b"/a\tb", b"/\0", b"/\xff", b"/a#b", b"#", b"?a", b"http://", b"http:///x",
    b"http://a@b/c", b"http://a:b", b"http://[", b"//a", b"localhost:80", b"ftp://a/b", b"http:/a", b"/%", b"/%zz",
    b"/\\..", b"/\r", b"/ HTTP/1.1\r\nX: ", b"/\x7f", b"https://a:99999999/", b"/" + b"t" * 9000,
)  # fmt: skip
VERSIONS = (
    b"", b"HTTP/0.9", b"HTTP/1.0", b"HTTP/1.2", b"HTTP/1.10", b"HTTP/2.0", b"HTTP/2", b"HTTP/3.0", b"HTTP/9.9",
    b"http/1.1", b"HTTP/1.1 ", b" HTTP/1.1", b"HTTP/1.1 x", b"HTTP/1,1", b"HTTP/01.1", b"HTTP/1.", b"HTTP 1.1",
    b"HTTPS/1.1", b"HTTP/1.1\t", b"ICE/1.0", b"RTSP/1.0",
)  # fmt: skip
LINE_ENDS = (b"\n", b"\r", b"\r\r\n", b"\n\r", b"", b"\r\n ", b"\r\n\t", b" \r\n", b"\0\r\n", b"\r\n\n")
FIELDS = (
    b"X Y: 1\r\n", b"X : 1\r\n", b"X\t: 1\r\n", b" X: 1\r\n", b": 1\r\n", b"X\r\n", b"X\0: 1\r\n", b"X: \0\r\n",
    b"X: a\rb\r\n", b"X: a\nY: b\r\n", b"X: a\r\n b\r\n", b"X: a\r\n\tb\r\n", b"X: a\r\n \r\n", b"X(: 1\r\n",
    b"X\xff: 1\r\n", b"X: \x01\r\n", b"X: \x7f\r\n", b"\r: 1\r\n", b"X: " + b"l" * 70_000 + b"\r\n", b"X: 1\n",
    b"X: 1\r", b"@: 1\r\n", b"X: 1\r\r\n", b"Expect: 200-ok\r\n", b"Expect: 100-continue, x\r\n", b"Expect:\r\n",
    b"Expect: 100-continue\r\n", b"Upgrade: websocket\r\nConnection: upgrade\r\n",
    b"Upgrade: h2c\r\nConnection: close, upgrade\r\n", b"Connection: upgrade\r\n", b"Upgrade: websocket\r\n",
    b"Upgrade: TLS/1.0, x\r\nConnection: Upgrade\r\n", b"Connection: close\r\nConnection: keep-alive\r\n",
    b"Connection: content-length\r\n", b"Connection: transfer-encoding, host\r\n", b"Connection: \xff\r\n",
    b"Keep-Alive: timeout=0\r\n", b"Content-Encoding: gzip\r\n", b"Range: bytes=0-\r\n", b"HTTP2-Settings:\r\n",
    b"Connection : close\r\n", b"Connection: clo\r\n se\r\n",
)  # fmt: skip
HOSTS = (
    b"", b"Host: a\r\nHost: b\r\n", b"Host: a\r\nhost: a\r\n", b"Host:\r\n", b"Host: a b\r\n", b"Host: a, b\r\n",
    b"Host: http://a\r\n", b"Host: a/b\r\n", b"Host: a@b\r\n", b"Host : a\r\n", b"Host: a:b\r\n", b"Host: [::1\r\n",
    b"Host: \xff\r\n", b" Host: a\r\n", b"Host: a\r\n b\r\n", b"Host\0: a\r\n", b"Host: a\0\r\n", b"Host: a\t\r\n",
)  # fmt: skip
LENGTHS = (
    b"+%d", b"-%d", b"%da", b"0x%x", b"%d, %d", b"%d,", b",%d", b"%d %d", b"%d.0", b"%de0", b"\0%d", b"%d\0",
    b"\xef\xbc\x95", b"", b"-0", b"99999999999999999999", b"18446744073709551616", b"18446744073709551615",
    b"9223372036854775808", b"4294967296", b"%d\r\n ", b"\r\n %d", b"%d\x0b", b"\x0c%d", b"%d\r", b"'%d'", b"%d;a=b",
    b"0%d", b"%d\t ", b"0b1", b"1_0",
)  # fmt: skip
ENCODINGS = (
    b"Chunked", b"CHUNKED", b"chunked, chunked", b"gzip, chunked", b"chunked, gzip", b"chunked,", b",chunked",
    b"identity", b"", b"identity, chunked", b"xchunked", b"chunkedx", b"chunked;q=1", b"\x0bchunked", b"chunked\x0b",
    b"chunked\0", b"chun\rked", b"\r\n chunked", b"chunked\r\n ", b"chunked\r\nTransfer-Encoding: identity",
    b"gzip\r\nTransfer-Encoding: chunked", b"chunked\r\nTransfer-Encoding: chunked", b'"chunked"', b"chunked chunked",
    b"deflate", b"chunk", b"\xffchunked", b"chunked\r", b"cow, chunked, cow", b"chunked\n",
)  # fmt: skip
ENCODING_NAMES = (
    b"Transfer-Encoding : ", b"Transfer-Encoding\t: ", b"Transfer_Encoding: ", b" Transfer-Encoding: ",
    b"Transfer-Encoding:", b"Transfer-Encodin: ", b"Transfer-Encoding\0: ", b"X: y\rTransfer-Encoding: ",
    b"X: y\nTransfer-Encoding: ", b"Transfer-Encoding;: ", b"transfer-ENCODING: ", b"X: y\r\n Transfer-Encoding: ",
    b"Content-Encoding: ", b"Transfer-Encoding\xff: ",
)  # fmt: skip
SIZES = (
    b"+%x", b"-%x", b"0x%x", b" %x", b"%x ", b"\t%x", b"%x\t", b"", b"g", b"%xg", b"%x.0", b"00000000000000000000%x",
    b"fffffffffffffffff", b"10000000000000000", b"ffffffffffffffff", b"7fffffffffffffff", b"80000000", b"%x\0",
    b"%x\r", b"%x;", b"%x;=", b'%x;a="', b'%x;a="\r\n"', b"%x;a\r", b"%x;a\rb", b"%x;a\nb", b"%x;a\0b", b"%x;\xff",
    b"%x,1", b"%x_0", b"%x;" + b"e" * 9_000, b"%x; a = b", b"%x ;a", b"%x\x0b", b"-0", b"1 0",
)  # fmt: skip
BEFORE = (b"\r\n\r\n", b"\n", b"\r", b" ", b"\0", b"x\r\n", b"\xef\xbb\xbf", b"\r\n \r\n", HIDDEN[:10])
TRAILERS = (
    b"Connection: close\r\n", b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: identity\r\n", b"X: a\r\n b\r\n", b"X\r\n", b"X: 1\n", b": 1\r\n", b"X : 1\r\n", b"X: \0\r\n",
    b"X: " + b"l" * 70_000 + b"\r\n", b"Upgrade: websocket\r\nConnection: upgrade\r\n", b"Expect: 100-continue\r\n",
    b"GET /hidden HTTP/1.1\r\n", b"\n", b"X: a\rb\r\n", b"Connection: keep-alive\r\n", b" X: 1\r\n", b"Host\r\n",
)  # fmt: skip


def change_field_end(random: Random, request: Request) -> None:
    at = random.randrange(len(request.fields))
    request.fields[at] = request.fields[at].removesuffix(b"\r\n") + random.choice(LINE_ENDS)


def add_field(random: Random, request: Request) -> None:
    request.fields.insert(random.randrange(len(request.fields) + 1), random.choice(FIELDS))


def change_host(random: Random, request: Request) -> None:
    request.fields = [field for field in request.fields if not field.startswith(b"Host")]
    request.fields.insert(random.randrange(len(request.fields) + 1), random.choice(HOSTS))


def change_length(random: Random, request: Request) -> None:
    """Send a Content-Length in another notation, with another value, twice, or beside chunks."""
    size = len(request.body)
    if not request.chunked or random.random() < 0.5:
        request.fields = [field for field in request.fields if not field.startswith(b"Content-Length")]
    if random.random() < 0.4:
        wrong = max(0, size + random.choice((-2, -1, 1, 2, 10, len(HIDDEN), -len(HIDDEN))))
        values = random.choice(
            ([b"%d" % wrong], [b"%d" % size, b"%d" % wrong], [b"%d" % wrong, b"%d" % size], [b"%d" % size] * 2)
        )
    else:
        notation = random.choice(LENGTHS)
        values = [notation % ((size,) * notation.count(b"%"))]
    for value in values:
        request.fields.insert(random.randrange(len(request.fields) + 1), b"Content-Length: " + value + b"\r\n")


def change_encoding(random: Random, request: Request) -> None:
    """Send chunks behind another Transfer-Encoding, in part beside a Content-Length."""
    if not request.chunked:
        beside = random.random() < 0.5
        request.fields = [field for field in request.fields if beside or not field.startswith(b"Content-Length")]
        chunk(random, request)
    kept = [field for field in request.fields if not field.lower().startswith(b"transfer-encoding")]
    name = random.choice(ENCODING_NAMES) if random.random() < 0.5 else b"Transfer-Encoding: "
    value = b"chunked" if name != b"Transfer-Encoding: " else random.choice(ENCODINGS)
    kept.insert(random.randrange(len(kept) + 1), name + value + b"\r\n")
    if random.random() < 0.2:
        kept.insert(
            random.randrange(len(kept) + 1), b"Content-Length: %d\r\n" % random.choice((0, 1, len(request.body)))
        )
    request.fields = kept


def _in_chunks(random: Random, request: Request) -> int:
    """Frame the request in chunks if it is not, and return the number of its chunks."""
    if not request.chunked:
        request.fields = [field for field in request.fields if not field.startswith(b"Content-Length")]
        chunk(random, request)
    return request.chunks


def send_chunks_to_an_old_version(random: Random, request: Request) -> None:
    _in_chunks(random, request)
    request.version = b"HTTP/1.0"
    request.fields.append(random.choice((b"", b"Connection: keep-alive\r\n")))


def change_size(random: Random, request: Request) -> None:
    chunks = _in_chunks(random, request)
    at = 3 * random.randrange(chunks + 1)
    size = 0 if at == 3 * chunks else len(request.payload[at + 1])
    if random.random() < 0.3:
        request.payload[at] = b"%x\r\n" % max(0, size + random.choice((-2, -1, 1, 2, 16)))
        return
    notation = random.choice(SIZES)
    request.payload[at] = notation % ((size,) * notation.count(b"%")) + b"\r\n"


def change_chunk_end(random: Random, request: Request) -> None:
    chunks = _in_chunks(random, request)
    at = random.randrange(3 * chunks + 1)
    if request.payload[at].endswith(b"\r\n"):
        request.payload[at] = request.payload[at].removesuffix(b"\r\n") + random.choice(LINE_ENDS)
    else:
        request.payload[at] += random.choice(SPECIAL)


def add_trailer(random: Random, request: Request) -> None:
    at = 3 * _in_chunks(random, request) + 1
    request.payload.insert(at, random.choice(TRAILERS))


def change_last_end(random: Random, request: Request) -> None:
    _in_chunks(random, request)
    request.payload[-1] = random.choice(LINE_ENDS)


def choose(part: str, values: Sequence[bytes]) -> Mutation:
    """Return the mutation that replaces one part by any of these values."""
    return lambda random, request: setattr(request, part, random.choice(values))


#: Framing of bodies is mutated more often than the rest: a mistake there lets a request hide in another.
MUTATIONS: tuple[Mutation, ...] = (
    choose("method", METHODS), choose("target", TARGETS), choose("version", VERSIONS), choose("line_end", LINE_ENDS),
    choose("before", BEFORE), change_field_end, add_field, add_field, change_host,
    change_length, change_length, change_length, change_encoding, change_encoding, change_encoding,
    send_chunks_to_an_old_version, change_size, change_size, change_size, change_chunk_end, change_chunk_end,
    add_trailer, change_last_end,
)  # fmt: skip


def mutate_bytes(random: Random, data: bytes) -> bytes:
    """Change, delete, insert or repeat a few bytes anywhere."""
    at = random.randrange(len(data) + 1)
    match random.randrange(5):
        case 0:
            return data[:at] + random.randbytes(1) + data[at + 1 :]
        case 1:
            return data[:at] + data[at + random.choice((1, 1, 2, 10)) :]
        case 2:
            return data[:at] + random.choice(SPECIAL) + data[at:]
        case 3:
            size = random.choice((1, 2, 8, 40))
            return data[: at + size] + data[at : at + size] + data[at + size :]
        case _:
            other = random.randrange(len(data) + 1)
            low, high = sorted((at, other))
            return data[:low] + data[high : high + 4] + data[low + 4 : high] + data[low : low + 4] + data[high + 4 :]
