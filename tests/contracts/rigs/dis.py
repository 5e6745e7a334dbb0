"""DIS: external endpoint, served by another engine."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Self

import httpx
from anyio.from_thread import BlockingPortal, start_blocking_portal

from engine.app.api_wiring import build_app
from engine.app.parts import EngineParts
from engine.asgi.listener import listen
from plugins.dis import plugin
from tests.contracts.rigs import base
from tests.support.streams import Dis
from tests.support.triggering import house


class Rig(base.Rig):
    kind = "DIS"
    may_disable = False
    bad = (
        ({"stream_name": ""}, "stream_name"),
        ({"polling_interval": 60_001}, "polling_interval"),
        ({"sharditerator_type": "NEWEST"}, "sharditerator_type"),
    )
    change = {"batch_size": 7}
    breakable = True

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._listener = ExitStack()
        self._portal: BlockingPortal
        self._engine: EngineParts
        self._port = 0

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Self]:
        with (  # run in a thread of its own, as the fixture enters and leaves this in different tasks
            start_blocking_portal() as self._portal,
            self._portal.wrap_async_context_manager(house(self.folder / "dis", [plugin])) as place,
            self._listener,
        ):
            self._engine = place.engine
            await self.mends()
            self.settings["plugins.dis.endpoint"] = f"http://127.0.0.1:{self._port}"
            self.settings["plugins.dis.project_id"] = "theirs"
            async with self._client() as client:
                await client.create(partitions=2)
            yield self

    @asynccontextmanager
    async def _client(self) -> AsyncIterator[Dis]:
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{self._port}", trust_env=False, verify=False
        ) as client:
            yield Dis(client, "theirs")

    def options(self) -> dict[str, Any]:
        return {
            "stream_name": "clicks",
            "sharditerator_type": "TRIM_HORIZON",
            "polling_interval": 5,
            "polling_unit": "ms",
            "is_serial": "false",
            "batch_size": 10,
        }

    async def send(self, target: base.Target, number: int) -> bool:
        async with self._client() as client:
            await client.put(str(number))
        return True

    def numbers(self, event: Any) -> list[int]:
        return [int(base64.b64decode(record["data"])) for record in event["Message"]["records"]]

    async def breaks(self) -> None:
        self._listener.close()

    async def mends(self) -> None:
        app = build_app(self._engine)
        listener = self._portal.wrap_async_context_manager(listen(app, "127.0.0.1", self._port))
        self._port = self._listener.enter_context(listener)
