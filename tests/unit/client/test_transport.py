"""Connections of clients: ends, forks, time limits, batches, and replies of servers that are no engine."""

from __future__ import annotations

import asyncio
import gzip
import json
import math
import os
import socket
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from functiond import (
    ApiError,
    App,
    AsyncClient,
    BadArgument,
    BadConfiguration,
    Client,
    ClientClosed,
    Event,
    ResultTimeout,
    Unreachable,
)
from functiond.configuration import Configuration
from functiond.events import Chain, Link
from functiond.operations import Operations
from functiond.steps import Reply, Request, Sleep

from engine.model.limits import LONGEST_DELAY
from tests.support.engine_process import CLEAN, ROOT

REPLIES = {
    "page": (200, b"<html>"),
    "moved": (301, b""),
    "good": (202, b'{"request_id": "r"}'),
    "bomb": (202, gzip.compress(bytes(64 << 20))),
    "large": (202, bytes(9 << 20)),
}


def line(text: str) -> bytes:
    return b'event: line\ndata: {"time": null, "stream": "stdout", "text": "%b"}\n\n' % text.encode()


#: Replies with a log, of which the first two break off.
LOGS = (
    line("a") + line("a") + line("b")[:-9],
    line("a") + line("a") + line("b"),
    line("a") + line("a") + line("b") + line("a") + b'event: end\ndata: {"status": "SUCCESS"}\n\n',
)
#: Program in which an app has a connection during a fork.
FORK = """
import os
from functiond import App, Client
app = App()
app.client.enqueue("good")
child = os.fork()
{ends}
if child:
    assert os.waitpid(child, 0)[1] == 0
"""
#: Program that uses a client at its exit, when the connections have been closed.
EXIT = """
import atexit
@atexit.register
def leave():
    print(client.enqueue("good").request_id)
    client.close()
from functiond import Client
client = Client()
client.enqueue("good")
"""


class Server(ThreadingHTTPServer):
    connections = 0


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        assert isinstance(self.server, Server)
        self.server.connections += 1
        super().setup()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        name = next(name for name in REPLIES if f"/{name}/" in self.path)
        status, body = REPLIES[name]
        self.send_response(status)
        if name == "bomb":
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        assert isinstance(self.server, Server)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(LOGS[min(self.server.connections, len(LOGS)) - 1])
        self.close_connection = True

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def client_of(server: Server) -> Client:
    return Client(f"http://127.0.0.1:{server.server_port}", retries=0)


def run_program(server: Server, text: str) -> str:
    """Return what a program prints. Warnings, as of connections that are left open, fail the test."""
    url = f"http://127.0.0.1:{server.server_port}"
    environ = {**CLEAN, "PYTHONPATH": str(ROOT / "engine/client"), "FUNCTIOND_URL": url}
    command = [sys.executable, "-X", "dev", "-c", text]
    ended = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout


@pytest.mark.parametrize("name", ["page", "moved"])
def test_a_reply_of_another_server_is_an_error(server: Server, name: str) -> None:
    with client_of(server) as client:
        for send in (client.enqueue, client.call, client.enqueue_many):
            with pytest.raises(ApiError, match="is this a functiond engine"):
                send(name, [1])


