"""Deliveries whose destination was corrected: sent to the present one, or discarded, in the console and by the API."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from engine.config.plugin_registry import load_plugins
from engine.http.console.paths import HOME
from engine.model import DestinationSpec
from engine.protocols import DeliveryFilter
from tests.contracts.storage import ended
from tests.support.console import form_token
from tests.support.http_app import PROJECT
from tests.support.triggering import House, api_client, house

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
        found += [(one.delivery_id, given_up, one.destination) for one in page]
    return sorted(found, key=lambda one: one[0])


async def act(client: httpx.AsyncClient, path: str = HERE, **fields: Any) -> httpx.Response:
    data = {**fields, "form_token": await form_token(client, HERE)}
    return await client.post(path, data=data, follow_redirects=True)


async def test_one_delivery_is_redirected_to_the_present_destination(tmp_path: Path) -> None:
    async with console(tmp_path) as (place, client):
        page = (await client.get(HERE)).text
        sent = await act(client, one="redirect-3")
        after = await stored(place)

    assert page.count(">Redirect</button>") == 4
    assert "1 delivery sent to the present destination." in sent.text
    assert [one[:2] for one in after if one[2] == PRESENT] == [(3, False)]


async def test_all_deliveries_of_a_list_are_redirected(tmp_path: Path) -> None:
    async with console(tmp_path) as (place, client):
        asked = (await client.get(f"{HERE}/redrive?pending=1&redirect=1")).text
        fields = dict(re.findall(r'name="(\w+)" value="([^"]*)"', asked))
        done = await act(client, f"{HERE}/redrive", **fields)
        after = await stored(place)

    assert "<strong>2</strong> waiting deliveries" in asked
    assert "<strong>2</strong> deliveries redirected." in done.text
    assert [one[2] for one in after] == [WRONG, WRONG, PRESENT, PRESENT]


async def test_deliveries_that_wait_are_discarded_one_or_all(tmp_path: Path) -> None:
    async with console(tmp_path) as (place, client):
        await act(client, one="discard-3")  # as if it were in the list of given-up ones
        one = await act(client, one="discard-3", pending="true")
        left = await stored(place)
        await act(client, f"{HERE}/discard", pending="true", after="0", done="0", total="1")
        after = await stored(place)

    assert "1 delivery discarded." in one.text
    assert [each[0] for each in left] == [1, 2, 4]
    assert [each[:2] for each in after] == [(1, True), (2, True)]
