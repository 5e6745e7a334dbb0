"""Conversion of an API Gateway event to an HTTP request, and of the HTTP response to the function's result.

Field names and rules are FunctionGraph's for HTTP functions with an APIG trigger. The engine's gateway adds the fields
``rawRequest`` and ``rawHeaders``, from which the request is made with the bytes that the client sent. Events from other
clients may lack them. Standard library only, Python 3.9 syntax.
"""

import base64
import json
import os
import re
from urllib.parse import quote, urlencode

from bridge_http import Message, write_message
from worker_frames import KEYS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from worker_types import Headers, Setup

#: Headers that belong to a connection, or that are computed anew.
CONNECTION_HEADERS = frozenset(("connection", "content-length", "expect", "keep-alive", "proxy-connection", "te"))
CONNECTION_HEADERS |= {"trailer", "transfer-encoding", "upgrade"}
REPLY_CONNECTION_HEADERS = frozenset(("connection", "keep-alive", "trailer", "transfer-encoding"))
PATH_CHARACTERS = "/?%:@!$&'()*+,;=~"
#: Each character of the raw fields stands for one byte.
RAW_REQUEST = re.compile(r"([A-Za-z]+) /[!-~\x80-\xff]*")
RAW_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
RAW_VALUE = re.compile(r"[\t -~\x80-\xff]*")


class BadEvent(Exception):
    """Event that cannot be converted to an HTTP request."""


def read_event(event: object, request_id: str, run: "Headers", setup: "Setup") -> "tuple[str, bytes]":
    """Return the method and the bytes of the HTTP request, which has the headers ``run`` too.

    Raises BadEvent if the event cannot be converted.
    """
    if not isinstance(event, dict) or not isinstance(event.get("httpMethod"), str):
        raise BadEvent("an HTTP function takes events of an API gateway, with httpMethod, path, headers and body")
    method = event["httpMethod"]
    if not method.isalpha() or not method.isascii():
        raise BadEvent(f"httpMethod is {method!r}")
    added = own_headers(event, request_id, setup) + run
    if "rawRequest" in event or "rawHeaders" in event:
        method, start = raw_start(event)
        headers, coding = list(raw_headers(event)), "latin-1"
        added = [(name, value.encode("utf-8", "replace").decode("latin-1")) for name, value in added]
    else:
        start, headers, coding = f"{method} {target(event)}", list(given_headers(event)), "utf-8"
    replaced = CONNECTION_HEADERS | {name.lower() for name, _ in added}
    # Many servers read "_" in a name as "-", so that both spellings would be one header.
    headers = [(name, value) for name, value in headers if name.lower().replace("_", "-") not in replaced]
    if not any(name.lower() == "host" for name, _ in headers):
        headers.append(("Host", "127.0.0.1:8000"))
    return method, write_message(f"{start} HTTP/1.1", headers + added, content(event), coding)


def raw_start(event: "dict[str, Any]") -> "tuple[str, str]":
    """Return the method, and the first line of the request without the version."""
    start = event.get("rawRequest")
    match = RAW_REQUEST.fullmatch(start) if isinstance(start, str) else None
    if match is None:
        raise BadEvent("rawRequest is not a method and a path; omit it and rawHeaders, or send both as the gateway")
    return match[1], match[0]


def raw_headers(event: "dict[str, Any]") -> "Iterator[tuple[str, str]]":
    given = event.get("rawHeaders")
    if not isinstance(given, list):
        raise BadEvent("rawHeaders is not a list; omit it and rawRequest, or send both as the gateway")
    for pair in given:
        if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(text, str) for text in pair)):
            raise BadEvent("rawHeaders must have a name and a value in each of its lists")
        name, value = pair
        if not RAW_NAME.fullmatch(name):
            raise BadEvent(f"{name!r} is not a header name")
        if not RAW_VALUE.fullmatch(value):
            raise BadEvent(f"the raw header {name} has characters that are not allowed")
        yield name, value


def own_headers(event: "dict[str, Any]", request_id: str, setup: "Setup") -> "Headers":
    context = event.get("requestContext")
    context = context if isinstance(context, dict) else {}
    pairs = [
        ("X-APIG-Api-Id", context.get("apiId")),
        ("X-APIG-Request-Id", context.get("requestId")),
        ("X-APIG-Source-Ip", context.get("sourceIp")),
        ("X-APIG-Source-Stage", context.get("stage")),
        ("X-CFF-Request-Id", request_id),
        ("X-CFF-Memory", setup["memory"]),
        ("X-CFF-Timeout", setup["timeout"]),
        ("X-CFF-Func-Version", setup["version"]),
        ("X-CFF-Func-Name", setup["name"]),
        ("X-CFF-Project-Id", setup["project"]),
        ("X-CFF-Package", setup["package"]),
        ("X-CFF-Region", os.environ.get("RUNTIME_REGION")),
    ]
    if keys := setup.get("keys"):
        pairs += [("X-CFF-Security-" + name, keys[field]) for name, field in KEYS.items()]
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

    Header names in lower case are capitalised like Content-Type, others stay as they are, each with a list of values;
    the body is in base64. If a value is not UTF-8, the result also has the headers as ``rawHeaders``, in which each
    character stands for one byte.
    """
    raw = [(name, value) for name, value in message.headers if name.lower() not in REPLY_CONNECTION_HEADERS]
    headers: dict[str, list[str]] = {}
    all_text = True
    for name, value in raw:
        try:
            text = value.encode("latin-1").decode()
        except UnicodeDecodeError:
            text, all_text = value, False
        spelled = "-".join(part.capitalize() for part in name.split("-")) if name.islower() else name
        headers.setdefault(spelled, []).append(text)
    result = {
        "body": base64.b64encode(message.body).decode(),
        "headers": headers,
        "statusCode": message.status,
        "isBase64Encoded": True,
    }
    if not all_text:
        result["rawHeaders"] = raw
    return json.dumps(result).encode()
