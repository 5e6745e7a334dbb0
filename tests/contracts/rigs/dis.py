"""DIS: external endpoint, served by another engine."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar, Self
from unittest.mock import patch

import anyio
import httpx
from anyio.from_thread import BlockingPortal, start_blocking_portal

from engine.app.api_wiring import build_apps
from engine.app.parts import EngineParts
from engine.asgi.listener import listen
from plugins.dis import plugin, streams
from tests.contracts.rigs import base
from tests.doubles import ManualClock
from tests.support.streams import Dis
from tests.support.triggering import house


class Rig(base.Rig):
    kind = "DIS"
    may_disable = False
    change = {"batch_size": 7}
    breakable = True
    parts = ("same", "fewer", "more")
    serial: ClassVar[dict[str, Any]] = {"is_serial": "true", "batch_size": 3}
    counts_removed = False  # a remote endpoint does not say what it has deleted
    expires = True

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._listener = ExitStack()
        self._portal: BlockingPortal
        self._engine: EngineParts
        self._port = 0
        self._clock = ManualClock(1_800_000_000.0)

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Self]:
        with (  # in a thread of its own, as the suite lets the loop of the engine under test stand still
            start_blocking_portal() as self._portal,
            patch.object(streams, "SWEEP", 0.005),
            self._portal.wrap_async_context_manager(house(self.folder / "dis", [plugin], clock=self._clock)) as place,
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

    async def remove(self, target: base.Target) -> None:
        async with self._client() as client:
            assert (await client.ask("DELETE", "streams/clicks")).is_success

    async def restore(self, target: base.Target, parts: str) -> None:
        async with self._client() as client:
            await client.create(partitions={"same": 2, "fewer": 1, "more": 3}[parts])

    async def expire(self) -> None:
        self.age(25 * 3600)
        async with self._client() as client:
            while await client.texts(part="0") or await client.texts(part="1"):  # noqa: ASYNC110  (retention sets no event)
                await anyio.sleep(0.005)

    def age(self, seconds: float) -> None:
        self._clock.advance(seconds)

    async def breaks(self) -> None:
        self._listener.close()

    async def mends(self) -> None:
        app = build_apps(self._engine)[0]
        listener = self._portal.wrap_async_context_manager(listen(app, "127.0.0.1", self._port))
        self._port = self._listener.enter_context(listener)


class Own(Rig):
    """Streams of the engine under test."""

    counts_removed = True
    inside = True
    breakable = False

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.clock = self._clock
        self._url = ""

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Self]:
        with patch.object(streams, "SWEEP", 0.005):
            yield self

    @asynccontextmanager
    async def _client(self) -> AsyncIterator[Dis]:
        async with httpx.AsyncClient(base_url=self._url, trust_env=False, verify=False) as client:
            yield Dis(client)

    async def send(self, target: base.Target, number: int) -> bool:
        if not self._url:
            self._url = target.url
            await self.restore(target, "same")
        self._url = target.url
        return await super().send(target, number)
