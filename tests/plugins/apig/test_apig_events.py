"""Events that functions receive for gateway requests, and HTTP replies built from their results."""

from __future__ import annotations

import base64
import json
from contextlib import suppress
from typing import Any, cast

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct

from engine import FORWARDED, TARGET, Forwarded, Reply, TriggerContext
from plugins.apig.events import GatewayRequest, event_json, is_repeated, read_reply, sender_of, write_head
from plugins.apig.gateway import joined_headers
from plugins.apig.options import ApigOptions
from plugins.apig.problems import Problem
from plugins.apig.routing import Found, Route
from tests.support.gateways import API


class Named(Struct, frozen=True, kw_only=True):
    trigger_id: str


CONTEXT = cast(TriggerContext, Named(trigger_id="6a1f-22"))
FOUND = Found(
    route=Route(options=msgspec.convert(API, ApigOptions), context=CONTEXT),
    parameters={"id": "7"},
)


def event(*, as_base64: bool = True, **fields: Any) -> Any:
    asked = {
        "request_id": "r",
        "method": "POST",
        "path": "/orders/7",
        "query": "",
        "headers": {"host": "x"},
        "body": b"",
        "client": "192.0.2.1",
    }
    request, route = GatewayRequest(**{**asked, **fields}), FOUND.route
    stage, resource = route.options.env_name, route.options.path
    return json.loads(event_json(request, FOUND.parameters, route.api_id, stage, resource, as_base64=as_base64))


def reply_of(status: int, *headers: tuple[bytes, bytes], body: bytes = b"") -> Reply:
    return Reply(status=status, headers=headers, body=body, content_type=b"")


def test_an_event_is_as_the_platform_documents_it_and_names_the_resource() -> None:
    assert event(body=b"\xff", query="a=1&b=x%20y&c=") == {
        "body": "/w==",
        "resource": "/orders",
        "requestContext": {"apiId": "6a1f22", "requestId": "r", "stage": "RELEASE", "sourceIp": "192.0.2.1"},
        "queryStringParameters": {"a": "1", "b": "x y", "c": ""},
        "httpMethod": "POST",
        "pathParameters": {"id": "7"},
        "headers": {"host": "x"},
        "path": "/orders/7",
        "isBase64Encoded": True,
    }


def test_a_text_is_no_repetition_of_the_bytes_whose_base64_it_is() -> None:
    text = event(body=b"1234", headers={"content-type": "application/json"}, as_base64=False)
    other = event(body=base64.b64decode("1234"))

    assert text["body"] == other["body"]
    assert not is_repeated(msgspec.json.encode(text), msgspec.json.encode(other))


def test_a_parameter_that_comes_more_than_once_is_a_list() -> None:
    assert event(query="a=1&b=2&a=3&a=")["queryStringParameters"] == {"a": ["1", "3", ""], "b": "2"}


@pytest.mark.parametrize(
    ("kind", "body", "encoded"),
    [
        ("application/json", b'{"a": "\xc3\xa9"}', False),
        ("Application/JSON; charset=utf-8", b"{}", False),
        ("application/json", b"\xff", True),
        ("text/plain", b"a", True),
    ],
)
def test_json_may_come_as_the_text_it_is(kind: str, body: bytes, encoded: bool) -> None:
    shown = event(as_base64=False, headers={"content-type": kind}, body=body)

    assert shown["isBase64Encoded"] is encoded
    assert (base64.b64decode(shown["body"]) if encoded else shown["body"].encode()) == body


