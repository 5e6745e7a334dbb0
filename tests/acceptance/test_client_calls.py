"""Chains, groups, options of calls, and results of many, from programs with a real engine."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from functiond import (
    App,
    AsyncClient,
    BadResult,
    BatchError,
    Call,
    Client,
    InvocationCancelled,
    InvocationDiscarded,
    InvocationFailed,
    NotFound,
    ResultTimeout,
    group,
)

from tests.acceptance.engine_process import ECHO, HELD, PROJECT, EngineProcess, begun, engine_on, held_event, rows
from tests.support.pages import PageFile

DOUBLE = """
def handler(event, context):
    (n,) = event["args"]
    if n < 0:
        raise ValueError(n)
    return 2 * n
"""
ADD = "def handler(event, context):\n    return sum(event['args'])\n"
INDEX = "def handler(event, context):\n    done, *others = event['args']\n    return [done['group']['done'], *others]\n"

app = App()


@app.function()
def double(n: int) -> int:
    return 2 * n


@app.function()
def add(n: int, other: int) -> int:
    return n + other


@app.function()
def index(members: Any, name: str) -> tuple[int, str]:
    return members.counts["done"], name


@pytest.fixture(scope="module", autouse=True)
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    sources = {"double": DOUBLE, "add": ADD, "index": INDEX, "echo": ECHO, "held": HELD}
    with engine_on(tmp_path_factory.mktemp("calls") / "data") as running:
        running.asked_port = running.port
        for name, source in sources.items():
            running.create(name, source)
            running.configure(name, max_async_retry_attempts=0)
        with Client(running.url, project=PROJECT) as client:
            app.connect(client)
            yield running


def calls(count: int, broken: int = -1) -> Iterator[Call[int]]:
    """Yield calls, until one cannot be made."""
    for n in range(count):
        if n == broken:
            raise LookupError(n)
        yield double.event(n)


def test_a_call_gets_the_result_of_the_one_before() -> None:
    handle = double.event(4).then(add, 1).then(add.options(priority=3), other=2).enqueue()
    assert (handle.result(30), handle.function, handle.record().priority) == (11, "add", 3)
    assert double.event(4).then("echo").enqueue().result(30) == 8
    call = double.options(key="chain").event(1).then(add, 1)
    assert call.enqueue().request_id == call.enqueue().request_id


def test_many_chains_are_queued_in_few_requests() -> None:
    chains = (double.event(n).then(add, 1) for n in range(1_001))
    handles = double.enqueue_many(chains)
    assert list(app.client.results(handles)) == [2 * n + 1 for n in range(1_001)]
    wrong = [double.event(1).then("nobody"), double.event(2).then(add, 0)]
    with pytest.raises(BatchError, match="1 of 2 events were refused; event 0: ") as caught:
        double.enqueue_many(wrong)
    assert caught.value.handles[1].result(30) == 4


def test_a_call_runs_at_its_time() -> None:
    at = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
    handle = double.options(at=at).enqueue(1)
    assert (handle.status(), handle.record().due_time) == ("WAIT", at)
    assert double.options(at=at - timedelta(hours=2)).enqueue(1).result(30) == 2


def test_a_call_expires() -> None:
    for expires in (0.2, timedelta(milliseconds=200)):
        with pytest.raises(InvocationDiscarded) as caught:
            double.options(delay=3600, expires=expires).enqueue(1).result(30)
        assert caught.value.code == 150430
    soon = datetime.now(UTC) + timedelta(minutes=1)
    assert double.options(expires=soon).enqueue(1).result(30) == 2


def test_a_unique_call_is_queued_once_until_it_has_ended() -> None:
    unique = double.options(unique=True)
    first = unique.options(delay=3600).enqueue(1)
    assert unique.enqueue(1).request_id == first.request_id != unique.enqueue(2).request_id
    first.cancel()
    assert unique.enqueue(1).result(30) == 2


def test_a_group_is_followed_by_a_call() -> None:
    handle = group(calls(1_500)).then(index, "all").then("echo").enqueue()
    assert list(handle.results()) == [2 * n for n in range(1_500)]
    assert handle.result(30) == [1_500, "all"]
    progress = handle.progress()
    assert (progress.total, progress.done, progress.failed, progress.request_id) == (1_500, 1_500, 0, handle.request_id)
    last = list(handle.members())[-1]
    assert (last.place, last.function, last.state, last.result, last.error) == (1_499, "double", "SUCCESS", 2_998, "")
    assert handle.status() == "SUCCESS"
    assert group([]).then(index, "none").enqueue().result(30) == (0, "none")


def test_results_of_a_group_raise_the_failure_of_a_member() -> None:
    handle = group([double.event(1), double.event(-1), double.event(2)], require="ended").then(index, "x").enqueue()
    results = handle.results()
    assert next(results) == 2
    with pytest.raises(InvocationFailed, match="-1"):
        next(results)
    assert handle.result(30) == (3, "x")
    assert [member.state for member in handle.members()] == ["SUCCESS", "FAIL", "SUCCESS"]
    with pytest.raises(InvocationFailed) as caught:
        group([double.event(-1)]).then(index, "x").enqueue().result(30)
    assert caught.value.code == 150520


def test_a_repeated_key_completes_a_group(engine: EngineProcess) -> None:
    count = "SELECT count(*) FROM invocation"
    ((before,),) = rows(engine.data, count)
    with pytest.raises(LookupError):
        group(calls(3_000, broken=2_500), key="import").then(index, "x").enqueue()
    handle = group(calls(3_000), key="import").then(index, "x").enqueue()
    assert handle.result(30) == (3_000, "x")
    assert group(calls(3_000), key="import").then(index, "x").enqueue().id == handle.id
    assert rows(engine.data, count) == [(before + 3_001,)]


def test_a_group_that_cannot_be_completed_is_cancelled() -> None:
    held: list[Call[int]] = [double.options(delay=3600, key=f"held-{n}").event(n) for n in range(1_001)]
    with pytest.raises(LookupError):
        group(chain(held, calls(1, broken=0))).enqueue()
    first = held[0].enqueue()
    with pytest.raises(InvocationCancelled):
        first.result(30)


def test_a_group_is_cancelled() -> None:
    handle = group(double.options(delay=3600).event(n) for n in range(3)).then(index, "x").enqueue()
    handle.cancel()
    with pytest.raises(InvocationCancelled):
        handle.result(30)
    with pytest.raises(InvocationCancelled):
        list(handle.results(30))


def test_results_come_in_the_order_of_their_handles(engine: EngineProcess) -> None:
    handles = double.enqueue_many(calls(2_500))
    assert list(app.client.results([*handles, handles[0]], timeout=60)) == [*(2 * n for n in range(2_500)), 0]
    done = list(app.client.as_completed(handles))
    assert sorted(handle.result() for handle in done) == [2 * n for n in range(2_500)]
    assert set(done) == set(handles)


def test_handles_come_as_their_invocations_end() -> None:
    late = double.options(delay=3600).enqueue(1)
    later = double.enqueue_many(double.options(delay=3600).event(n) for n in range(1_200))
    early = [double.enqueue(n) for n in range(3)]
    completed = app.client.as_completed([late, *later, *early], timeout=20)
    assert {next(completed), next(completed), next(completed)} == set(early)
    late.cancel()
    assert next(completed) is late
    with pytest.raises(InvocationCancelled):
        late.result()
    with pytest.raises(ResultTimeout, match=r"is WAIT or RUNNING after 0\.1 s"):
        list(app.client.as_completed(later[:2], timeout=0.1))


def test_a_failure_or_an_unknown_id_is_raised_in_its_place() -> None:
    good, failed = double.enqueue(1), double.enqueue(-1)
    for wrong, error in ((failed, InvocationFailed), (double.handle("unknown"), NotFound)):
        results = app.client.results([good, wrong, good])
        assert next(results) == 2
        with pytest.raises(error):
            next(results)


def test_results_are_awaited_while_the_engine_restarts(engine: EngineProcess, tmp_path: Path) -> None:
    event = held_event(tmp_path)
    client = app.client
    handles = client.enqueue_many("held", [event, event])
    with ThreadPoolExecutor(4) as threads:
        result = threads.submit(handles[0].result, 60)
        log = threads.submit(lambda: list(handles[0].logs(follow=True)))
        results = threads.submit(lambda: list(client.results(handles, timeout=60)))
        completed = threads.submit(lambda: [handle.result() for handle in client.as_completed(handles[:1])])
        begun(tmp_path, 1)
        engine.kill(children=True)
        engine.start()
        Path(event["gate"]).touch()
        assert (result.result(60), log.result(60)) == ("ended", [])
        assert (results.result(60), completed.result(60)) == (["ended"] * 2, ["ended"])


def test_a_damaged_result_is_an_error(engine: EngineProcess) -> None:
    handle = double.enqueue(500_000_123)
    assert handle.result(30) == 1_000_000_246
    engine.stop()
    PageFile(engine.data / "journal.db").replace(b"1000000246", b"9000000246")
    engine.start()
    with pytest.raises(BadResult, match="is damaged"):
        next(app.client.results([handle]))


async def test_the_asynchronous_forms_are_the_same() -> None:
    following = await double.event(1).then(add, 1).enqueue_async()
    assert await following.result(30) == 3
    handle = await group(calls(3)).then(index, "async").enqueue_async()
    assert [result async for result in handle.results()] == [0, 2, 4]
    assert await handle.result(30) == (3, "async")
    assert [member.place async for member in handle.members()] == [0, 1, 2]
    assert (await handle.progress()).total == 3
    assert await handle.status() == "SUCCESS"

    later = await group([double.options(delay=3600).event(1)]).enqueue_async()
    await later.cancel()
    async with AsyncClient(app.client.configuration.url, project=PROJECT) as client:
        handles = await client.enqueue_many("double", [double.event(n) for n in range(3)])
        assert [result async for result in client.results(handles)] == [0, 2, 4]
        assert {handle async for handle in client.as_completed(handles)} == set(handles)