@pytest.mark.parametrize(("name", "problem"), [("bomb", "is compressed"), ("large", "has more than 4 MiB")])
async def test_no_reply_fills_the_memory(
    server: Server, name: str, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("functiond.transport.LARGEST_REPLY", 4 << 20)
    tracemalloc.start()
    with client_of(server) as client, pytest.raises(ApiError, match=problem):
        client.call(name, 1)
    async with AsyncClient(f"http://127.0.0.1:{server.server_port}", retries=0) as aclient:
        with pytest.raises(ApiError, match=problem):
            await aclient.call(name, 1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < 16 << 20


def test_a_line_of_a_log_without_an_end_is_refused(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("functiond.records.LARGEST_REPLY", 10)

    with client_of(server) as client, pytest.raises(ApiError, match="a line of the log has no end"):
        list(client.handle("f", "r").logs(follow=True))


def test_a_followed_log_goes_on_after_broken_connections(server: Server) -> None:
    with client_of(server) as client:
        assert [log.text for log in client.handle("f", "r").logs(follow=True)] == ["a", "a", "b", "a"]
    assert server.connections == len(LOGS)


async def test_an_asynchronous_client_goes_on_with_a_log(server: Server) -> None:
    async with AsyncClient(f"http://127.0.0.1:{server.server_port}") as client:
        assert [log.text async for log in client.handle("f", "r").logs(follow=True)] == ["a", "a", "b", "a"]


def test_a_log_without_an_engine_is_an_error(server: Server) -> None:
    server.shutdown()
    server.server_close()
    with Client(f"http://127.0.0.1:{server.server_port}", timeout=0.5) as client, pytest.raises(Unreachable):
        list(client.handle("f", "r").logs(follow=True))


@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
def test_a_forked_process_opens_connections_of_its_own(server: Server) -> None:
    with client_of(server) as client:
        client.enqueue("good")
        client.enqueue("good")
        assert server.connections == 1
        child = os.fork()
        if child == 0:
            try:
                client.enqueue("good")
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        client.enqueue("good")
        assert server.connections == 2


@pytest.mark.parametrize("ends", ["", "del app", "app.connect(Client())", "if child == 0: app.client.enqueue('good')"])
def test_an_app_closes_its_client_also_in_a_forked_process(server: Server, ends: str) -> None:
    assert run_program(server, FORK.format(ends=ends)) == ""


def test_a_client_serves_functions_that_run_at_the_exit(server: Server) -> None:
    assert run_program(server, EXIT) == "r\n"


def test_a_handle_outlives_the_app_that_made_its_client(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUNCTIOND_URL", f"http://127.0.0.1:{server.server_port}")
    handle = App().client.handle("f", "r")
    assert [log.text for log in handle.logs(follow=True)] == ["a", "a", "b", "a"]


async def test_a_closed_client_refuses_requests(server: Server) -> None:
    client, aclient = client_of(server), AsyncClient(f"http://127.0.0.1:{server.server_port}")
    handle = client.enqueue("good")
    client.close()
    client.close()
    await aclient.close()
    for send in (handle.status, handle.result, lambda: list(handle.logs()), lambda: client.enqueue_many("good", [1])):
        with pytest.raises(ClientClosed, match=f"127.0.0.1:{server.server_port} is closed"):
            send()
    with pytest.raises(ClientClosed):
        await aclient.enqueue("good")
    with pytest.raises(ClientClosed):
        _ = [log async for log in aclient.handle("f", "r").logs()]


def test_clients_of_ended_event_loops_are_dropped() -> None:
    app = App()

    async def clients() -> int:
        assert app.async_client is app.async_client
        return len(app._async_clients)

    assert [asyncio.run(clients()) for _ in range(3)] == [1, 1, 1]


def test_events_that_would_be_sent_otherwise_are_refused() -> None:
    app = App(Client("http://127.0.0.1:9", retries=0))

    @app.function()
    def double(n: int) -> int:
        return 2 * n

    with pytest.raises(BadArgument, match=r"takes results of double\.event"):
        double.enqueue_many([4])  # type: ignore[arg-type]
    with pytest.raises(BadArgument, match="events is a dict: give a list"):
        app.client.enqueue_many("double", {"n": 4})


@pytest.mark.parametrize(
    ("option", "problem"),
    [
        ({"delay": float("nan")}, "delay is nan: give seconds, 0 to 604800"),
        ({"delay": -1}, "delay is -1: give seconds, 0 to 604800"),
        ({"delay": LONGEST_DELAY + 1}, "delay is 604801.0: give seconds, 0 to 604800"),
        ({"priority": 10}, "priority is 10: give 0 to 9"),
        ({"key": "ü"}, "key is 'ü': it may have printable ASCII"),
        ({"ordering_key": "\n"}, "ordering_key is '\\n': it may have"),
    ],
)
def test_a_wrong_option_is_refused_by_its_own_name(option: dict[str, Any], problem: str) -> None:
    client = Client("http://127.0.0.1:9", retries=0)

    with pytest.raises(BadArgument) as single:
        client.enqueue("double", **option)
    assert str(single.value).startswith(problem)
    if option.keys() & {"delay", "priority"}:  # a batch has the others in its body
        with pytest.raises(BadArgument) as many:
            client.enqueue_many("double", [Event(**option)])
        assert str(many.value) == str(single.value)


@pytest.mark.parametrize(
    ("parameters", "problem"),
    [
        ({"token": "hidden\n"}, "token has characters"),
        ({"token": "ä"}, "token has characters"),
        ({"url": "http://[::1"}, "Invalid IPv6 URL"),
        ({"url": "http://a:99999"}, "Port out of range"),
        ({"url": "http://user:hidden@a:99999"}, "url has a login"),
        ({"url": "ftp://a"}, "url is 'ftp://a'"),
        ({"url": "http://a/path"}, "must look like"),
        ({"access_key": "a"}, "together"),
        ({"retries": -1}, "retries is -1"),
        ({"url": "https://a", "ca_file": "/nowhere"}, "ca_file is '/nowhere'"),
    ],
)
def test_a_parameter_that_no_request_can_have_is_named(parameters: dict[str, Any], problem: str) -> None:
    with pytest.raises(BadConfiguration, match=problem) as caught:
        Client(**parameters)
    assert "hidden" not in str(caught.value)


# --- time limits ---------------------------------------------------------------------------------------------

LONG = 20.0  #: seconds, of which no limit here has more than one; without limits, replies are awaited for 60


def url_of(listener: socket.socket) -> str:
    return f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def silent() -> Iterator[str]:
    """URL of a server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield url_of(listener)


@pytest.fixture
def full() -> Iterator[str]:
    """URL of a server on which connections are not established, as its backlog is full."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, ExitStack() as stack:
        for _ in range(4):
            other = stack.enter_context(socket.socket())
            other.setblocking(False)
            other.connect_ex(listener.getsockname())
        yield url_of(listener)


@pytest.fixture
def closing() -> Iterator[str]:
    """URL of a server that closes each connection."""

    def close_each() -> None:
        while True:
            connection, _ = listener.accept()
            with connection:
                if connection.recv(1) == b"E":
                    return

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=close_each)
        thread.start()
        yield url_of(listener)
        with socket.create_connection(listener.getsockname()) as end:
            end.send(b"E")
        thread.join()


@pytest.mark.parametrize("server", ["silent", "full", "closing"])
def test_the_time_limit_of_a_result_holds(server: str, request: pytest.FixtureRequest) -> None:
    with Client(request.getfixturevalue(server)) as client:
        began = time.monotonic()
        with pytest.raises(ResultTimeout, match=r"unknown state after 0\.3 s .*no reply") as caught:
            client.handle("f", "r").result(timeout=0.3)
    assert 0.3 <= time.monotonic() - began < LONG
    assert isinstance(caught.value.__cause__, Unreachable)
    assert (caught.value.request_id, caught.value.status) == ("r", "")


@pytest.mark.parametrize("server", ["silent", "full"])
def test_the_time_limit_of_a_client_holds(server: str, request: pytest.FixtureRequest) -> None:
    with Client(request.getfixturevalue(server), timeout=0.3) as client, ThreadPoolExecutor() as threads:
        handle = client.handle("f", "r")
        sends: list[Callable[[], object]] = [
            lambda: client.enqueue("f"),
            lambda: client.enqueue_many("f", [1, 2]),
            lambda: list(handle.logs()),
            handle.status,
            handle.cancel,
        ]
        began = time.monotonic()
        for sending in [threads.submit(send) for send in sends]:
            with pytest.raises(Unreachable) as caught:
                sending.result(LONG)
            assert caught.value.sent == (server == "silent")
    assert time.monotonic() - began < LONG


def test_a_synchronous_call_has_a_time_limit(silent: str) -> None:
    with Client(silent) as client:
        began = time.monotonic()
        with pytest.raises(Unreachable, match="it may have received the request"):
            client.call("f", timeout=0.3)
    assert time.monotonic() - began < LONG


@pytest.mark.parametrize("timeout", [math.inf, 1e12])
def test_a_call_may_have_no_time_limit(timeout: float, closing: str) -> None:
    with Client(closing, timeout=timeout) as client, pytest.raises(Unreachable):
        client.call("f", timeout=timeout)


@pytest.mark.parametrize(("timeout", "limit"), [(None, 160), (500, 500), (5, 5)])
def test_the_time_limit_of_a_call_covers_retries(timeout: float | None, limit: float) -> None:
    operations = Operations(Configuration(url="http://a"))
    step = next(operations.call("f", None, object, timeout))
    assert isinstance(step, Request)
    assert math.isclose(step.limit, limit, abs_tol=2)


async def test_an_asynchronous_client_has_the_same_time_limits(silent: str) -> None:
    async with AsyncClient(silent) as client:
        began = time.monotonic()
        with pytest.raises(ResultTimeout):
            await client.handle("f", "r").result(timeout=0.3)
        with pytest.raises(Unreachable):
            await client.call("f", timeout=0.3)
    assert time.monotonic() - began < LONG


# --- batches -------------------------------------------------------------------------------------------------

FULL = {"error_code": "FSS.0429", "error_msg": "no room"}


def reply(*results: dict[str, str], seconds: str) -> Reply:
    body = json.dumps({"results": results}).encode()
    return Reply(status=202, headers={"retry-after": seconds}, body=body)


def test_events_without_room_wait_as_long_as_the_engine_asks() -> None:
    operations = Operations(Configuration(url="http://a"))
    steps = operations.enqueue_many([Chain((Link("f", Event(event=n)),)) for n in (1, 2)])
    first = next(steps)
    wait = steps.send(reply({"request_id": "a"}, FULL, seconds="20"))
    assert isinstance(wait, Sleep)
    assert 20 <= wait.seconds <= 30

    second = steps.send(None)
    assert isinstance(first, Request)
    assert isinstance(second, Request)
    assert second.body == b'{"events":[%b]}' % first.body.removeprefix(b'{"events":[').partition(b"},")[2][:-2]
