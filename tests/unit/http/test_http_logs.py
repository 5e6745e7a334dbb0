"""Logs over HTTP, by line and as a live stream."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import anyio
import pytest
from anyio.abc import ByteStream
from msgspec.structs import replace

from engine.asgi import streaming
from engine.asgi.listener import listen
from engine.logs.feed import Listener, LogBoard
from engine.logs.lines import LOGGER, STDERR, STDOUT, TAIL, encode, last
from engine.model import Attempt, Outcome, State
from tests.support.executing import invocation
from tests.support.http_app import BASE, Api, urn_of

pytestmark = pytest.mark.usefixtures("hello")

LIVE = {"Accept": "text/event-stream"}
KEPT = encode(1_500, STDOUT, b"one") + encode(2_000, STDERR, b"two")


@pytest.fixture(autouse=True)
def quick_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let listeners notice soon that a reader has gone."""
    monkeypatch.setattr(streaming, "PROBE_PAUSE", 0.02)


class Events:
    """Reader of a server-sent event stream."""

    def __init__(self, stream: ByteStream) -> None:
        self.stream, self._read = stream, b""

    async def next(self) -> tuple[str, dict[str, Any]]:
        while True:
            while b"\n\n" not in self._read:
                self._read += await self.stream.receive()
            text, _, self._read = self._read.partition(b"\n\n")
            if b"event: " in text:
                name, data = text.decode()[text.decode().index("event: ") :].split("\n")[:2]
                return name.removeprefix("event: "), json.loads(data.removeprefix("data: "))

    async def begun(self) -> None:
        while b"\n\n" not in self._read.partition(b"\r\n\r\n")[2]:
            self._read += await self.stream.receive()


async def follow(api: Api, path: str) -> Events:
    stream = await anyio.connect_tcp("127.0.0.1", api.port)
    await stream.send(f"GET {BASE}{path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n\r\n".encode())
    return Events(stream)


def tell(api: Api, request_id: str, text: bytes, stream: int = STDOUT) -> None:
    run = replace(invocation(), request_id=request_id) if request_id else None
    api.board.publish(api.catalog.find(api.engine.requests[0].function), run, encode(3_000, stream, text))


async def accepted(api: Api) -> str:
    request_id: str = (await api.invoke()).json["request_id"]
    return request_id


async def test_a_log_is_a_line_of_json_for_each_line(api: Api) -> None:
    request_id = await accepted(api)
    api.engine.logs[request_id] = KEPT

    answer = await api.send("GET", path_of(request_id))

    assert answer.headers["content-type"] == "application/x-ndjson"
    assert [json.loads(line) for line in answer.raw.splitlines()] == [
        {"time": "1970-01-01T00:00:01.500Z", "stream": "stdout", "text": "one"},
        {"time": "1970-01-01T00:00:02.000Z", "stream": "stderr", "text": "two"},
    ]


def path_of(request_id: str) -> str:
    return f"/{urn_of()}/async-invocations/{request_id}/logs"


async def lines_of(api: Api, request_id: str, query: str = "") -> tuple[int, list[str]]:
    answer = await api.send("GET", f"{path_of(request_id)}{query}")
    return answer.status, [json.loads(line)["text"] for line in answer.raw.splitlines()] if answer.status == 200 else []


async def test_each_attempt_shows_its_own_log(api: Api) -> None:
    request_id, whole = await accepted(api), encode(2_000, STDOUT, b"second, whole")
    api.engine.logs[f"{request_id}.2"] = whole
    attempts = tuple(
        Attempt(attempt=number, started_at=1.0, ended_at=2.0, code=4002, message="", log=encode(1_000, STDOUT, text))
        for number, text in ((1, b"first"), (2, b"second"), (3, b""))
    )
    [key] = api.engine.rows
    api.engine.rows[key] = replace(
        api.engine.rows[key], attempt=3, attempts=attempts, state=State.FAIL, log=encode(3_000, STDOUT, b"third")
    )

    shown = [await lines_of(api, request_id, query) for query in ("", "?attempt=1", "?attempt=2", "?attempt=3")]
    assert shown == [(200, ["third"]), (200, ["first"]), (200, ["second, whole"]), (200, ["third"])]
    for unknown in ("0", "4", "x", "9" * 5000):
        answer = await api.send("GET", f"{path_of(request_id)}?attempt={unknown}")
        assert (answer.status, "from 1 to 3" in answer.json["error_msg"]) == (400, True)
    live = await api.send("GET", f"{path_of(request_id)}?attempt=1", headers=LIVE)
    assert (live.status, "live log" in live.json["error_msg"]) == (400, True)
    assert (await api.send("GET", path_of("00000000-0000-7000-8000-000000000000"))).status == 404


