"""Redrive and removal of deliveries over HTTP: by id, by filter, and in steps."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from engine.http.api.routing import own_urn
from engine.model import DestinationSpec, PendingDelivery
from tests.support.http_app import PROJECT, REGION, Api, serve

PATH = f"/v2/{PROJECT}/fgs/deliveries"
HOOK = DestinationSpec(destination="WEBHOOK", param=json.dumps({"url": "https://example.com/a"}))
TOPIC = DestinationSpec(destination="SMN", param="{}")


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    """Serve an API with given-up deliveries 1 to 6 of two functions, and a pending one, 7."""
    async with serve(tmp_path) as api:
        kept = api.storage
        for name in ("hello", "other"):
            await api.create(name)
        ids = [api.catalog.find(own_urn(name, PROJECT, REGION)).function_id for name in ("hello", "other")]
        for number in range(1, 8):
            one = PendingDelivery(
                delivery_id=number,
                key=number,
                function_id=ids[number % 2],
                condition="failure",
                destination=HOOK if number < 5 else TOPIC,
                due_at=1.0 if number == 7 else math.inf,
                tries=1,
                error="refused",
                since=0.0,
            )
            (kept.deliveries if number == 7 else kept.given_up)[number] = one
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
