"""Types of functions from code. The checker of types verifies this file; nothing is sent."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, assert_type

import pytest
from functiond import App, AsyncHandle, BadArgument, Client, Handle

app = App(Client("http://127.0.0.1:9"))


@app.function(retries=1)
def double(n: int) -> int:
    return 2 * n


@app.function(on_success=double)
async def read(path: str, *, size: int = 1) -> bytes:
    return path.encode() * size


def test_a_function_keeps_its_types_here() -> None:
    assert assert_type(double(4), int) == 8
    coroutine = assert_type(read("a", size=2), Coroutine[Any, Any, bytes])
    coroutine.close()
    assert read.deployment.name == "read"
    assert read.deployment.on_success == "double"
    with pytest.raises(BadArgument, match=r"double: argument `n` is 'a': Expected `int`, got `str`"):
        double.enqueue("a")  # type: ignore[arg-type]


def test_options_are_added_to_others() -> None:
    event = double.options(delay=5, priority=1).options(priority=9).event(4)
    assert (event.delay, event.priority, event.key) == (5, 9, None)
    assert double.event(4).delay is None


if TYPE_CHECKING:

    async def types() -> None:
        assert_type(double.enqueue(4), Handle[int])
        assert_type(double.enqueue(4).result(), int)
        assert_type(double.options(delay=1).call(4), int)
        assert_type(await read.enqueue_async("a"), AsyncHandle[bytes])
        assert_type(await read.call_async("a"), bytes)
        read.enqueue("a", depth=1)  # type: ignore[call-arg]
