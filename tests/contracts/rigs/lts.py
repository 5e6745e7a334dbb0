"""LTS: sender of lines to a project's default stream."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
from msgspec.structs import replace

from engine import project_log_target
from plugins.lts import plugin
from tests.contracts.rigs import base
from tests.support.logs import Lts, messages
from tests.support.triggering import api_client, house

#: Plugin that stores lines but has no trigger source.
WITHOUT_SOURCE = replace(plugin, trigger=None)


class Rig(base.Rig):
    kind = "LTS"
    bad = (({"log_group_id": ""}, "log_group_id"), ({"log_topic_id": 5}, "log_topic_id"))
    change = {"unknown": "and passed over"}

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.settings["plugins.lts.batch_wait"] = 0.01

    def options(self) -> dict[str, Any]:
        target = project_log_target(self.project)
        return {"log_group_id": target.group_id, "log_topic_id": target.stream_id}

    async def send(self, target: base.Target, number: int) -> bool:
        if target.url:
            async with httpx.AsyncClient(base_url=target.url, trust_env=False, verify=False) as client:
                return await self._send(client, number)
        async with house(self.folder / "data", [WITHOUT_SOURCE]) as place, api_client(place) as client:
            return await self._send(client, number)

    async def _send(self, client: httpx.AsyncClient, number: int) -> bool:
        lts = Lts(client, self.project)
        lts.group, lts.stream = self.options().values()
        return (await lts.try_to_send(str(number))).is_success

    def numbers(self, event: Any) -> list[int]:
        return [int(text) for text in messages([event])]
