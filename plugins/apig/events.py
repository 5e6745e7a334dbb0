"""From an HTTP request to the event of a gateway, and from what the function returned to an HTTP reply.

Spec triggers_runtime, 1.11. Where a header comes more than once, its values are joined by commas (cookies by
semicolons); a parameter of the query that does is a list of its values, where one value stands as it is. The path is
as it came, percent-encoded; the parameters in it are decoded.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from msgspec import Struct, field

from plugins.apig.problems import Problem, bad_reply
from plugins.apig.routing import Found

#: Of one connection, or computed anew.
_OF_THE_CONNECTION = frozenset(
    {"connection", "content-length", "keep-alive", "proxy-connection", "trailer", "transfer-encoding", "upgrade"}
)
_NAME = re.compile(r"[!#$%&'*+\-.^`|~0-9A-Za-z]+")
_VALUE = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*")


class Asked(Struct, frozen=True, kw_only=True):
    """A request as the gateway takes it."""

    request_id: str  #: the gateway's own
    method: str
    path: str
    query: str
    headers: Mapping[str, str]  #: as the function gets them
    body: bytes
    client: str


class _Context(Struct, frozen=True, kw_only=True, rename="camel"):
    api_id: str
    request_id: str
    stage: str
    source_ip: str


class _Event(Struct, frozen=True, kw_only=True):
    body: str
    requestContext: _Context  # noqa: N815  (the wire's name)
    queryStringParameters: Mapping[str, str | list[str]]  # noqa: N815
    httpMethod: str  # noqa: N815
    pathParameters: Mapping[str, str]  # noqa: N815
    headers: Mapping[str, str]
    path: str
    isBase64Encoded: bool  # noqa: N815


class GatewayReply(Struct, frozen=True, kw_only=True):
    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


class _Returned(Struct, frozen=True, kw_only=True):
    """Other keys are passed over."""

    statusCode: int  # noqa: N815
    headers: dict[str, Any] | None = field(default_factory=dict)
    body: str | None = ""
    isBase64Encoded: bool = False  # noqa: N815


def write_event(found: Found, asked: Asked, *, as_base64: bool) -> bytes:
    body, encoded = _body(asked, as_base64)
    options = found.route.options
    return msgspec.json.encode(
        _Event(
            body=body,
            requestContext=_Context(
                api_id=found.route.api_id,
                request_id=asked.request_id,
                stage=options.env_name,
                source_ip=asked.client,
            ),
            queryStringParameters=_query(asked.query) if asked.query else {},
            httpMethod=asked.method,
            pathParameters=found.parameters,
            headers=asked.headers,
            path=asked.path,
            isBase64Encoded=encoded,
        )
    )


def _body(asked: Asked, as_base64: bool) -> tuple[str, bool]:
    if not as_base64 and asked.headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json":
        try:
            return asked.body.decode(), False
        except UnicodeDecodeError:
            pass  # so it is no JSON, whatever it says
    return base64.b64encode(asked.body).decode(), True


def _query(query: str) -> dict[str, str | list[str]]:
    found: dict[str, str | list[str]] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        before = found.get(name)
        if before is None:
            found[name] = value
        elif isinstance(before, list):
            before.append(value)
        else:
            found[name] = [before, value]
    return found


def read_reply(result: bytes) -> GatewayReply:
    """Raises Problem."""
    returned = _read(result)
    if not 200 <= returned.statusCode <= 599:
        raise bad_reply(f"the function returned statusCode {returned.statusCode}: it must be 200 to 599")
    try:
        headers = tuple(_headers(returned.headers or {}))
    except ValueError as error:
        raise bad_reply(f"the function returned a bad header: {error}") from None
    text = returned.body or ""
    if not returned.isBase64Encoded:
        return GatewayReply(status=returned.statusCode, headers=headers, body=text.encode("utf-8", "replace"))
    try:
        body = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise bad_reply("the function returned isBase64Encoded true, and a body that is not base64") from None
    return GatewayReply(status=returned.statusCode, headers=headers, body=body)


def _read(result: bytes) -> _Returned:
    """An object, or JSON text of one."""
    try:
        if result.startswith(b'"'):
            result = msgspec.json.decode(result, type=str).encode()
        return msgspec.json.decode(result, type=_Returned, strict=False)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise _misfit(error) from None


def _misfit(error: Exception) -> Problem:
    return bad_reply(
        "the function must return an object with statusCode (number), headers (object), body (string) and "
        f"isBase64Encoded (boolean): {error}"
    )


def _headers(given: Mapping[str, Any]) -> Iterator[tuple[bytes, bytes]]:
    """Raises ValueError for what would break the reply apart."""
    for name, values in given.items():
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no name of one")
        lower = name.lower()
        if lower in _OF_THE_CONNECTION:
            continue
        for value in values if isinstance(values, list) else [values]:
            yield lower.encode(), _value(name, value)


def _value(name: str, value: Any) -> bytes:
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    if not _VALUE.fullmatch(text):
        raise ValueError(f"{name} holds characters that a header cannot")
    return text.strip().encode("utf-8", "replace")
