"""Conversion of an API Gateway event to an HTTP request, and of the HTTP response to the function's result.

Field names and rules are FunctionGraph's for HTTP functions with an APIG trigger. Standard library only, Python 3.9
syntax.
"""

import base64
import json
import os
from urllib.parse import quote, urlencode

from bridge_http import Message, write_message
from bridge_wire import Invocation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from worker_types import Headers, Setup

#: Headers that belong to a connection, or that are computed anew.
CONNECTION_HEADERS = frozenset(
    (
        "connection",
        "content-length",
        "expect",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    )
)
REPLY_CONNECTION_HEADERS = frozenset(("connection", "keep-alive", "trailer", "transfer-encoding"))
PATH_CHARACTERS = "/?%:@!$&'()*+,;=~"


class BadEvent(Exception):
    """Event that cannot be converted to an HTTP request."""


def read_event(invocation: Invocation, setup: "Setup") -> "tuple[str, bytes]":
    """Return the method and the bytes of the HTTP request. Raises BadEvent if the event cannot be converted."""
    try:
        event = json.loads(invocation.event)
    except (ValueError, RecursionError):
        event = None
    if not isinstance(event, dict) or not isinstance(event.get("httpMethod"), str):
        raise BadEvent("an HTTP function takes events of an API gateway, with httpMethod, path, headers and body")
    method = event["httpMethod"]
    if not method.isalpha() or not method.isascii():
        raise BadEvent(f"httpMethod is {method!r}")
    added = own_headers(event, invocation, setup)
    replaced = CONNECTION_HEADERS | {name.lower() for name, _ in added}
    headers = [(name, value) for name, value in given_headers(event) if name.lower() not in replaced]
    if not any(name.lower() == "host" for name, _ in headers):
        headers.append(("Host", "127.0.0.1:8000"))
    return method, write_message(f"{method} {target(event)} HTTP/1.1", headers + added, content(event))


def own_headers(event: "dict[str, Any]", invocation: Invocation, setup: "Setup") -> "Headers":
    context = event.get("requestContext")
    context = context if isinstance(context, dict) else {}
    pairs = [
        ("X-APIG-Api-Id", context.get("apiId")),
        ("X-APIG-Request-Id", context.get("requestId")),
        ("X-APIG-Source-Ip", context.get("sourceIp")),
        ("X-APIG-Source-Stage", context.get("stage")),
        ("X-CFF-Request-Id", invocation.request_id),
        ("X-CFF-Memory", setup["memory"]),
        ("X-CFF-Timeout", setup["timeout"]),
        ("X-CFF-Func-Version", setup["version"]),
        ("X-CFF-Func-Name", setup["name"]),
        ("X-CFF-Project-Id", setup["project"]),
        ("X-CFF-Package", setup["package"]),
        ("X-CFF-Region", os.environ.get("RUNTIME_REGION")),
    ]
    return [(name, line(name, "" if value is None else value)) for name, value in pairs]


def given_headers(event: "dict[str, Any]") -> "Iterator[tuple[str, str]]":
    for name, values in pairs_of(event, "headers"):
        if not name or not name.isascii() or any(character in name for character in " \t\r\n:"):
            raise BadEvent(f"{name!r} is not a header name")
        for value in values:
            yield name, line(name, value)


def line(name: str, value: object) -> str:
    text = str(value)
    if "\r" in text or "\n" in text:
        raise BadEvent(f"the header {name} has more than one line")
    return text


def target(event: "dict[str, Any]") -> str:
    """Return the event's path and query as they appear in the first line of the HTTP request."""
    path = quote(str(event.get("path") or "/"), safe=PATH_CHARACTERS, errors="replace")
    given = pairs_of(event, "queryStringParameters")
    query = urlencode([(name, str(value)) for name, values in given for value in values], errors="replace")
    if query:
        path += ("&" if "?" in path else "?") + query
    return path if path.startswith("/") else "/" + path


def pairs_of(event: "dict[str, Any]", field: str) -> "Iterator[tuple[str, list[Any]]]":
    """Yield each name in the object ``field`` of the event, with a list of its values.

    A single value becomes a list.
    """
    given = event.get(field) or {}
    if not isinstance(given, dict):
        raise BadEvent(f"{field} is not an object")
    for name, value in given.items():
        yield name, value if isinstance(value, list) else [] if value is None else [value]


def content(event: "dict[str, Any]") -> bytes:
    body = event.get("body")
    if body is None:
        return b""
    text = body if isinstance(body, str) else json.dumps(body)
    if not event.get("isBase64Encoded"):
        return text.encode("utf-8", "replace")
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        raise BadEvent("isBase64Encoded is true, but the body is not base64") from None


def write_reply(message: Message) -> bytes:
    """Return the function's result as JSON, made from the server's HTTP response.

    Header names are capitalised like Content-Type, each with a list of values; the body is in base64.
    """
    headers: dict[str, list[str]] = {}
    for name, value in message.headers:
        if name.lower() not in REPLY_CONNECTION_HEADERS:
            headers.setdefault("-".join(part.capitalize() for part in name.split("-")), []).append(value)
    return json.dumps(
        {
            "body": base64.b64encode(message.body).decode(),
            "headers": headers,
            "statusCode": message.status,
            "isBase64Encoded": True,
        }
    ).encode()
