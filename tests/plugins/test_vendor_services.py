"""Requests to services of plugins with a wrong method, or with fields that an operation does not have."""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from engine.asgi.ignored_fields import LONGEST_BODY, MOST_ENTRIES
from engine.http.plugin_requests import variables
from engine.protocols import Operation
from plugins.dis import plugin as dis
from plugins.lts import plugin as lts
from plugins.smn import plugin as smn
from tests.support.http_app import PROJECT
from tests.support.triggering import api_client, house, until

#: Fields of an error of each service, by the beginning of its operations' names.
SHAPES = {
    "Smn": {"request_id", "code", "message"},
    "Dis": {"errorCode", "message", "error_code", "error_msg"},
    "Lts": {"errorCode", "error_code", "error_msg"},
}
METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
IGNORED = "x-functiond-ignored-fields"
BASE = f"/v2/{PROJECT}"


@asynccontextmanager
async def services(folder: Path) -> AsyncIterator[tuple[Sequence[Operation], httpx.AsyncClient]]:
    """Run an engine with the services, and yield their operations and an HTTP client."""
    async with house(folder, [smn, dis, lts]) as place, api_client(place) as client:
        mounts = place.engine.plugins.mounts
        await until(lambda: {operation.name[:3] for operation in mounts.operations()} == set(SHAPES))
        yield mounts.operations(), client


async def test_a_wrong_method_is_answered_with_those_of_the_path_and_an_unknown_path_not_found(tmp_path: Path) -> None:
    async with services(tmp_path) as (operations, client):
        for operation in operations:
            path = operation.path.replace("{project_id}", PROJECT).replace("{", "a-").replace("}", "")
            right = {other.method for other in operations if variables(other.path, path.split("/")) is not None}
            right |= {"HEAD"} if "GET" in right else set()
            for wrong in METHODS - right:
                reply = await client.request(wrong, path)

                assert reply.status_code == 405, (wrong, path, reply.text)
                assert set(reply.headers["allow"].split(", ")) == right, path
                if wrong != "HEAD":
                    assert set(reply.json()) == SHAPES[operation.name[:3]]
                    assert f"method not allowed; use {reply.headers['allow']}" in reply.json().values()
        for path in ("streams/a/b", "notifications/topics/a/b", "groups/a/b", "smn_topic/a"):
            reply = await client.post(f"{BASE}/{path}")
            assert (reply.status_code, reply.headers.get("allow")) == (404, None), path


async def test_unknown_fields_are_told_and_logged_once(tmp_path: Path) -> None:
    async with services(tmp_path) as (_, client):
        stream = {"stream_name": "orders", "partition_count": 1}
        records = [{"data": "eA==", "partition_key": "a", "colour": 1}]
        tags = {"action": "create", "tags": [{"key": "a", "valeu": "b"}], "sys_tags": []}
        requests: list[tuple[str, str, Any, str | None]] = [
            ("POST", "notifications/topics", {"name": "orders", "display": "x", "tags": None}, "display"),
            ("POST", "notifications/topics", {"name": "orders", "display": "x"}, "display"),
            ("POST", "notifications/topics", {"name": "orders", "display_name": "x"}, None),
            ("POST", "streams", {**stream, "compression_format": "zip"}, "compression_format"),
            ("POST", "records", {"stream_name": "orders", "records": records}, "records.colour"),
            ("POST", "groups", {"log_group_name": "g", "ttl_in_days": 1, "ttl": 2}, "ttl"),
        ]
        with capture_logs() as logs:
            for method, path, body, told in requests:
                reply = await client.request(method, f"{BASE}/{path}", json=body)
                assert (reply.is_success, reply.headers.get(IGNORED)) == (True, told), reply.text
            topic = (await client.get(f"{BASE}/notifications/topics")).json()["topics"][0]["topic_id"]
            tagged = await client.post(f"{BASE}/smn_topic/{topic}/tags/action", json=tags)
        known = {"data": "eA==", "partition_key": "a"}
        long = [known] * (MOST_ENTRIES - 1) + [{**known, "in_reach": 1}, {**known, "out_of_reach": 1}]
        reached = await client.post(f"{BASE}/records", json={"stream_name": "orders", "records": long})

        assert (reached.status_code, reached.headers[IGNORED]) == (200, "records.in_reach")
        assert (tagged.status_code, tagged.headers[IGNORED]) == (204, "tags.valeu, sys_tags")
        lines = [line for line in logs if line["event"] == "unknown fields ignored"]
        assert [(line["operation"].replace("/v2/{project_id}/", ""), line["fields"]) for line in lines] == [
            ("POST notifications/topics", ["display"]),
            ("POST streams", ["compression_format"]),
            ("POST records", ["records.colour"]),
            ("POST groups", ["ttl"]),
            ("POST smn_topic/{resource_id}/tags/action", ["tags.valeu", "sys_tags"]),
        ]


async def test_unknown_fields_of_compressed_lines_are_told(tmp_path: Path) -> None:
    async with services(tmp_path) as (_, client):
        group = (await client.post(f"{BASE}/groups", json={"log_group_name": "g", "ttl_in_days": 1})).json()[
            "log_group_id"
        ]
        created = await client.post(f"{BASE}/groups/{group}/streams", json={"log_stream_name": "s"})
        body = {"contents": [{"log_time_ns": 1, "log": "a", "level": "INFO"}]}

        reply = await client.post(
            f"{BASE}/lts/groups/{group}/streams/{created.json()['log_stream_id']}/tenant/contents/high-accuracy",
            content=gzip.compress(json.dumps(body).encode()),
            headers={"content-encoding": "gzip"},
        )

        assert (reply.status_code, reply.headers[IGNORED]) == (200, "contents.level")


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        (b'\n {"name": "a", "naem": 1}', 201, "naem"),
        (b'{"name": "a", "\xff": 1}', 400, None),
        (b'{"name": "a", "naem": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400, None),
        (b'{"name": "a", "naem": "%s"}' % (b"x" * LONGEST_BODY), 201, None),
    ],
)
async def test_unusual_bodies_are_read_as_others(tmp_path: Path, body: bytes, status: int, told: str | None) -> None:
    async with services(tmp_path) as (_, client):
        reply = await client.post(f"{BASE}/notifications/topics", content=body)

        assert (reply.status_code, reply.headers.get(IGNORED)) == (status, told)
