"""Conversion of HTTP requests to FunctionGraph's documented APIG event, and of functions' results to HTTP replies.

Values of a repeated header are joined by commas, those of cookies by semicolons. A query parameter is a text; if it is
repeated, it is a list of its values. The path stays percent-encoded as it was received; path parameters are decoded.
From these, the bytes that the client sent cannot be restored. HTTP functions therefore get two further members.

The engine reads headers about the sender only if a trusted proxy sent the request (``http.trusted_proxies``). The
function gets the addresses of the client and of the proxies behind it, and nothing that the client itself may have put
before them.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import parse_qs

import msgspec
from msgspec import Struct, field

from engine import CONSOLE_COOKIES, FORWARDED, TARGET, Forwarded, Headers, Mode, Reply, Scope
from plugins.apig.access import credential_headers
from plugins.apig.problems import bad_reply
from plugins.apig.routing import Route

#: Headers of a connection, and those that the gateway computes itself.
_OF_THE_CONNECTION = frozenset(
    {"connection", "content-length", "keep-alive", "proxy-connection", "trailer", "transfer-encoding", "upgrade"}
)
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*")
#: Headers by which HTTP functions get the keys of their agency, never those of a client.
KEYS = ("x-cff-security-access-key", "x-cff-security-secret-key", "x-cff-security-token")
PREFIX, INVOKED = "x-forwarded-prefix", "x-cff-invoke-type"  #: the second tells functions that nobody waits for them


class GatewayRequest(Struct, frozen=True, kw_only=True):
    """Request for an event: as the gateway received it, with the headers that the function may see."""

    request_id: str  #: id of the gateway, not of the invocation
    method: str
    path: str
    query: str
    headers: Mapping[str, str]  #: headers for the function
    body: bytes
    client: str


class _Context(Struct, frozen=True, kw_only=True, rename="camel"):
    api_id: str
    request_id: str
    stage: str
    source_ip: str


class _Event(Struct, frozen=True, kw_only=True):
    """Event as the platform documents it, and with ``resource``, by which adapters for AWS know a REST API's event."""

    body: str
    resource: str  #: the API's path, with its parameters in braces
    requestContext: _Context  # noqa: N815  (the wire's name)
    queryStringParameters: Mapping[str, str | list[str]]  # noqa: N815
    httpMethod: str  # noqa: N815
    pathParameters: Mapping[str, str]  # noqa: N815
    headers: Mapping[str, str]
    path: str
    isBase64Encoded: bool  # noqa: N815


class _Request(Struct, frozen=True, kw_only=True):
    """Part of an event that repetitions of a request have in common."""

    httpMethod: str  # noqa: N815
    path: str
    queryStringParameters: Mapping[str, str | list[str]]  # noqa: N815
    body: str
    isBase64Encoded: bool  # noqa: N815


class _Returned(Struct, frozen=True, kw_only=True):
    """JSON object that a function must return as its result. Further keys are ignored."""

    statusCode: int  # noqa: N815
    headers: dict[str, Any] | None = field(default_factory=dict)
    multiValueHeaders: dict[str, list[Any]] | None = None  # noqa: N815
    body: str | None = ""
    isBase64Encoded: bool = False  # noqa: N815
    #: headers of an HTTP function's server if a value is not UTF-8: each character stands for one byte (latin-1)
    rawHeaders: list[tuple[str, str]] | None = None  # noqa: N815


class Sender(Struct, frozen=True, kw_only=True):
    """Sender of a request: its address, and the headers that tell the function about it."""

    address: str  #: address of the client; empty if unknown
    headers: Mapping[str, str]


def sender_of(scope: Scope, prefix: str = "", mode: Mode = Mode.SYNC) -> Sender:
    """Return the sender of a request to an API of this mode. ``prefix`` begins the path of one with all paths below."""
    client, server = scope.get("client"), scope.get("server")
    address, port = client[0] if client else "", str(server[1]) if server else ""
    forwarded: Forwarded | None = scope.get(FORWARDED)
    headers = (
        {
            "x-real-ip": address,
            "x-forwarded-for": forwarded.chain if forwarded else address,
            "x-forwarded-port": (forwarded and forwarded.port) or port,
            "x-forwarded-proto": scope["scheme"],
        }
        | ({PREFIX: prefix} if prefix else {})
        | ({INVOKED: "async"} if mode is Mode.ASYNC else {})
    )
    return Sender(address=address, headers=headers)


class _Head(Struct, frozen=True, kw_only=True):
    """Members of the event. Each character stands for one byte (latin-1)."""

    rawRequest: str  # noqa: N815  (method and target, such as "GET /a%2Fb?e")
    rawHeaders: list[tuple[str, str]]  # noqa: N815


def write_head(scope: Scope, headers: Headers, route: Route, sender: Sender) -> bytes:
    """Return the JSON members for HTTP functions, without the braces of an object.

    Repeated headers keep their number and order, except for cookies: servers expect one header (RFC 6265, 5.4). The
    client's credentials are left out; headers about the sender are added.
    """
    given = [pair for pair in scope["headers"] if pair[0] != b"cookie"]
    if b"cookie" in headers:
        given.append((b"cookie", headers[b"cookie"]))
    head = _Head(
        rawRequest=f"{scope['method']} {scope[TARGET].partition(b'#')[0].decode('latin-1')}",
        rawHeaders=forwarded_headers(given, headers, route, sender),
    )
    return msgspec.json.encode(head)[1:-1]


