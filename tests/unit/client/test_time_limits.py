"""Time limits of clients against servers that never answer, or that close each connection."""

from __future__ import annotations

import math
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
from functiond import AsyncClient, Client, ResultTimeout, Unreachable
from functiond.configuration import Configuration
from functiond.operations import Operations
from functiond.steps import Request

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
