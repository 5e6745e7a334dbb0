"""Client for Python programs, with a real engine: every method of both clients."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from functiond import (
    AsyncClient,
    BadArgument,
    BadRequest,
    BadResult,
    BatchError,
    Client,
    Event,
    InvocationCancelled,
    InvocationFailed,
    LogLine,
    NotFound,
    ResultTimeout,
    TooLarge,
    UnknownFunction,
)

from tests.acceptance.engine_process import HELD, PROJECT, EngineProcess, engine_on, held_event

ECHO = "def handler(event, context):\n    print('seen', event)\n    return event\n"
FAIL = "def handler(event, context):\n    raise ValueError('no ' + str(event))\n"
LARGE = "def handler(event, context):\n    return ['x' * (event - 4)]\n"
NONE = "def handler(event, context):\n    return None\n"


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    with engine_on(tmp_path_factory.mktemp("client")) as running:
        for name, source in (
            ("echo", ECHO),
            ("fail", FAIL),
            ("held", HELD),
            ("large", LARGE),
            ("none", NONE),
        ):
            running.create(name, source)
            running.configure(name, max_async_retry_attempts=0)
        yield running


@pytest.fixture
def client(engine: EngineProcess) -> Iterator[Client]:
    with Client(engine.url, project=PROJECT) as opened:
        yield opened


@pytest.fixture
async def aclient(engine: EngineProcess) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(engine.url, project=PROJECT) as opened:
        yield opened


@pytest.mark.parametrize("event", [None, {"a": [1, "ü\u2028"]}, [1], "text", 0.5])
def test_the_result_is_what_the_function_returned(client: Client, event: Any) -> None:
    expected = {} if event is None else event

    assert client.enqueue("echo", event).result(30) == expected
    assert client.call("echo", event) == expected


async def test_a_result_that_is_not_kept_is_an_error(client: Client, aclient: AsyncClient) -> None:
    handle = client.enqueue("large", 262_145)
    with pytest.raises(
        BadResult, match=f"no result of {handle.request_id}: .* 262145 bytes, more than 262144, and is not"
    ):
        handle.result(30)
    with pytest.raises(BadResult, match="is not kept"):
        await aclient.handle("large", handle.request_id, returns=list[str]).result(30)
    assert (handle.record().status, handle.record().result) == ("SUCCESS", "")
    assert client.enqueue("large", 262_144).result(30) == ["x" * 262_140]
    assert client.enqueue("none").result(30) is None
    assert client.call("large", 262_145) == ["x" * 262_141]


def test_a_failure_has_code_message_and_traceback(client: Client) -> None:
    handle = client.enqueue("fail", 1)
    with pytest.raises(InvocationFailed) as queued:
        handle.result(30)
    with pytest.raises(InvocationFailed) as called:
        client.call("fail", 1)

    assert (queued.value.request_id, queued.value.code) == (handle.request_id, 4002)
    assert "ValueError: no 1" in queued.value.message
    for error in (queued.value, called.value):
        assert error.error_type == "ValueError"
        assert "raise ValueError" in error.traceback


def test_an_unknown_function_is_named(client: Client) -> None:
    for ask in (client.enqueue, client.call):
        with pytest.raises(UnknownFunction, match="nobody") as caught:
            ask("nobody", {})
        assert (caught.value.status, caught.value.code) == (404, "FSS.1051")
        assert caught.value.request_id


def test_a_record_tells_the_state(client: Client) -> None:
    handle = client.enqueue("echo", {"a": 1}, priority=7, ordering_key="k")
    handle.result(30)

    record = handle.record()
    assert (record.status, record.payload, record.result) == ("SUCCESS", '{"a":1}', '{"a": 1}')
    assert (record.priority, record.ordering_key, handle.status()) == (7, "k", "SUCCESS")
    assert record.end_time is not None
    assert record.end_time >= record.accept_time
    with pytest.raises(NotFound):
        client.handle("fail", handle.request_id).record()


def test_an_ended_invocation_cannot_be_cancelled(client: Client) -> None:
    handle = client.enqueue("echo", {})
    handle.result(30)

    with pytest.raises(BadRequest, match="already ended"):
        handle.cancel()


def test_many_events_are_queued_in_few_requests(client: Client) -> None:
    handles = client.enqueue_many("echo", ({"n": n} for n in range(1_001)))
    assert len({handle.request_id for handle in handles}) == 1_001
    assert [handles[n].result(60) for n in (0, 999, 1_000)] == [{"n": 0}, {"n": 999}, {"n": 1_000}]

    large = ["x" * (150 << 10)] * 50
    assert len(client.enqueue_many("echo", [Event(event=event, delay=3600) for event in large])) == 50
    assert client.enqueue_many("echo", []) == []


def test_options_of_many_events_are_their_own(client: Client) -> None:
    events = [Event(event=1, key="many"), Event(event=1, key="many"), Event(delay=3600, priority=4, ordering_key="o")]
    first, second, third = client.enqueue_many("echo", events)

    assert first.request_id == second.request_id
    assert (third.status(), third.record().priority, third.record().ordering_key) == ("WAIT", 4, "o")


def test_refused_events_have_errors_in_their_places(client: Client) -> None:
    with pytest.raises(BatchError, match="2 of 3 events were refused; event 0: ") as caught:
        client.enqueue_many("echo", [Event(event=1, key="k" * 300), 2, "x" * (7 << 20)])

    handles, errors = caught.value.handles, caught.value.errors
    assert [handle is None for handle in handles] == [True, False, True]
    assert handles[1].result(30) == 2
    assert [type(errors[place]) for place in (0, 2)] == [BadRequest, TooLarge]
    with pytest.raises(BatchError) as all_refused:
        client.enqueue_many("echo", [Event(event=1, key="k" * 300)] * 2)
    assert set(all_refused.value.errors) == {0, 1}
    with pytest.raises(UnknownFunction):
        client.enqueue_many("nobody", [1, 2])


def test_what_cannot_be_sent_is_named(client: Client) -> None:
    with pytest.raises(BadArgument, match=r"cannot be written as JSON: .*object"):
        client.enqueue("echo", {"a": object()})
    with pytest.raises(BadArgument, match=r"key is 'ü': it may have printable ASCII"):
        client.enqueue("echo", {}, key="ü")


def test_a_log_is_read_at_its_end_and_while_it_grows(client: Client, tmp_path: Path) -> None:
    handle = client.enqueue("echo", {"a": "ü\u2028"})
    handle.result(30)
    (line,) = handle.logs()
    assert (line.stream, line.text) == ("stdout", "seen {'a': 'ü\\u2028'}")
    assert [log.text for log in handle.logs(follow=True)] == [line.text]

    held = client.enqueue("held", held_event(tmp_path))
    followed = held.logs(follow=True)
    (tmp_path / "gate").touch()
    assert list(followed) == []
    assert held.status() == "SUCCESS"


async def test_the_asynchronous_client_has_the_same_methods(aclient: AsyncClient, tmp_path: Path) -> None:
    handles = await asyncio.gather(*(aclient.enqueue("echo", {"n": n}) for n in range(8)))
    results = await asyncio.gather(*(handle.result(30) for handle in handles))
    assert results == [{"n": n} for n in range(8)]
    assert await aclient.call("echo", [1]) == [1]

    (line,) = [log async for log in handles[0].logs(follow=True)]
    assert isinstance(line, LogLine)
    assert await handles[0].status() == (await handles[0].record()).status == "SUCCESS"

    waiting = await aclient.enqueue("echo", {}, delay=3600, key="later")
    assert aclient.handle("echo", waiting.request_id).request_id == waiting.request_id
    with pytest.raises(ResultTimeout):
        await waiting.result(0.01)
    await waiting.cancel()
    with pytest.raises(InvocationCancelled):
        await waiting.result(30)
    many = await aclient.enqueue_many("echo", [1, 2])
    assert [await handle.result(30) for handle in many] == [1, 2]
    with pytest.raises(UnknownFunction):
        await aclient.call("nobody", {})


def test_both_clients_have_the_same_methods() -> None:
    def names(kind: type) -> set[str]:
        return {name for name in dir(kind) if not name.startswith("_")}

    assert names(Client) == names(AsyncClient)
    assert len(list(islice(names(Client), 5))) == 5
