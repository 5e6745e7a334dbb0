"""LTS: sender of lines to a project's default stream."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self
from unittest.mock import patch

import anyio
import httpx
from msgspec.structs import replace

from engine import project_log_target
from plugins.lts import lines, plugin, service
from plugins.lts.groups import stream_name
from plugins.lts.lines import Item, Lines, encoded
from tests.contracts.rigs import base
from tests.doubles import ManualClock
from tests.support.logs import Lts, messages
from tests.support.triggering import api_client, house

#: Plugin that stores lines but has no trigger source.
WITHOUT_SOURCE = replace(plugin, trigger=None)


class Rig(base.Rig):
    kind = "LTS"
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


class Written(Rig):
    """Stream that a function writes to, and that nobody has created."""

    parts = ("same",)
    inside = True
    expires = True

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.settings |= {"plugins.lts.retention": 1}
        self.clock = self._clock = ManualClock(1_800_000_000.0)
        self._lines: Lines

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Self]:
        with patch.object(service, "SWEEP", 0.005):
            yield self

    @property
    def _stream(self) -> str:
        return stream_name(self.project, *self.options().values())

    def options(self) -> dict[str, Any]:
        return {"log_group_id": "shop", "log_topic_id": "web"}

    async def send(self, target: base.Target, number: int) -> bool:
        self._lines = target.place.engine.plugins.of(plugin).service.lines
        item = Item(message=str(number), time=0, host_name="", ip="", path="", log_uid="", line_no=number)
        written = lines.Written(stream=self._stream, items=list(encoded([item])), function="default:other", hops=1)
        await self._lines.append([written])
        return True

    async def remove(self, target: base.Target) -> None:
        await self._lines.drop(self._stream)

    async def restore(self, target: base.Target, parts: str) -> None: ...

    async def expire(self) -> None:
        self.age(25 * 3600)
        while True:
            begin, end = self._lines.span(self._stream)
            if begin == end:
                return
            await anyio.sleep(0.005)

    def age(self, seconds: float) -> None:
        self._clock.advance(seconds)
