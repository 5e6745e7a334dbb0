"""Health, readiness and states of destinations of a running engine, as probes and clients see them."""

from __future__ import annotations

import json
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from copy import copy
from pathlib import Path
from typing import Any

import anyio
import httpx
import msgspec
import pytest
from anyio.abc import TaskStatus
from msgspec.structs import replace

from engine.auth.credentials import Token
from engine.code.store import CodeSource
from engine.metrics.progress import Progress
from engine.model import Request
from engine.protocols import Plugin, PluginContext
from plugins.webhook import plugin as webhook
from tests.acceptance.engine_process import HELD as WAITING
from tests.doubles import ManualClock
from tests.support.builders import a_function, entry
from tests.support.http_app import PROJECT, encoded
from tests.support.ports import free_port
from tests.support.triggering import HELD, URN, House, api_client, house, until

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

    assert [reply.status_code for reply in (ready, known, closed, seen)] == [200, 200, 503, 503]
    assert (ready.json()["status"], closed.json()["status"]) == ("ready", "not ready")
    assert [len(reply.json()) > 1 for reply in (ready, known, closed, seen)] == [open_metrics, True, open_metrics, True]
    assert "intake" in seen.json()
    assert metrics.status_code == (200 if open_metrics else 401)


@pytest.mark.parametrize("open_metrics", [False, True])
async def test_names_of_functions_are_for_their_project_and_the_operator(tmp_path: Path, open_metrics: bool) -> None:
    tokens = [{"token": f"the-token-of-{project}-1", "project": project} for project in (PROJECT, "other")]
    tokens.append({"token": "the-token-of-nobody-1", "role": "operator"})
    callers: dict[str, dict[str, str]] = {
        **{name: {"x-auth-token": f"the-token-of-{name}-1"} for name in (PROJECT, "other", "nobody")},
        **({"wrong": {"x-auth-token": "the-token-of-wrong-1"}, "none": {}} if open_metrics else {}),
    }
    settings = {"auth__tokens": tokens, "auth__open_metrics": open_metrics}
    async with probed(tmp_path, **settings) as (place, client):
        payroll = a_function(0, project="other", name="payroll", timeout=60)
        await place.engine.catalog.create(payroll, CodeSource(kind="inline", file=encoded(WAITING)))
        urns = [place.urn, replace(place.urn, project="other", name="payroll")]
        for urn in urns:
            await place.engine.intake.accept(Request(function=urn, payload=b"{}"))
            await place.engine.controls.change(urn, {"paused": True})
        texts = {
            name: [(await client.get(path, headers=headers)).text for path in ("/metrics", "/readyz", "/healthz")]
            for name, headers in callers.items()
        }
        assert place.engine.authenticator is not None
        place.engine.authenticator.replace([], msgspec.convert(tokens[:1], list[Token]))
        if open_metrics:
            alone = await client.get("/metrics")

    seen = {name: [[word in text for word in ("hello", "payroll")] for text in given] for name, given in texts.items()}
    assert seen.pop(PROJECT) == [[True, False], [True, False], [False, False]]
    assert seen.pop("other") == [[False, True], [False, True], [False, False]]
    assert seen.pop("nobody") == [[True, True], [True, True], [False, False]]
    assert seen == ({name: [[False, False]] * 3 for name in ("wrong", "none")} if open_metrics else {})
    assert all("functiond_accepted_total" in text for text, *_ in texts.values())
    assert not open_metrics or all(name in alone.text for name in ("hello", "payroll"))


async def test_a_slow_commit_is_a_degradation_whose_details_everybody_sees_without_credentials(tmp_path: Path) -> None:
    async with probed(tmp_path, storage__commit_warning=0.001) as (place, client):
        async with held_commit(place):
            await until(lambda: place.engine.storage.statistics().in_flight_seconds > 0.001)
            alive, ready = await client.get("/healthz"), await client.get("/readyz")
        after = await client.get("/healthz")

    assert (alive.status_code, alive.json()["status"]) == (200, "degraded")
    assert (ready.status_code, ready.json()["status"]) == (503, "not ready")
    assert all("a commit has taken" in reply.json()["journal"] for reply in (alive, ready))
    assert (after.status_code, after.json()) == (200, {"status": "ok"})


async def test_a_commit_that_takes_too_long_is_a_stall_whose_details_need_credentials(tmp_path: Path) -> None:
    async with probed(tmp_path, **CREDENTIALS, health__stall=0.05) as (place, client), held_commit(place):
        await until(lambda: place.engine.storage.statistics().in_flight_seconds > 0.05)
        bare, known = await client.get("/healthz"), await client.get("/healthz", headers=TOKEN)

    assert (bare.status_code, known.status_code, known.json()["status"]) == (503, 503, "unhealthy")
    assert bare.json() == {"status": "unhealthy"}
    assert "a commit has taken" in known.json()["journal"]


