"""Tests of the static placement."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from engine.executors.nodes.launcher import ThisMachine
from engine.executors.nodes.placement import Grant, Shape
from engine.executors.nodes.static import StaticPlacement
from engine.runtimes.catalog import Family

SMALL = Shape(128, 0.3, frozenset(), Family.PYTHON)


class Machine:
    """Node with these properties."""

    most, gpus = -1, 0.0

    def __init__(self, name: str, memory: int = 512, cpus: float = 2.0, *labels: str, lacks: str = "") -> None:
        self.name, self.memory, self.cpus, self.labels = name, memory, cpus, labels
        self.lacks = {lacks: "not installed"} if lacks else {}


def placement(*machines: Machine | ThisMachine, local_first: bool = False) -> StaticPlacement:
    made = StaticPlacement(local_first=local_first)
    for machine in machines:
        made.join(machine)
    return made


async def names(made: StaticPlacement, count: int, shape: Shape = SMALL) -> list[str]:
    return [(await made.grant(shape, ())).machine.name for _ in range(count)]


async def wish(made: StaticPlacement, shape: Shape = SMALL) -> asyncio.Task[Grant]:
    """Begin to wait for a grant that cannot be had now."""
    task = asyncio.ensure_future(made.grant(shape, ()))
    await asyncio.sleep(0)
    assert not task.done()
    return task


async def test_the_node_with_the_largest_free_share_of_memory_comes_first() -> None:
    made = placement(Machine("small", 256), Machine("large", 1024))

    assert await names(made, 5) == ["small", "large", "large", "large", "large"]


async def test_processors_bound_the_grants_as_memory_does() -> None:
    made = placement(Machine("n", 100_000, 0.9))

    assert await names(made, 3) == ["n", "n", "n"]
    (await wish(made)).cancel()


async def test_this_machine_runs_no_more_instances_than_its_slots() -> None:
    made = placement(ThisMachine(2, 10_000), local_first=True)

    assert await names(made, 2) == ["", ""]
    (await wish(made)).cancel()


@pytest.mark.parametrize(
    ("local_first", "expected"), [(True, ["", "", "n", "n"]), (False, ["n", "n", "", ""])], ids=["first", "last"]
)
async def test_this_machine_comes_first_or_last(local_first: bool, expected: list[str]) -> None:
    made = placement(ThisMachine(-1, 256), Machine("n", 256), local_first=local_first)

    assert await names(made, 4) == expected


async def test_a_wish_waits_until_a_machine_joins() -> None:
    made = placement()

    assert not made.fits(SMALL)
    task = await wish(made)
    made.join(node := Machine("n"))

    assert (await task).machine is node


async def test_labels_and_runtimes_choose_the_node() -> None:
    plain, gpu = Machine("plain", lacks="node"), Machine("gpu", 512, 2.0, "gpu", "fast")
    made = placement(ThisMachine(-1, 1024), plain, gpu, local_first=True)

    assert await names(made, 1, SMALL._replace(labels=frozenset({"gpu"}))) == ["gpu"]
    assert made.fits(SMALL._replace(family=Family.NODE))
    assert not placement(plain).fits(SMALL._replace(family=Family.NODE))
    assert not made.fits(SMALL._replace(labels=frozenset({"arm"})))


async def test_freed_capacity_goes_to_the_first_that_fits() -> None:
    made = placement(Machine("n", 256))
    held = [await made.grant(SMALL, ()) for _ in range(2)]
    large, small = await wish(made, SMALL._replace(memory=256)), await wish(made)

    made.release(held[0])
    assert (await small).shape == SMALL
    made.release(held[1])
    made.release(await small)

    assert (await large).shape.memory == 256


async def test_a_wish_that_is_cancelled_takes_nothing() -> None:
    made = placement(Machine("n", 128))
    held = await made.grant(SMALL, ())
    first, second = await wish(made), await wish(made)

    made.release(held)  # granted to the first, which is cancelled before it runs
    first.cancel()

    with pytest.raises(asyncio.CancelledError):
        await first
    made.release(await second)
    assert await names(made, 1) == ["n"]


async def test_a_place_that_leaves_gives_nothing_more_and_keeps_its_grants() -> None:
    made = placement(node := Machine("n"))
    held = await made.grant(SMALL, ())
    made.leave(node)

    assert not made.fits(SMALL)
    made.join(node)
    assert await names(made, 3) == ["n"] * 3
    (await wish(made)).cancel()
    made.release(held)
    assert await names(made, 1) == ["n"]


async def test_a_released_grant_is_offered_once_to_all_wishes_of_a_shape() -> None:
    class Seen(Machine):
        looks = 0

        def __getattribute__(self, name: str) -> Any:
            if name == "memory":
                self.looks += 1
            return super().__getattribute__(name)

    machine = Seen("n")
    made = placement(machine)
    held = [await made.grant(SMALL, ()) for _ in range(4)]
    waiting = [await wish(made, Shape(256, 0.3, frozenset(), Family.PYTHON)) for _ in range(100)]
    machine.looks = 0
    made.release(held.pop())
    made.release(held.pop())
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)

    assert [wish.done() for wish in waiting] == [True] + [False] * 99
    assert machine.looks < 10
    for task in waiting:
        task.cancel()
