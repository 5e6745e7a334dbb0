"""States of destinations and of plugins' services, as the API shows them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anyio
import httpx
from anyio.abc import TaskStatus

from engine.protocols import Plugin, PluginContext
from plugins.webhook import plugin as webhook
from tests.support.http_app import PROJECT
from tests.support.ports import free_port
from tests.support.triggering import HELD, URN, api_client, house, until

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
