"""Runtime APIs of the bridge, used by a client: the platform's own, and AWS Lambda's."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.bridging import DONE, READY, TELL_ADDRESS, Bridge, Runtime

CUSTOM = "/v1/runtime/invocation/"
LAMBDA = "/2018-06-01/runtime/"
#: Paths by API: for the next event, and for the response to the first one.
PATHS = {"custom": ("request", "response/r-1"), "lambda": ("invocation/next", "invocation/r-1/response")}
MiB = 1 << 20


@pytest.fixture
def bridge(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bridge]:
    """Run a bridge whose bootstrap leaves the API to the test: the platform's own, or that of AWS Lambda."""
    with Bridge(getattr(request, "param", "custom"), tmp_path, {"bootstrap": TELL_ADDRESS}) as running:
        yield running


@pytest.fixture
def runtime(bridge: Bridge) -> Iterator[Runtime]:
    with Runtime(bridge, LAMBDA if bridge.family == "lambda" else CUSTOM) as running:
        yield running


of_lambda = pytest.mark.parametrize("bridge", ["lambda"], indirect=True)


def take(bridge: Bridge, runtime: Runtime, path: str, event: bytes = b"{}") -> bytes:
    """Let the runtime request an event, send it one, and return the event that it received."""
    runtime.get(path)
    assert bridge.answer().kind == READY
    bridge.invoke(event)
    return runtime.response()[1]


# --- the platform's own -----------------------------------------------------------------------------------------


def test_an_event_comes_with_its_id_and_the_documented_headers(bridge: Bridge, runtime: Runtime) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    runtime.get("request")
    assert bridge.answer()[:3] == (READY, 0, 0)  # the first request for an event says that the runtime is ready
    bridge.invoke(b'{"a": "\xc3\xa4"}', request_id="0-1", alias=f"live {trace}")

    response, event = runtime.response()

    assert (response.status, event) == (200, b'{"a": "\xc3\xa4"}')
    assert response.headers["X-Cff-Request-Id"] == "0-1"
    assert (response.headers["X-CFF-Invoke-Type"], response.headers["traceparent"]) == ("sync", trace)
    for name in ("Access-Key", "Secret-Key", "Security-Token", "Auth-Token"):
        assert response.headers[f"X-CFF-{name}"] == ""


ASKING, STREAMING = {"Expect": "100-continue"}, {"Lambda-Runtime-Function-Response-Mode": "streaming"}


@pytest.mark.parametrize(
    ("bridge", "body", "headers", "status"),
    [
        ("custom", [b'{"b": 2}'], {}, 200),
        ("custom", [b"one ", b"two"], ASKING, 200),
        ("lambda", [b"yes"], {}, 202),
        ("lambda", [b"a", b"b"], STREAMING, 202),
    ],
    indirect=["bridge"],
)
def test_a_response_is_the_result(
    bridge: Bridge, runtime: Runtime, body: list[bytes], headers: dict[str, str], status: int
) -> None:
    event, answer = PATHS[bridge.family]
    take(bridge, runtime, event)

    sent = body[0] if len(body) == 1 else iter(body)  # an iterator is sent in chunks
    assert runtime.post(answer, sent, headers, encode_chunked=len(body) > 1)[0] == status
    assert bridge.answer()._replace(memory=0) == (DONE, 1, 0, 0, "", b"".join(body))


def test_an_error_is_an_outcome_with_the_documented_body(bridge: Bridge, runtime: Runtime) -> None:
    take(bridge, runtime, "request")

    assert (
        runtime.post("error/r-1", b'{"errorMessage": "no", "errorType": "Bad", "errorClasses": ["Bad", 1]}')[0] == 200
    )
    answer = bridge.answer()
    assert (answer.code, answer.message) == (4002, "function invocation exception, error: Bad: no")
    assert answer.error == {"errorMessage": "no", "errorType": "Bad", "stackTrace": [], "errorClasses": ["Bad", "1"]}


@pytest.mark.parametrize(
    ("body", "text"), [(b"oops", "oops"), (b'"text"', "text"), (b"[1]", "[1]"), (b"\xff", "\ufffd")]
)
def test_an_error_of_any_form_is_told(bridge: Bridge, runtime: Runtime, body: bytes, text: str) -> None:
    take(bridge, runtime, "request")

    runtime.post("error/r-1", body)

    assert bridge.answer().error == {"errorMessage": text, "errorType": "Error", "stackTrace": []}


def test_each_event_is_answered_once(bridge: Bridge, runtime: Runtime) -> None:
    take(bridge, runtime, "request")
    runtime.post("response/r-1", b"1")

    again, unknown = runtime.post("response/r-1", b"2"), runtime.post("error/r-9", b"{}")

    assert again[0] == unknown[0] == 400
    assert b"r-9" in unknown[1]
    assert bridge.answer().result == b"1"


def test_what_is_no_call_of_the_api_is_told_which_there_are(bridge: Bridge, runtime: Runtime) -> None:
    status, body = runtime.post("request", b"")

    assert status == 404
    assert b"GET /v1/runtime/invocation/request" in body


def test_a_web_page_gets_nothing(bridge: Bridge, runtime: Runtime) -> None:
    runtime.http.request("GET", f"{CUSTOM}request", headers={"Sec-Fetch-Site": "cross-site"})

    assert runtime.response()[0].status == 403


