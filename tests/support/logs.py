"""Sender of log lines to LTS, and a decoder of LTS events."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any

import httpx

from tests.support.http_app import PROJECT


class Lts:
    """Client of one project's log streams at an engine."""

    def __init__(self, client: httpx.AsyncClient, project: str = PROJECT) -> None:
        self._client, self._project = client, project
        self.group = self.stream = ""  #: ids of the group and stream created last

    async def ask(self, method: str, path: str, body: Any = None, **more: Any) -> httpx.Response:
        return await self._client.request(method, f"/v2/{self._project}/{path}", json=body, **more)

    async def create(self, group: str = "app", stream: str = "web") -> None:
        made = await self.ask("POST", "groups", {"log_group_name": group, "ttl_in_days": 7})
        assert made.status_code == 201, made.text
        self.group = made.json()["log_group_id"]
        made = await self.ask("POST", f"groups/{self.group}/streams", {"log_stream_name": stream})
        assert made.status_code == 201, made.text
        self.stream = made.json()["log_stream_id"]

    @property
    def options(self) -> dict[str, str]:
        return {"log_group_id": self.group, "log_topic_id": self.stream}

    @property
    def path(self) -> str:
        return f"lts/groups/{self.group}/streams/{self.stream}/tenant/contents"

    async def try_to_send(self, *texts: str, **more: Any) -> httpx.Response:
        body = {"log_time_ns": 1_586_850_540_000_000_000, "contents": texts, "labels": {}, **more}
        return await self.ask("POST", self.path, body)

    async def send(self, *texts: str, **more: Any) -> None:
        reply = await self.try_to_send(*texts, **more)
        assert reply.status_code == 200, reply.text


def told(event: Any) -> dict[str, Any]:
    """Return the log lines that an event carries."""
    data: dict[str, Any] = json.loads(base64.b64decode(event["lts"]["data"]))
    return data


def items(event: Any) -> list[dict[str, Any]]:
    logs = told(event)["logs"]
    entries: list[dict[str, Any]] = json.loads(logs) if isinstance(logs, str) else logs
    return entries


def messages(events: Sequence[Any]) -> list[str]:
    return [item["message"] for event in events for item in items(event)]
