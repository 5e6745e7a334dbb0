"""Valid requests, as their parts on the wire and as the application must receive them."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

#: Bodies contain a request, so that bytes which are read as the wrong part of a stream show up.
HIDDEN = b"GET /hidden HTTP/1.1\r\nHost: hidden\r\n\r\n"
METHODS = (b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS")
QUERIES = (b"", b"", b"?", b"?e", b"?a=1&b=%20", b"?a=?&/=//", b"?%3f=%00")
#: Fields that are valid and change nothing.
PLAIN_FIELDS = (
    b"Accept: */*\r\n",
    b"x-empty:\r\n",
    b"X-Spaces: \t a  b \t \r\n",
    b"X-Bytes: Gr\xfc\xdfe \xff\r\n",
    b"X-Twice: 1\r\nX-Twice: 2\r\n",
    b"X_Under: 1\r\n",
    b"!#$%&'*+-.^_`|~9: 1\r\n",
    b"X-Long: " + b"l" * 2000 + b"\r\n",
    b"Connection: keep-alive\r\n",
    b"Connection: x-empty, foo\r\n",
    b"Proxy-Connection: close\r\n",
    b"TE: trailers\r\n",
    b"Cookie: a=b; c=d\r\n",
    b'Content-Type: text/plain; charset="a\\"b"\r\n',
)
TRAILERS = (b"X-Sum: 1\r\n", b"x-empty:\r\n", b"X-Bytes: \xff\r\n", b"Cookie: a=b\r\n", b"Host: other\r\n")
EXTENSIONS = (b"", b"", b"", b";a", b";a=b", b';a="b c"', b";a=b;c=d")


@dataclass
class Request:
    """Parts of a request on the wire. Fields and trailers contain their line ends.

    ``payload`` is the body as it is sent. With ``chunked``, its items are size line, data and line end of each chunk,
    then the last size line, trailers, and a line end.
    """

    method: bytes
    target: bytes
    body: bytes  #: as the application must receive it
    version: bytes = b"HTTP/1.1"
    line_end: bytes = b"\r\n"
    before: bytes = b""
    fields: list[bytes] = field(default_factory=list)
    payload: list[bytes] = field(default_factory=list)
    chunked: bool = False
    chunks: int = 0  #: chunks in front of the last one
    last: bool = False  #: no further request of the connection is read

    @property
    def start(self) -> bytes:
        return self.method + b" " + self.target + b" " + self.version + self.line_end

    def render(self) -> bytes:
        return b"".join((self.before, self.start, *self.fields, b"\r\n", *self.payload))


def valid_request(random: Random, name: str) -> Request:
    """Return a request that each server must accept. ``name`` is part of its path."""
    method = random.choice(METHODS)
    body = _body(random, name) if method not in (b"GET", b"HEAD") or random.random() < 0.1 else b""
    request = Request(method=method, target=_target(random, name), body=body)
    request.before = b"\r\n" if random.random() < 0.03 else b""
    request.fields = [b"Host: " + random.choice((b"localhost", b"localhost:80", b"[::1]:80", b"a.b")) + b"\r\n"]
    request.fields += random.sample(PLAIN_FIELDS, random.choice((0, 0, 1, 1, 2, 3)))
    if random.random() < 0.02:
        request.fields += [b"X-Many-%d: %d\r\n" % (n, n) for n in range(150)]
    _frame(random, request)
    _dress(random, request)
    random.shuffle(request.fields)
    return request


def _target(random: Random, name: str) -> bytes:
    path = random.choice(("/%s", "/%s", "/%s/a%%2Fb", "//%s", "/%s/../.", "/%s;a=b,c", "/%%c3%%a4/%s")) % name
    target = path.encode() + random.choice(QUERIES)
    if random.random() < 0.05:
        return random.choice((b"http://localhost", b"HTTP://a.b:80", b"https://[::1]")) + target
    if random.random() < 0.01:
        return b"http://localhost" + random.choice((b"", b"?a=1"))
    return target


def _body(random: Random, name: str) -> bytes:
    size = random.choice((0, 1, 2, 15, 16, 17, 100, 255, 256, 3000))
    text = (name.encode() + b"\r\n" + HIDDEN) * (size // 40 + 1)
    return text[:size]


def _frame(random: Random, request: Request) -> None:
    if request.body and random.random() < 0.45:
        chunk(random, request)
    elif request.body or random.random() < 0.3:
        zeros = b"0" * random.choice((0, 0, 0, 0, 3))
        request.fields.append(b"Content-Length: %b%d\r\n" % (zeros, len(request.body)))
        request.payload = [request.body] if request.body else []


def chunk(random: Random, request: Request) -> None:
    """Frame the body of the request in chunks."""
    request.fields.append(random.choice((b"Transfer-Encoding: chunked\r\n", b"transfer-encoding:\tchunked \r\n")))
    request.chunked, request.payload, rest = True, [], request.body
    while rest:
        size = random.choice((1, 7, 16, 300, len(rest)))
        data, rest = rest[:size], rest[size:]
        style = random.choice((b"%x", b"%x", b"%X", b"0%x", b"0000%X"))
        request.payload += [style % len(data) + random.choice(EXTENSIONS) + b"\r\n", data, b"\r\n"]
    request.chunks = len(request.payload) // 3
    request.payload.append(random.choice((b"0", b"0", b"000", b"0;a=b")) + b"\r\n")
    if random.random() < 0.2:
        request.payload += random.sample(TRAILERS, random.choice((1, 2)))
    request.payload.append(b"\r\n")


def _dress(random: Random, request: Request) -> None:
    """Add what concerns the connection: its end, an older version, an expectation or an upgrade."""
    choice = random.random()
    if choice < 0.05:
        request.fields.append(random.choice((b"Connection: close\r\n", b"connection: foo, CLOSE\r\n")))
        request.last = True
    elif choice < 0.09 and not request.chunked:
        request.version = b"HTTP/1.0"
        request.fields = [line for line in request.fields if not line.startswith(b"Connection")]
        request.last = random.random() < 0.5
        if not request.last:
            request.fields.append(b"Connection: keep-alive\r\n")
    elif choice < 0.13 and request.body:
        request.fields.append(random.choice((b"Expect: 100-continue\r\n", b"expect: 100-Continue\r\n")))
    elif choice < 0.17:
        upgrade = b"Connection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAEAAEAA\r\n"
        request.fields += [upgrade, b"Upgrade: h2c\r\n"]