def test_what_is_no_http_ends_the_connection_and_nothing_else(bridge: Bridge, runtime: Runtime) -> None:
    runtime.http.connect()
    runtime.http.sock.sendall(b"what?\r\n\r\n")
    refused = runtime.http.sock.recv(1000)
    runtime.http.sock.sendall(b"what?\r\n\r\n")
    runtime.http.close()

    assert refused.startswith(b"HTTP/1.1 400 ")
    assert take(bridge, runtime, "request", b"7") == b"7"


def test_an_event_is_not_lost_with_a_client_that_went_away(bridge: Bridge, runtime: Runtime) -> None:
    runtime.get("request")
    bridge.answer()
    runtime.http.close()
    runtime.get("request")
    bridge.invoke(b"7")

    assert runtime.response()[1] == b"7"


def test_a_client_that_dies_with_half_an_event_leaves_it_to_the_next(bridge: Bridge, runtime: Runtime) -> None:
    runtime.get("request")
    bridge.answer()
    bridge.invoke(b"7" * (16 * MiB))
    runtime.http.sock.recv(1000)
    runtime.http.close()
    runtime.get("request")

    assert len(runtime.response()[1]) == 16 * MiB


def test_several_events_wait_for_several_clients(tmp_path: Path) -> None:
    with (
        Bridge("custom", tmp_path, {"bootstrap": TELL_ADDRESS}, concurrency=2) as bridge,
        Runtime(bridge, CUSTOM) as one,
    ):
        other = Runtime(bridge, CUSTOM, f"{one.http.host}:{one.http.port}")
        one.get("request")
        bridge.answer()
        other.get("request")
        bridge.invoke(b"1", ticket=1, request_id="r-1")
        bridge.invoke(b"2", ticket=2, request_id="r-2")
        assert (one.response()[1], other.response()[1]) == (b"1", b"2")

        with other:
            other.post("response/r-2", b"second")
        one.post("response/r-1", b"first")

        assert [bridge.answer()[1::4] for _ in range(2)] == [(2, b"second"), (1, b"first")]


# --- AWS Lambda's -----------------------------------------------------------------------------------------------


@of_lambda
def test_lambda_events_come_with_their_headers(bridge: Bridge, runtime: Runtime) -> None:
    runtime.get("invocation/next")
    bridge.answer()
    before = int(time.time() * 1000)
    bridge.invoke(b"[1]", request_id="01234567-89ab-7def-8123-456789abcdef", alias="live  2 3 TIMER parent")

    response, event = runtime.response()

    head = {name.removeprefix("Lambda-Runtime-"): value for name, value in response.headers.items()}
    assert event == b"[1]"
    assert head["Aws-Request-Id"] == "01234567-89ab-7def-8123-456789abcdef"
    assert head["Invoked-Function-Arn"] == "arn:aws:lambda:local-1:p:function:f:live"
    assert head["Trace-Id"] == "Root=1-01234567-89ab7def8123456789abcdef;Parent=8123456789abcdef;Sampled=0"
    facts = [response.headers[f"X-Cff-{name}"] for name in ("Attempt", "Max-Attempts", "Trigger", "Accepted-At")]
    assert facts == ["2", "3", "TIMER", "2009-08-23T03:58:16.491Z"]
    assert before + 30_000 <= int(head["Deadline-Ms"]) <= int(time.time() * 1000) + 30_000


@of_lambda
def test_lambda_errors_keep_what_the_runtime_says(bridge: Bridge, runtime: Runtime) -> None:
    take(bridge, runtime, "invocation/next")
    of_go = {"path": "main.go", "line": 3, "label": "main"}

    status, _ = runtime.post(
        "invocation/r-1/error",
        json.dumps({"errorMessage": "no", "trace": ["at x", of_go]}).encode(),
        {
            "Lambda-Runtime-Function-Error-Type": "Runtime.Oops",
            "Lambda-Runtime-Function-XRay-Error-Cause": "x" * (1 << 20),
        },
    )

    answer = bridge.answer()
    assert (status, answer.message) == (202, "function invocation exception, error: Runtime.Oops: no")
    assert (answer.error["errorType"], answer.error["stackTrace"]) == ("Runtime.Oops", ["at x", "main.go:3 main"])


@of_lambda
def test_a_streamed_lambda_response_may_break_off_with_an_error(bridge: Bridge, runtime: Runtime) -> None:
    take(bridge, runtime, "invocation/next")
    body = "eyJlcnJvck1lc3NhZ2UiOiAibWlkd2F5In0="  # {"errorMessage": "midway"}
    runtime.http.sock.sendall(
        b"POST /2018-06-01/runtime/invocation/r-1/response HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"4;x=y\r\nhalf\r\n0\r\nLambda-Runtime-Function-Error-Type: Runtime.Stream\r\n"
        b"Lambda-Runtime-Function-Error-Body: " + body.encode() + b"\r\n\r\n"
    )

    answer = bridge.answer()
    assert (answer.code, answer.message) == (4002, "function invocation exception, error: Runtime.Stream: midway")


@of_lambda
def test_a_runtime_may_say_that_it_cannot_start(bridge: Bridge, runtime: Runtime) -> None:
    status, _ = runtime.post("init/error", b'{"errorMessage": "no module", "errorType": "Runtime.Import"}')

    answer = bridge.answer()
    assert (status, answer.kind, answer.code) == (202, READY, 4009)
    assert answer.message == "function initialization exception, error: Runtime.Import: no module"


@of_lambda
def test_a_runtime_that_has_started_cannot_take_it_back(bridge: Bridge, runtime: Runtime) -> None:
    take(bridge, runtime, "invocation/next")

    assert runtime.post("init/error", b"{}")[0] == 403