REPLIES: dict[str, tuple[Any, Reply]] = {
    "base64, and more than is known": (
        {"statusCode": 201, "headers": {"X-A": "b", "n": 7}, "body": "AP8=", "isBase64Encoded": True, "more": 1},
        reply_of(201, (b"X-A", b"b"), (b"n", b"7"), body=b"\x00\xff"),
    ),
    "repeated headers of an adapter for AWS": (
        {"statusCode": 200, "headers": {"x-a": "b"}, "multiValueHeaders": {"set-cookie": ["a=1", "b=2"]}},
        reply_of(200, (b"x-a", b"b"), (b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")),
    ),
    "a status alone": ({"statusCode": 200}, reply_of(200)),
    "null, and a status as text": ({"statusCode": "404", "body": None, "headers": None}, reply_of(404)),
    "a text that is JSON": (json.dumps({"statusCode": 200, "body": "é"}), reply_of(200, body="é".encode())),
    "a header with several values, and those of the connection": (
        {"statusCode": 200, "headers": {"Set-Cookie": ["a=1", "b=2"], "Content-Length": "99", "Connection": "x"}},
        reply_of(200, (b"Set-Cookie", b"a=1"), (b"Set-Cookie", b"b=2")),
    ),
    "a coding": ({"statusCode": 200, "headers": {"Transfer-Encoding": "chunked"}}, reply_of(200)),
    "a header with an underscore": (
        {"statusCode": 200, "headers": {"User_Id": "7"}},
        reply_of(200, (b"User_Id", b"7")),
    ),
    "a raw header with an underscore": (
        {"statusCode": 200, "rawHeaders": [["User_Id", "7"]]},
        reply_of(200, (b"User_Id", b"7")),
    ),
    "raw headers byte for byte": (
        {
            "statusCode": 200,
            "headers": {"X-U": ["?"]},
            "rawHeaders": [["X-U", "Gr\xfc\xdfe\xa0"], ["x-u", " b\t"], ["Content-Length", "99"]],
        },
        reply_of(200, (b"X-U", b"Gr\xfc\xdfe\xa0"), (b"x-u", b"b")),
    ),
}


@pytest.mark.parametrize(("returned", "reply"), REPLIES.values(), ids=REPLIES)
def test_a_reply_is_what_the_function_says(returned: Any, reply: Reply) -> None:
    assert read_reply(json.dumps(returned).encode()) == reply


@pytest.mark.parametrize(
    "name", ["functiond_session_1_x", "Functiond_note", "__Host-functiond_session_1_x", " =functiond_n"]
)
@pytest.mark.parametrize("raw", [False, True])
def test_no_reply_sets_a_cookie_of_the_console(name: str, raw: bool) -> None:
    cookies = [f"{name}=1; Path=/console/", "own=functiond_note"]
    given: Any = [["Set-Cookie", cookie] for cookie in cookies] if raw else {"Set-Cookie": cookies}

    reply = read_reply(json.dumps({"statusCode": 200, "rawHeaders" if raw else "headers": given}).encode())

    assert reply.headers == ((b"Set-Cookie", b"own=functiond_note"),)


@pytest.mark.parametrize(
    "returned",
    [
        b"",
        b"null",
        b"7",
        b'"text"',
        b"[1]",
        b"{}",
        b'{"statusCode": null}',
        b'{"statusCode": 200, "body": "\xff"}',
        b'{"statusCode": 99}',
        b'{"statusCode": 600}',
        b'{"statusCode": 101}',
        b'{"statusCode": 200, "body": {"a": 1}}',
        b'{"statusCode": 200, "body": "%", "isBase64Encoded": true}',
        b'{"statusCode": 200, "headers": {"a b": "c"}}',
        b'{"statusCode": 200, "headers": {"a": "b\\r\\nc: d"}}',
        b'{"statusCode": 200, "headers": []}',
        b'{"statusCode": 200, "rawHeaders": [["a", "b\\r\\nc: d"]]}',
        b'{"statusCode": 200, "rawHeaders": [["a b", "c"]]}',
        b'{"statusCode": 200, "rawHeaders": [["a", "\\u0100"]]}',
        b'{"statusCode": 200, "rawHeaders": [["a"]]}',
        b"[" * 100_000,
    ],
)
def test_what_is_no_reply_is_told_as_the_functions_fault(returned: bytes) -> None:
    with pytest.raises(Problem) as raised:
        read_reply(returned)

    assert (raised.value.status, raised.value.code) == (500, "FSS.1202")


ANYTHING = st.recursive(st.none() | st.text() | st.integers(), lambda parts: st.lists(parts))


@settings(max_examples=50)
@given(st.binary() | ANYTHING.map(msgspec.json.encode))
def test_whatever_is_returned_is_a_reply_or_the_functions_fault(returned: bytes) -> None:
    with suppress(Problem):
        assert 200 <= read_reply(returned).status <= 599


@settings(max_examples=50)
@given(st.dictionaries(st.text(), st.text() | st.integers() | st.lists(st.text())))
def test_no_header_of_a_function_breaks_the_reply_apart(headers: dict[str, Any]) -> None:
    try:
        reply = read_reply(json.dumps({"statusCode": 200, "headers": headers}).encode())
    except Problem:
        return

    lines = [name + b": " + value for name, value in reply.headers]
    assert not any(bytes([mark]) in line for line in lines for mark in b"\r\n\0")


SCOPE = {"client": ("192.0.2.9", 1234), "server": ("127.0.0.1", 8090), "scheme": "http"}


def head_of(*headers: tuple[bytes, bytes]) -> list[list[str]]:
    """Return the client's headers that an HTTP function gets, without those about the sender."""
    scope = {**SCOPE, "method": "GET", TARGET: b"/", "headers": headers}
    members = write_head(scope, joined_headers(scope), FOUND.route, sender_of(scope))
    shown: list[list[str]] = json.loads(b"{%b}" % members)["rawHeaders"]
    return [pair for pair in shown if pair[0] not in sender_of(scope).headers]


def test_another_spelling_does_not_replace_the_address_of_the_sender() -> None:
    forged = ((b"x_forwarded_for", b"203.0.113.1"), (b"x-real_ip", b"203.0.113.1"), (b"user_id", b"7"))

    assert head_of(*forged) == [["user_id", "7"]]


def test_a_client_cannot_send_the_keys_of_an_agency() -> None:
    forged = (b"x-cff-security-access-key", b"x-cff-security-secret_key", b"x_cff_security_token")

    assert head_of(*((name, b"mine") for name in forged)) == []


def test_two_fields_with_cookies_reach_a_server_as_one() -> None:
    sent = ((b"cookie", b"a=1"), (b"x", b"y"), (b"cookie", b"b=2"), (b"x", b"z"))

    assert sorted(head_of(*sent)) == [["cookie", "a=1; b=2"], ["x", "y"], ["x", "z"]]


PROXIED = Forwarded(client="198.51.100.2", chain="198.51.100.2, 192.0.2.9", scheme="https", port="443")


@pytest.mark.parametrize(
    ("scope", "reported"),
    [
        (SCOPE, ("192.0.2.9", "192.0.2.9", "8090", "http")),
        (
            {**SCOPE, "client": (PROXIED.client, 0), "scheme": "https", FORWARDED: PROXIED},
            (PROXIED.client, PROXIED.chain, "443", "https"),
        ),
    ],
    ids=["its sender", "what a trusted proxy reports"],
)
def test_a_function_gets_the_address_of_the_sender(scope: dict[str, Any], reported: tuple[str, ...]) -> None:
    sender = sender_of(scope)

    names = ("x-real-ip", "x-forwarded-for", "x-forwarded-port", "x-forwarded-proto")
    assert (sender.address, sender.headers) == (reported[0], dict(zip(names, reported, strict=True)))
