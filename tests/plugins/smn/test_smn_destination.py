"""Outcomes published as messages, to topics of this engine and of other services."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from anyio.abc import TaskStatus

from engine import Plugin, PluginContext
from engine.app.api_wiring import build_apps
from engine.asgi.listener import listen
from engine.model import DestinationSpec
from plugins.smn import plugin as smn
from plugins.smn.destination import SmnDestination, SmnParam
from plugins.smn.problems import SmnProblem
from tests.plugins import delivering
from tests.support.http_app import PROJECT, REGION
from tests.support.storages import ended
from tests.support.triggering import URN, House, api_client, house, until

TOPIC = f"urn:smn:{REGION}:{PROJECT}:outcomes"
RECORD = json.dumps({"request_context": {"request_id": "id", "function_urn": URN}}).encode()


async def deliver(place: House, topic: str = TOPIC) -> None:
    await delivering.deliver(place, "SMN", SmnDestination(SmnParam(topic_urn=topic)), RECORD)


async def listening(place: House, client: httpx.AsyncClient, project: str = PROJECT) -> None:
    await client.post(f"/v2/{project}/notifications/topics", json={"name": "outcomes"})
    trigger = await place.create("SMN", topic_urn=TOPIC)
    await until(lambda: place.state(trigger).state == "running")


async def test_an_outcome_that_is_delivered_twice_is_one_message(tmp_path: Path) -> None:
    async with house(tmp_path, [smn]) as place, api_client(place) as client:
        await listening(place, client)
        await deliver(place)
        await deliver(place)
        [event] = await place.events()

        assert event["record"][0]["smn"]["message"] == RECORD.decode()
        assert event["record"][0]["smn"]["subject"] == f"success of {URN}"


class Slow:
    """Service that takes 0.3 seconds to start."""

    async def run(self, context: PluginContext, *, task_status: TaskStatus[None]) -> None:
        await anyio.sleep(0.3)
        task_status.started()
        await anyio.sleep_forever()


async def test_pending_deliveries_of_the_last_engine_are_made_once_the_triggers_listen(tmp_path: Path) -> None:
    slow = Plugin(kinds=("SLOW",), serve=lambda settings: Slow())
    async with house(tmp_path, [smn]) as place, api_client(place) as client:
        await listening(place, client)
        await ended(
            place.engine.storage, deliver_to=DestinationSpec(destination="SMN", param=json.dumps({"topic_urn": TOPIC}))
        )
    async with house(tmp_path, [smn, slow]) as place:
        await until(lambda: place.engine.delivery.statistics().delivered == 1)
        _, event = await place.events()

        assert event["record"][0]["smn"]["subject"] == f"success of {URN}"


async def test_what_cannot_be_delivered_says_why(tmp_path: Path) -> None:
    async with house(tmp_path, [smn]) as place:
        with pytest.raises(SmnProblem, match=r"SMN\.0006 Topic not found"):
            await deliver(place)
        with pytest.raises(SmnProblem, match=r"SMN\.0005"):
            await deliver(place, "outcomes")


async def test_an_outcome_goes_to_a_topic_elsewhere_where_it_is_one_message_as_well(tmp_path: Path) -> None:
    async with house(tmp_path / "there", [smn]) as there, api_client(there) as client:
        await listening(there, client)
        elsewhere: dict[str, Any] = {
            "plugins__smn__endpoint": str(client.base_url).rstrip("/"),
            "plugins__smn__project_id": PROJECT,
            "plugins__smn__access_key": "AK",
            "plugins__smn__secret_key": "SK",
        }
        async with house(tmp_path / "here", [smn], **elsewhere) as here:
            async with listen(build_apps(here.engine)[0], "127.0.0.1", 0) as port:
                own = await client.get(f"http://127.0.0.1:{port}/v2/{PROJECT}/notifications/topics")
            await deliver(here)
            await deliver(here)
            with pytest.raises(ConnectionError, match=r"404.*SMN\.0006"):
                await deliver(here, f"{TOPIC}s")
        [event] = await there.events()

        assert event["record"][0]["smn"]["message"] == RECORD.decode()
        assert own.status_code == 404  # with an endpoint, the engine serves no topics itself
