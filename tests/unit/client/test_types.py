"""Types of functions from code. The checker of types verifies this file; nothing is sent."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, assert_type

import pytest
from functiond import (
    App,
    AsyncHandle,
    BadArgument,
    Call,
    Client,
    Event,
    Group,
    GroupHandle,
    Handle,
    Retry,
    group,
)

app = App(Client("http://127.0.0.1:9"))


@app.function(retries=1)
def double(n: int) -> int:
    return 2 * n


RULES = {Exception: Retry(1), OSError: None, ConnectionError: Retry(8, base=0.5, longest=60)}


@app.function(on_success=double, secrets=("TOKEN",), folders=["images"], retry_rules=RULES)
async def read(path: str, *, size: int = 1) -> bytes:
    return path.encode() * size


@app.function()
def store(content: bytes, *, name: str = "x") -> float:
    return len(content)


@app.function()
def index(members: Group, names: list[str]) -> bool:
    return members.counts["failed"] == 0


other = App(app.client).function()(lambda n: n)


def test_a_function_keeps_its_types_here() -> None:
    assert assert_type(double(4), int) == 8
    coroutine = assert_type(read("a", size=2), Coroutine[Any, Any, bytes])
    coroutine.close()
    assert read.deployment.name == "read"
    assert read.deployment.on_success == "double"
    assert (read.deployment.secrets, read.deployment.folders) == (["TOKEN"], ["images"])
    assert read.deployment.retry_rules == [
        {"max_retries": 8, "error_type": "ConnectionError", "base": 0.5, "longest": 60},
        {"max_retries": 0, "error_type": "OSError"},
        {"max_retries": 1, "error_type": ""},
    ]
    with pytest.raises(BadArgument, match=r"double: argument `n` is 'a': Expected `int`, got `str`"):
        double.enqueue("a")  # type: ignore[arg-type]


def test_options_are_added_to_others() -> None:
    event = double.options(delay=5, priority=1).options(priority=9).event(4).links[0].event
    assert (event.delay, event.priority, event.key) == (5, 9, None)
    assert double.event(4).links[0].event.delay is None


LATER = datetime(2100, 1, 1, tzinfo=UTC)
NAIVE = LATER.replace(tzinfo=None)
BAD: list[tuple[Callable[[], object], str]] = [
    (lambda: double.options(at=LATER).options(delay=1), "delay and at exclude each other"),
    (lambda: double.options(at=NAIVE), "at is 2100-01-01 00:00:00, without a time zone"),
    (lambda: double.options(expires=LATER).enqueue(1), "expires is 2100-01-01 00:00:00+00:00: give up to 604800 s"),
    (lambda: double.options(unique=True, key="k"), "unique and key exclude each other"),
    (lambda: double.options(unique=True).event(1).then("raw"), "unique and then exclude each other"),
    (lambda: double.event(1).then(other), "<lambda> is of another app than the call that it follows"),
    (lambda: double.event(1).then(double.options(key="k")), "double follows a call, so it may not have key"),
    (lambda: double.event(1).then(double, 2), "double: too many positional arguments"),  # type: ignore[call-overload]
    (lambda: read.event("a").then(store, name=2), "store: argument `name` is 2"),  # type: ignore[call-overload]
    (lambda: double.event(1).then("raw", 2), "then('raw'): give a function of the app"),  # type: ignore[call-overload]
    (lambda: double.enqueue_many([Event(event=1)]), "enqueue_many takes results of double.event(...)"),  # type: ignore[arg-type]
    (lambda: double.enqueue_many([read.event("a")]), "this is a call of read, not of double"),
    (lambda: group([double.event(1)] * 100_001), "a group of 100001 calls: give 100000 at most"),
    (lambda: group([], require="some"), "require is 'some': give 'all' or 'ended'"),  # type: ignore[arg-type]
    (lambda: group([]).enqueue(), "the group has no calls, and none follows it"),
    (lambda: group([double.event(1), 3]).enqueue(), "calls[1] is 3: give results of event(...)"),  # type: ignore[arg-type]
    (lambda: group([double.event(1), other.event(1)]).enqueue(), "calls[1] is of another app"),
    (lambda: group([double.options(unique=True).event(1)]).enqueue(), "calls[0] is unique"),
]


@pytest.mark.parametrize(("make", "problem"), BAD, ids=[problem for _, problem in BAD])
def test_a_call_that_cannot_be_queued_is_refused_before(make: Callable[[], object], problem: str) -> None:
    with pytest.raises(BadArgument) as caught:
        make()
    assert str(caught.value).startswith(problem)


if TYPE_CHECKING:
    app.function(retry_rules={ValueError: None, OSError: Retry(1)})
    app.function(retry_rules={ValueError: 3})  # type: ignore[dict-item]
    Retry(3, 1)  # type: ignore[call-arg]

    async def types() -> None:
        assert_type(double.enqueue(4), Handle[int])
        assert_type(double.enqueue(4).result(), int)
        assert_type(double.options(delay=1).call(4), int)
        assert_type(await read.enqueue_async("a"), AsyncHandle[bytes])
        assert_type(await read.call_async("a"), bytes)
        read.enqueue("a", depth=1)  # type: ignore[call-arg]

    async def types_of_chains_and_groups(client: Client) -> None:
        assert_type(read.event("a"), Call[bytes])
        assert_type(read.event("a").then(store, name="b"), Call[float])
        assert_type(read.event("a").then(store).then("raw"), Call[Any])
        assert_type(read.enqueue_many([read.event("a").then(store)]), list[Handle[float]])
        following = group(double.event(n) for n in range(3)).then(index, ["a"])
        assert_type(following.enqueue(), GroupHandle[int, bool])
        assert_type((await following.enqueue_async()).results(), AsyncIterator[int])
        assert_type(client.results([double.enqueue(1), read.enqueue("a")]), Iterator[object])
        assert_type(client.as_completed([double.enqueue(1)]), Iterator[Handle[int]])
        read.event("a").then(store, 5)  # type: ignore[call-overload]