async def test_an_entry_that_no_slot_was_told_of_is_a_stall_until_it_starts(tmp_path: Path) -> None:
    clock = ManualClock()
    async with house(tmp_path, clock=clock) as place:
        engine = copy(place.engine)
        engine.progress = Progress(clock.now)
        scheduler: Any = engine.scheduler
        scheduler.resume(HELD)
        scheduler._queue.push(entry(99))  # a change that forgets to hand out
        async with api_client(House(engine=engine)) as client:
            seen = []
            for _ in range(3):  # each ten seconds, as Kubernetes probes
                seen.append((await client.get("/healthz")).status_code)
                clock.advance(10)
            stalled, ready = await client.get("/healthz"), await client.get("/readyz")
            scheduler.hold(HELD)
            scheduler.resume(HELD)
            after = await client.get("/healthz")

    assert [*seen, stalled.status_code] == [200, 200, 200, 503]
    assert "does not start beside a free slot, for 30 s" in stalled.json()["scheduler"]
    assert ready.status_code == 503
    assert after.status_code == 200


# --- states of destinations and of plugins' services ---

BASE = f"/v2/{PROJECT}/fgs"


async def destinations(client: httpx.AsyncClient, **query: Any) -> Any:
    return (await client.get(f"{BASE}/destinations", params=query)).json()


async def test_a_destination_that_fails_is_named_with_its_cause_and_is_no_problem_of_the_engine(tmp_path: Path) -> None:
    port = free_port()
    param = json.dumps({"url": f"http://127.0.0.1:{port}/hook"})
    settings = {"destination_config": {"on_success": {"destination": "WEBHOOK", "param": param}}}
    async with (
        house(tmp_path, [webhook], executor__isolation="process", retry__base=30.0) as place,
        api_client(place) as client,
    ):
        await client.put(f"{BASE}/functions/{URN}/async-invoke-config", json=settings)
        before = await destinations(client)
        await client.post(f"{BASE}/functions/{URN}/invocations-async", json={})
        place.engine.scheduler.resume(HELD)
        await until(lambda: place.engine.delivery.statistics().failed > 0)
        await until(lambda: place.engine.delivery.statistics().under_way == 0)
        after, health = await destinations(client), await client.get("/healthz")

    [ok], [failing] = before["destinations"], after["destinations"]
    assert (ok["state"], ok["problem"], ok["failures"], ok["since"]) == ("ok", "", 0, "")
    assert (failing["func_urn"], failing["condition"], failing["destination"]) == (URN, "success", "WEBHOOK")
    assert (failing["state"], failing["failures"]) == ("failing", 1)
    assert failing["problem"].startswith("All connection attempts failed: [Errno 111]")
    assert failing["since"]
    assert (health.status_code, health.json()) == (200, {"status": "ok"})


async def test_destinations_are_listed_page_by_page(tmp_path: Path) -> None:
    async with house(tmp_path, [webhook]) as place, api_client(place) as client:
        both = {name: {"destination": "WEBHOOK", "param": f'{{"url": "http://{name}.example/"}}'} for name in NAMES}
        await client.put(f"{BASE}/functions/{URN}/async-invoke-config", json={"destination_config": both})
        first = await destinations(client, maxitems=1)
        second = await destinations(client, maxitems=1, marker=first["next_marker"])

    assert [page["destinations"][0]["condition"] for page in (first, second)] == ["success", "failure"]
    assert (first["count"], second["next_marker"]) == (2, 2)


NAMES = ("on_success", "on_failure")


class _Unreachable:
    async def run(self, context: PluginContext, *, task_status: TaskStatus[None]) -> None:
        raise ConnectionError("no answer of amqp://user:secret-of-the-broker@mq.example")


async def test_a_service_that_fails_degrades_the_engine_and_tells_no_secret(tmp_path: Path) -> None:
    plugin = Plugin(kinds=("LAMP",), serve=lambda settings: _Unreachable())
    async with house(tmp_path, [plugin], retry__base=30.0) as place, api_client(place) as client:
        with anyio.fail_after(60):
            while (health := await client.get("/healthz")).json()["status"] == "ok":  # noqa: ASYNC110
                await anyio.sleep(0.01)

    assert (health.status_code, health.json()["status"]) == (200, "degraded")
    assert "lamp" in health.json()["plugins"]
    assert "secret" not in health.text
