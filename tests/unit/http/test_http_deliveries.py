"""Redrive, redirection and removal of deliveries, over HTTP and in the console."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from engine.config.plugin_registry import load_plugins
from engine.http.console.paths import HOME
from engine.model import DestinationSpec
from engine.protocols import DeliveryFilter
from tests.support.console import form_token
from tests.support.http_app import PROJECT, Api, serve
from tests.support.storages import KINDS, ended
from tests.support.triggering import House, api_client, house
from tests.support.waiting import in_own_task

PATH = f"/v2/{PROJECT}/fgs/deliveries"
HOOK = DestinationSpec(destination="WEBHOOK", param=json.dumps({"url": "https://example.com/a"}))
TOPIC = DestinationSpec(destination="SMN", param="{}")


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    """Serve an API with given-up deliveries 1 to 6 of two functions, and a pending one, 7."""
    opened, folder = KINDS["sqlite"](tmp_path), tmp_path / "api"
    async with in_own_task(opened()) as storage, serve(folder, outbox=storage.outbox) as api:
        for name in ("hello", "other"):
            await api.create(name)
        for number in range(1, 8):
            done = await ended(storage, 1 + number % 2, deliver_to=HOOK if number < 5 else TOPIC)
            [new] = await storage.outbox.deliveries_of(done.key)
            await storage.outbox.postpone(new, 1e11 if number == 7 else None, "refused")
        yield api


async def send(api: Api, action: str, body: dict[str, Any]) -> Any:
    return (await api.send("POST", f"/{action}", body, base=PATH)).json


async def test_deliveries_are_discarded_by_id_and_pending_ones_stay(api: Api) -> None:
    assert await send(api, "discard", {"delivery_ids": [1, 3, 7, 99]}) == {"discarded": [1, 3]}
    assert await send(api, "discard", {"delivery_ids": [1, 3]}) == {"discarded": []}


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ({}, [1, 2, 3, 4, 5, 6]),
        ({"function": "hello"}, [2, 4, 6]),
        ({"destination": "SMN", "param": "{}"}, [5, 6]),
        ({"destination": HOOK.destination, "param": HOOK.param, "function": "other"}, [1, 3]),
    ],
)
@pytest.mark.parametrize(("action", "result"), [("discard", "discarded"), ("redrive", "redriven")])
async def test_all_that_match_a_filter_are_handled(
    api: Api, action: str, result: str, chosen: dict[str, Any], expected: list[int]
) -> None:
    assert await send(api, action, {"all": True, **chosen}) == {result: expected}
    assert await send(api, action, {"all": True, **chosen}) == {result: []}


async def test_steps_go_on_where_they_ended(api: Api) -> None:
    first = await send(api, "redrive", {"all": True, "limit": 4})
    second = await send(api, "redrive", {"all": True, "limit": 4, "after": first["next_after"]})

    assert first == {"redriven": [1, 2, 3, 4], "next_after": 4}
    assert second == {"redriven": [5, 6], "next_after": 0}


@pytest.mark.parametrize("action", ["discard", "redrive"])
@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "delivery_ids"),
        ({"all": True, "delivery_ids": [1]}, "delivery_ids"),
        ({"delivery_ids": [1], "function": "hello"}, "all"),
        ({"all": True, "param": "{}"}, "destination"),
        ({"all": True, "limit": 501}, "limit"),
        ({"all": True, "after": -1}, "after"),
        ({"delivery_ids": list(range(501))}, "delivery_ids"),
        ({"all": True, "function": "nobody"}, "nobody"),
    ],
)
async def test_a_choice_that_is_ambiguous_or_out_of_range_is_refused(
    api: Api, action: str, body: dict[str, Any], field: str
) -> None:
    reply = await api.send("POST", f"/{action}", body, base=PATH)

    assert reply.status in (400, 404)
    assert field in reply.json["error_msg"]


# --- in the console ------------------------------------------------------------------------------------------

HERE = f"{HOME}projects/{PROJECT}/deliveries"
SETTINGS = f"/v2/{PROJECT}/fgs/functions/hello/async-invoke-config"
WRONG, PRESENT = (DestinationSpec(destination="KAFKA", param=f'{{"instance_id":"k","topic":"{n}"}}') for n in "ab")


@asynccontextmanager
async def console(folder: Path) -> AsyncIterator[tuple[House, httpx.AsyncClient]]:
    """Run an engine with four deliveries to a wrong destination, two of them given up. The present one is another."""
    async with house(folder, load_plugins()) as place, api_client(place) as client:
        outbox = place.engine.storage.outbox
        for number in range(4):
            done = await ended(place.engine.storage, version="latest", deliver_to=WRONG)
            [new] = await outbox.deliveries_of(done.key)
            await outbox.postpone(new, None if number < 2 else 1e11, "no such topic")
        body = {"destination": PRESENT.destination, "param": PRESENT.param}
        reply = await client.put(SETTINGS, json={"destination_config": {"on_success": body}})
        assert reply.status_code == 200, reply.text
        yield place, client


async def stored(place: House) -> list[tuple[int, bool, DestinationSpec]]:
    """Return id, whether it is given up, and destination of each delivery."""
    found: list[tuple[int, bool, DestinationSpec]] = []
    for given_up in (True, False):
        page, _ = await place.engine.storage.outbox.page(DeliveryFilter(functions=[1], given_up=given_up), 0, 99)
        found += [(pending.delivery_id, given_up, pending.destination) for pending in page]
    return sorted(found, key=lambda row: row[0])


async def act(client: httpx.AsyncClient, path: str = HERE, **fields: Any) -> httpx.Response:
    data = {**fields, "form_token": await form_token(client, HERE)}
    return await client.post(path, data=data, follow_redirects=True)


async def test_one_delivery_is_redirected_to_the_present_destination(place: House, client: httpx.AsyncClient) -> None:
    page = (await client.get(HERE)).text
    sent = await act(client, one="redirect-3")
    after = await stored(place)

    assert page.count(">Redirect</button>") == 4
    assert "1 delivery sent to the present destination." in sent.text
    assert [row[:2] for row in after if row[2] == PRESENT] == [(3, False)]


async def test_all_deliveries_of_a_list_are_redirected(place: House, client: httpx.AsyncClient) -> None:
    asked = (await client.get(f"{HERE}/redrive?pending=1&redirect=1")).text
    fields = dict(re.findall(r'name="(\w+)" value="([^"]*)"', asked))
    done = await act(client, f"{HERE}/redrive", **fields)
    after = await stored(place)

    assert "<strong>2</strong> waiting deliveries" in asked
    assert "<strong>2</strong> deliveries redirected." in done.text
    assert [row[2] for row in after] == [WRONG, WRONG, PRESENT, PRESENT]


async def test_deliveries_that_wait_are_discarded_one_or_all(place: House, client: httpx.AsyncClient) -> None:
    await act(client, one="discard-3")  # as if it were in the list of given-up ones
    reply = await act(client, one="discard-3", pending="true")
    left = await stored(place)
    await act(client, f"{HERE}/discard", pending="true", after="0", done="0", total="1")
    after = await stored(place)

    assert "1 delivery discarded." in reply.text
    assert [each[0] for each in left] == [1, 2, 4]
    assert [each[:2] for each in after] == [(1, True), (2, True)]
