"""Heads of HTTP requests: checks of the request line and the headers (RFC 9112), and the framing of the body.

The parser, httptools, accepts more than the standard allows: any spaces around the target, any version, no or several
Host fields.
"""

from __future__ import annotations

import re
from functools import lru_cache
from urllib.parse import unquote

from msgspec import Struct

from engine.asgi.responses import Header, Refusal

HEAD_LIMIT = 64 << 10  #: bytes of request line, headers and trailers
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
ALLOW = b"Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n"
CHUNKED = -1  #: length of a chunked body

_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([!-~]+) HTTP/(\d\.\d)")
#: Beginning of a request line. A version, once it has begun, must be one of HTTP.
_LINE_START = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+(?: [!-~]*(?: (?:H(?:T(?:T(?:P(?:/[\d.]{0,3})?)?)?)?)?\r?)?)?\Z")
_ABSOLUTE = re.compile(rb"https?://([^/?#]*)([^#]*)", re.IGNORECASE)
_HOST = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+,;=%-]*|\[[0-9A-Fa-fv:.]+\])(?::\d{0,5})?")
_DIGITS = 19  # of Content-Length
_HOST_LIMIT = 300  # a DNS name has at most 253 characters
_LINES_CACHED, _LINE_CACHED = 1024, 512  # at most 1 MB


class RequestLine(Struct, frozen=True):
    """Request line after its checks."""

    method: str
    target: bytes  #: as sent, but without scheme and authority
    path: str  #: decoded
    raw_path: bytes
    query: bytes
    version: str  #: 1.0 or 1.1
    authority: bytes | None  #: of a target in absolute form; replaces the header Host


class Framing(Struct, frozen=True):
    """Headers that tell where a request ends, and whether another one may follow it."""

    length: int  #: bytes of the body; CHUNKED if it is chunked
    keep_alive: bool  #: as the client asks; the default depends on the version
    expects_continue: bool = False


def not_http(problem: bytes) -> Refusal:
    return Refusal(400, problem + b"; send HTTP/1.1")


def head_too_large() -> Refusal:
    return Refusal(431, b"request line, headers and trailers exceed %d bytes; send less" % HEAD_LIMIT)


def check_line_start(start: bytes) -> None:
    """Raise Refusal if no request line begins with ``start``. Clients of other protocols get an answer at once."""
    if not _LINE_START.match(start):
        raise not_http(b"cannot parse the request line")


def parse_line(line: bytes) -> RequestLine:
    """Return the parts of a request line. Raises Refusal if it is not valid or not supported."""
    return (_parse_cached if len(line) <= _LINE_CACHED else _parse)(line)


def _parse(line: bytes) -> RequestLine:
    match = _LINE.fullmatch(line)
    if match is None:
        if not line.isascii():
            raise not_http(b"the request line has bytes that are not ASCII; percent-encode them in the target")
        raise not_http(b"the request line is not a method, a target and a version with one space between them")
    method, target, version = match[1].decode(), match[2], match[3].decode()
    if not version.startswith("1."):
        raise Refusal(505, b"HTTP/%b is not supported; send HTTP/1.1" % match[3])
    if method == "CONNECT":
        raise Refusal(405, b"CONNECT is not supported: this is not a proxy", ALLOW)
    if method not in METHODS:
        raise Refusal(501, b"this method is not supported; use one of %b" % ", ".join(METHODS).encode())
    authority = None
    if not target.startswith(b"/"):
        target, authority = _split_absolute(method, target)
    raw_path, _, query = target.partition(b"#")[0].partition(b"?")
    path = raw_path.decode()
    version = version if version == "1.0" else "1.1"  # of a higher minor version, too (RFC 9110, 2.5)
    return RequestLine(method, target, unquote(path) if "%" in path else path, raw_path, query, version, authority)


_parse_cached = lru_cache(_LINES_CACHED)(_parse)


def _split_absolute(method: str, target: bytes) -> tuple[bytes, bytes | None]:
    """Return the path with the query, and the authority, of a target that does not begin with a slash."""
    if target == b"*" and method == "OPTIONS":
        return target, None
    match = _ABSOLUTE.fullmatch(target)
    if match is None or not match[1] or not _HOST.fullmatch(match[1]):
        raise not_http(b"the target is neither a path nor an http URL")
    rest = match[2]
    return (rest if rest.startswith(b"/") else b"/" + rest), match[1]


def check_headers(line: RequestLine, headers: list[Header]) -> Framing:
    """Return the framing that ``headers`` declare. Their names are in lower case.

    Replaces the value of Host if the target names an authority. Raises Refusal if the headers are not valid together,
    or ask for something that is not supported. The lengths are checked although the parser does so, too: its next
    version may be laxer, which must not change where a request ends.
    """
    fields = dict(headers)
    repeated = len(fields) != len(headers)
    host = fields.get(b"host")
    if repeated or host is None or len(host) > _HOST_LIMIT or not _is_host(host):
        _check_host(line, headers)
    if line.authority is not None:
        headers[:] = [(b"host", line.authority), *(header for header in headers if header[0] != b"host")]
    length = 0
    if (declared := fields.get(b"content-length")) is not None:
        if not declared.isdigit() or len(declared) > _DIGITS:
            raise not_http(b"Content-Length is not a number of at most %d digits" % _DIGITS)
        if b"transfer-encoding" in fields or (repeated and [name for name, _ in headers].count(b"content-length") > 1):
            raise not_http(b"the request has two Content-Length, or one beside Transfer-Encoding")
        length = int(declared)
    elif b"transfer-encoding" in fields:
        _check_coding(line, headers)
        length = CHUNKED
    keep_alive = line.version == "1.1"
    if b"connection" in fields:
        options = _options(headers if repeated else [(b"connection", fields[b"connection"])])
        if b"upgrade" in options and line.method == "GET" and fields.get(b"upgrade", b"").lower() == b"websocket":
            raise Refusal(501, b"WebSocket is not supported; send ordinary requests")
        keep_alive = b"close" not in options and (keep_alive or b"keep-alive" in options)
    expects_continue = False
    if expected := fields.get(b"expect"):
        if expected.lower() != b"100-continue":
            raise Refusal(417, b"only the expectation 100-continue is supported")
        expects_continue = line.version == "1.1" and length != 0
    return Framing(length, keep_alive, expects_continue)


@lru_cache(1024)
def _is_host(value: bytes) -> bool:
    return _HOST.fullmatch(value) is not None


def _check_host(line: RequestLine, headers: list[Header]) -> None:
    hosts = [value for name, value in headers if name == b"host"]
    if len(hosts) > 1 or (not hosts and line.version == "1.1"):
        raise Refusal(400, b"the request has %d Host headers; send exactly one" % len(hosts))
    if hosts and not (len(hosts[0]) <= _HOST_LIMIT and _is_host(hosts[0])):
        raise Refusal(400, b"the header Host is not a host name with an optional port")


def _check_coding(line: RequestLine, headers: list[Header]) -> None:
    if line.version == "1.0":
        raise Refusal(400, b"HTTP/1.0 has no Transfer-Encoding; send Content-Length")
    if [value.lower() for name, value in headers if name == b"transfer-encoding"] != [b"chunked"]:
        raise Refusal(501, b"the only supported Transfer-Encoding is chunked")


def _options(headers: list[Header]) -> set[bytes]:
    """Return the options of all Connection headers, in lower case."""
    values = b",".join(value for name, value in headers if name == b"connection")
    return {option.strip(b" \t") for option in values.lower().split(b",")}
