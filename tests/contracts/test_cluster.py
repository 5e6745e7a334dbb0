"""Contract of clusters: a single engine owns all work until it is lost."""

from __future__ import annotations

from collections.abc import Callable

import anyio
import pytest

from engine.protocols import Cluster
from engine.storage.single_engine import SingleEngine
from engine.testing.cluster import MemoryCluster

KINDS: dict[str, Callable[[], Cluster]] = {"single": SingleEngine, "memory": MemoryCluster}


@pytest.fixture(params=KINDS)
def cluster(request: pytest.FixtureRequest) -> Cluster:
    return KINDS[request.param]()


def test_the_slot_fits_into_a_key(cluster: Cluster) -> None:
    assert 0 <= cluster.slot < 64


def test_an_engine_alone_owns_all_work(cluster: Cluster) -> None:
    assert cluster.owns("a trigger")
    assert cluster.owns("another trigger")


async def test_an_engine_alone_stays_a_member(cluster: Cluster) -> None:
    with pytest.raises(TimeoutError), anyio.fail_after(0.01):
        await cluster.lost()