@pytest.mark.parametrize("newest", [True, False])
async def test_a_record_of_an_earlier_version_has_the_log_of_its_newest_attempt(api: Api, newest: bool) -> None:
    """Its file has no number. A new record has the log of its first attempt there."""
    request_id, whole = await accepted(api), encode(2_000, STDOUT, b"begin\n" + b"x" * 9000)
    api.engine.logs[request_id] = whole
    attempts = tuple(Attempt(attempt=number, started_at=1.0, ended_at=2.0, code=4002, message="") for number in (1, 2))
    [key] = api.engine.rows
    tail = last(whole if newest else encode(2_000, STDOUT, b"y" * 9000), TAIL)
    api.engine.rows[key] = replace(api.engine.rows[key], attempt=2, attempts=attempts, state=State.FAIL, log=tail)

    _, lines = await lines_of(api, request_id)
    assert (lines[0] == "begin") is newest


async def test_a_followed_invocation_streams_earlier_lines_later_ones_and_its_end(api: Api) -> None:
    request_id = await accepted(api)
    api.engine.logs[request_id] = KEPT
    events = await follow(api, path_of(request_id))
    async with events.stream:
        told = [await events.next(), await events.next()]
        tell(api, "another", b"not mine")
        tell(api, request_id, b"mine", LOGGER)
        told.append(await events.next())
        api.engine.finish(request_id)
        end = await events.next()

    assert [(name, data["text"], data["stream"]) for name, data in told] == [
        ("line", "one", "stdout"), ("line", "two", "stderr"), ("line", "mine", "logger"),
    ]  # fmt: skip
    assert end == ("end", {"request_id": request_id, "status": "SUCCESS"})


async def test_following_what_has_ended_ends(api: Api) -> None:
    request_id = await accepted(api)
    api.engine.finish(request_id)
    api.engine.logs[request_id] = KEPT

    answer = await api.send("GET", path_of(request_id), headers=LIVE)

    assert answer.headers["content-type"] == "text/event-stream"
    assert answer.headers["x-accel-buffering"] == "no"
    assert answer.headers["cache-control"] == "no-store"
    assert [line for line in answer.raw.decode().split("\n") if line.startswith("event")] == [
        "event: line", "event: line", "event: end",
    ]  # fmt: skip


async def test_a_followed_function_streams_lines_of_all_its_runs_and_instances(api: Api) -> None:
    await accepted(api)
    events = await follow(api, f"/{urn_of()}/logs")
    async with events.stream:
        await events.begun()
        tell(api, "a run", b"x")
        tell(api, "", b"y")
        told = [await events.next(), await events.next()]

    assert [(data["request_id"], data["text"]) for _, data in told] == [("a run", "x"), ("", "y")]


async def test_a_followed_function_streams_ends_of_attempts_on_request(api: Api) -> None:
    request_id = await accepted(api)
    function = api.catalog.find(api.engine.requests[0].function)
    run = replace(invocation(), request_id=request_id, attempt=2)
    failure = Outcome(code=4002, message="no such key", result=b'{"errorMessage": 1}', started_at=1.0, ended_at=1.5)
    events = await follow(api, f"/{urn_of()}/logs?attempts=true")
    async with events.stream:
        await events.begun()
        tell(api, request_id, b"line")
        api.engine.attempt_ended(replace(function, function_id=function.function_id + 1), run, failure)
        api.engine.attempt_ended(function, run, failure)
        (_, line), (name, attempt) = await events.next(), await events.next()

    assert (line["text"], name) == ("line", "attempt")
    assert attempt == {
        "request_id": request_id,
        "attempt": 2,
        "mode": "async",
        "source": "API",
        "status": "FAIL",
        "seconds": 0.5,
        "error_code": 4002,
        "error_message": "no such key",
        "result": '{"errorMessage": 1}',
    }


async def test_a_quiet_stream_has_heartbeats(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.http.live_logs.QUIET", 0.01)
    events = await follow(api, f"/{urn_of()}/logs")
    async with events.stream:
        seen = b""
        with anyio.fail_after(60):
            while seen.count(b": still here\n\n") < 3:
                seen += await events.stream.receive()

    assert b"event" not in seen.partition(b"\r\n\r\n")[2]


async def test_a_reader_that_disconnects_is_unsubscribed(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    forgotten = anyio.Event()

    @contextmanager
    def subscribed(self: LogBoard, listener: Listener, *, function_id: int = 0) -> Iterator[None]:
        try:
            yield
        finally:
            forgotten.set()

    monkeypatch.setattr(LogBoard, "subscribed", subscribed)
    events = await follow(api, f"/{urn_of()}/logs")
    async with events.stream:
        await events.begun()

    with anyio.fail_after(60):
        await forgotten.wait()


async def test_the_end_of_the_listener_ends_the_streams(api: Api) -> None:
    async with listen(api.app(), "127.0.0.1", 0, grace=0.1) as api.port:
        events = await follow(api, f"/{urn_of()}/logs")
        await events.begun()

    async with events.stream:
        with anyio.fail_after(60):
            rest = b"".join([piece async for piece in events.stream])

    assert rest == b"0\r\n\r\n"


async def test_output_of_instances_outside_requests_is_ordered_by_time(api: Api) -> None:
    api.engine.logs[""] = encode(2_000, STDERR, b"later") + encode(1_000, STDERR, b"sooner")

    answer = await api.send("GET", f"/{urn_of()}/logs")

    assert [json.loads(line)["text"] for line in answer.raw.splitlines()] == ["sooner", "later"]