def forwarded_headers(
    given: Iterable[tuple[bytes, bytes]], headers: Headers, route: Route, sender: Sender
) -> list[tuple[str, str]]:
    """Return headers for the function: those ``given`` without the client's credentials, and those about the sender.

    Many servers read "_" in a name as "-". The client could therefore replace ``x-forwarded-for`` by another spelling.
    """
    hidden = credential_headers(route, headers) | sender.headers.keys() | {PREFIX, INVOKED, *KEYS}
    shown = ((name.decode("latin-1"), value.decode("latin-1")) for name, value in given)
    return [*(pair for pair in shown if pair[0].replace("_", "-") not in hidden), *sender.headers.items()]


def event_json(
    request: GatewayRequest, parameters: Mapping[str, str], api_id: str, stage: str, resource: str, *, as_base64: bool
) -> bytes:
    """Return the event's JSON for a request.

    A body of type ``application/json`` in UTF-8 is put in as text unless ``as_base64`` is set. All other bodies are put
    in as base64.
    """
    body, encoded = _body(request, as_base64)
    return msgspec.json.encode(
        _Event(
            body=body,
            resource=resource,
            requestContext=_Context(
                api_id=api_id, request_id=request.request_id, stage=stage, source_ip=request.client
            ),
            queryStringParameters=_query(request.query) if request.query else {},
            httpMethod=request.method,
            pathParameters=parameters,
            headers=request.headers,
            path=request.path,
            isBase64Encoded=encoded,
        )
    )


def is_repeated(event: bytes, other: bytes) -> bool:
    """Return whether the requests of two events have the same method, path, query and body."""
    try:
        return msgspec.json.decode(event, type=_Request) == msgspec.json.decode(other, type=_Request)
    except msgspec.DecodeError:  # a damaged row
        return False


def _body(request: GatewayRequest, as_base64: bool) -> tuple[str, bool]:
    if (
        not as_base64
        and request.headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json"
    ):
        try:
            return request.body.decode(), False
        except UnicodeDecodeError:
            pass  # not JSON, despite its content type
    return base64.b64encode(request.body).decode(), True


def _query(query: str) -> dict[str, str | list[str]]:
    repeated = parse_qs(query, keep_blank_values=True)
    return {name: values if len(values) > 1 else values[0] for name, values in repeated.items()}


def read_reply(result: bytes) -> Reply:
    """Return the HTTP reply for a function's result.

    Raises Problem if the result has another form than ``_Returned``, or if its status code, a header or its base64 is
    invalid.
    """
    returned = _read(result)
    if not 200 <= returned.statusCode <= 599:
        raise bad_reply(f"the function returned statusCode {returned.statusCode}: it must be 200 to 599")
    try:
        if returned.rawHeaders is not None:
            headers = tuple(_encoded(returned.rawHeaders, "latin-1", "strict"))
        else:
            named = (returned.headers or {}) | (returned.multiValueHeaders or {})
            headers = tuple(_encoded(_repeated(named), "utf-8", "replace"))
    except ValueError as error:
        raise bad_reply(f"the function returned a bad header: {error}") from None
    text = returned.body or ""
    try:
        body = base64.b64decode(text, validate=True) if returned.isBase64Encoded else text.encode("utf-8", "replace")
    except (binascii.Error, ValueError):
        raise bad_reply("the function returned isBase64Encoded true, and a body that is not base64") from None
    # Browsers drop an empty name, and the sign after it.
    names = (value.lstrip(b" \t=").lower() if name.lower() == b"set-cookie" else b"" for name, value in headers)
    headers = tuple(header for header, name in zip(headers, names, strict=True) if not name.startswith(CONSOLE_COOKIES))
    return Reply(status=returned.statusCode, headers=headers, body=body, content_type=b"")


def _read(result: bytes) -> _Returned:
    """Return a function's decoded result, which must be a JSON object, or a JSON text that contains such an object."""
    try:
        if result.startswith(b'"'):
            result = msgspec.json.decode(result, type=str).encode()
        return msgspec.json.decode(result, type=_Returned, strict=False)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        needed = "statusCode (number), headers (object), body (string) and isBase64Encoded (boolean)"
        raise bad_reply(f"the function must return an object with {needed}: {error}") from None


def _repeated(headers: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, values in headers.items():
        for value in values if isinstance(values, list) else [values]:
            yield name, value


def _encoded(headers: Iterable[tuple[str, Any]], charset: str, errors: str) -> Iterator[tuple[bytes, bytes]]:
    """Yield the headers of a function's result as bytes, without those of the connection.

    Raises ValueError for a name or value that HTTP does not allow.
    """
    for name, value in headers:
        lower = name.lower()
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not a valid name")
        if lower in _OF_THE_CONNECTION:
            continue
        text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
        if not _VALUE.fullmatch(text):
            raise ValueError(f"{name} has characters that are not allowed in a header")
        # only these: other spaces of Unicode are bytes of the value
        yield name.encode(), text.strip(" \t").encode(charset, errors)


def example(kind: str) -> bytes:
    """Return the event of a request, as an example. Its body is base64, as bodies are by default."""
    request = GatewayRequest(
        request_id="5d1a2f5c7b0e4c399d0c2f6d8f3c1a11",
        method="POST",
        path="/orders/7",
        query="notify=yes",
        headers={
            "host": "127.0.0.1:8080",
            "content-type": "application/json",
            "user-agent": "curl/8.14.1",
            "x-real-ip": "192.0.2.9",
            "x-forwarded-for": "192.0.2.9",
            "x-forwarded-proto": "http",
        },
        body=b'{"state": "paid"}',
        client="192.0.2.9",
    )
    api_id = "9a0364b9e99b480dd25e1f0284c85555"
    return event_json(request, {"id": "7"}, api_id, "RELEASE", "/orders/{id}", as_base64=True)
