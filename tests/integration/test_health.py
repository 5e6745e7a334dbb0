"""Health and readiness of a running engine, as probes see them."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from tests.support.http_app import PROJECT
from tests.support.triggering import House, api_client, house, until

TOKEN = {"x-auth-token": "the-token-of-the-operator"}
CREDENTIALS = {"auth__tokens": [{"token": TOKEN["x-auth-token"], "project": PROJECT}]}


@asynccontextmanager
async def probed(folder: Path, **settings: Any) -> AsyncIterator[tuple[House, httpx.AsyncClient]]:
    async with (
        house(folder, **settings) as place,
        api_client(place, authenticator=place.engine.authenticator) as client,
    ):
        yield place, client


@asynccontextmanager
async def held_commit(place: House) -> AsyncIterator[None]:
    """Let one commit of the storage take until the block ends."""
    storage: Any = place.engine.storage
    begun, gate = threading.Event(), threading.Event()

    def wait(database: object) -> None:
        begun.set()
        gate.wait()

    async with anyio.create_task_group() as tasks:
        try:
            tasks.start_soon(storage.writer.call, wait)
            await until(begun.is_set)
            yield
        finally:
            gate.set()


@pytest.mark.parametrize("open_metrics", [False, True])
async def test_readiness_needs_no_credentials_and_its_details_do(tmp_path: Path, open_metrics: bool) -> None:
    settings = {**CREDENTIALS, "auth__open_metrics": open_metrics}
    async with probed(tmp_path, **settings) as (place, client):
        ready, known = await client.get("/readyz"), await client.get("/readyz", headers=TOKEN)
        metrics = await client.get("/metrics")
        place.engine.intake.close()
        closed, seen = await client.get("/readyz"), await client.get("/readyz", headers=TOKEN)

    assert [one.status_code for one in (ready, known, closed, seen)] == [200, 200, 503, 503]
    assert (ready.json()["status"], closed.json()["status"]) == ("ready", "not ready")
    assert [len(one.json()) > 1 for one in (ready, known, closed, seen)] == [open_metrics, True, open_metrics, True]
    assert "intake" in seen.json()
    assert metrics.status_code == (200 if open_metrics else 401)


async def test_the_details_of_health_need_credentials(tmp_path: Path) -> None:
    async with probed(tmp_path, **CREDENTIALS, health__stall=0.05) as (place, client), held_commit(place):
        await until(lambda: place.engine.storage.statistics().in_flight_seconds > 0.05)
        bare, known = await client.get("/healthz"), await client.get("/healthz", headers=TOKEN)

    assert (bare.status_code, known.status_code) == (503, 503)
    assert bare.json() == {"status": "unhealthy"}
    assert "journal" in known.json()


async def test_without_configured_credentials_everybody_sees_the_details(tmp_path: Path) -> None:
    async with probed(tmp_path) as (_, client):
        assert "isolation" in (await client.get("/readyz")).json()


async def test_a_slow_commit_is_a_degradation_before_it_is_a_stall(tmp_path: Path) -> None:
    async with probed(tmp_path, storage__commit_warning=0.001) as (place, client):
        async with held_commit(place):
            await until(lambda: place.engine.storage.statistics().in_flight_seconds > 0.001)
            alive, ready = await client.get("/healthz"), await client.get("/readyz")
        after = await client.get("/healthz")

    assert (alive.status_code, alive.json()["status"]) == (200, "degraded")
    assert (ready.status_code, ready.json()["status"]) == (503, "not ready")
    assert all("a commit has taken" in one.json()["journal"] for one in (alive, ready))
    assert (after.status_code, after.json()) == (200, {"status": "ok"})


async def test_a_commit_that_takes_too_long_is_a_stall(tmp_path: Path) -> None:
    async with probed(tmp_path, health__stall=0.05) as (place, client), held_commit(place):
        await until(lambda: place.engine.storage.statistics().in_flight_seconds > 0.05)
        stalled = await client.get("/healthz")

    assert (stalled.status_code, stalled.json()["status"]) == (503, "unhealthy")
    assert "a commit has taken" in stalled.json()["journal"]
