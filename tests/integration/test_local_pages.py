"""Web pages of other programs on this machine, which a browser lets send requests to any local port."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from plugins.dis import plugin as dis
from plugins.eventgrid import plugin as eventgrid
from plugins.lts import plugin as lts
from plugins.smn import plugin as smn
from tests.support.http_app import PROJECT
from tests.support.triggering import api_client, house

PLUGINS = [smn, dis, lts, eventgrid]
#: Requests that change something, one for each service, with the status of their success.
REQUESTS: list[tuple[str, dict[str, Any], int]] = [
    (f"/v2/{PROJECT}/notifications/topics", {"name": "orders"}, 201),
    (f"/v2/{PROJECT}/streams", {"stream_name": "clicks", "partition_count": 1}, 201),
    (f"/v2/{PROJECT}/groups", {"log_group_name": "web", "ttl_in_days": 7}, 201),
]
PAGE = "http://localhost:3000"


async def test_a_page_of_another_port_cannot_send_what_needs_no_preflight(tmp_path: Path) -> None:
    kinds = ("text/plain", "text/plain; a=application/json", "multipart/form-data", None)
    async with house(tmp_path, PLUGINS) as place, api_client(place) as client:
        for (path, body, _), kind in product(REQUESTS, kinds):
            headers = {"Origin": PAGE} | ({"Content-Type": kind} if kind else {})
            reply = await client.post(path, content=json.dumps(body), headers=headers)
            listed = await client.get(path)

            assert reply.status_code == 403, (path, kind)
            assert reply.json() == {
                "error_code": "FSS.0403",
                "error_msg": f"web pages of '{PAGE}' may send JSON only; set Content-Type to application/json",
            }
            assert body[next(iter(body))] not in listed.text, (path, kind)


@pytest.mark.parametrize(
    ("origin", "kind"),
    [("own", "text/plain"), (PAGE, "application/json"), (PAGE, "Application/JSON; charset=utf-8"), ("", "text/plain")],
)
async def test_own_pages_json_and_clients_without_a_page_are_served(tmp_path: Path, origin: str, kind: str) -> None:
    async with house(tmp_path, PLUGINS) as place, api_client(place) as client:
        origin = str(client.base_url) if origin == "own" else origin
        headers = {"Content-Type": kind} | ({"Origin": origin.rstrip("/")} if origin else {})
        for path, body, success in REQUESTS:
            assert (await client.post(path, content=json.dumps(body), headers=headers)).status_code == success, path


async def test_a_page_of_another_port_cannot_send_an_empty_body(tmp_path: Path) -> None:
    async with house(tmp_path) as place, api_client(place) as client:
        path = f"/v2/{PROJECT}/fgs/functions/hello/async-invocations/redrive"
        assert (await client.post(path, headers={"Origin": PAGE})).status_code == 403


async def test_a_page_of_another_port_may_send_cloudevents(tmp_path: Path) -> None:
    async with house(tmp_path, PLUGINS) as place, api_client(place) as client:
        headers = {"Origin": PAGE, "Content-Type": "application/cloudevents+json"}
        reply = await client.post("/triggers/eventgrid", content="{}", headers=headers)

    assert reply.status_code == 404  # no trigger exists
