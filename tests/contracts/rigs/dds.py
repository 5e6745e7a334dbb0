"""DDS: collection of a database with durable data, read by its change stream."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

from tests.contracts.rigs import base
from tests.support.mongo_server import COLLECTION, DATABASE, PASSWORD, MongoServer, mongo_server


class Rig(base.Rig):
    kind = "DDS"
    breakable = True
    change = {"batch_size": 2}
    parts = ("same",)

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.settings = {"plugins.dds.batch_wait": 0.0, "plugins.dds.timeout": 0.5}

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Self]:
        async with mongo_server(self.folder / "mongo") as server:
            self._server: MongoServer = server
            yield self

    def options(self) -> dict[str, Any]:
        place = {"db_name": DATABASE, "collection_name": COLLECTION, "instance_addrs": [self._server.address]}
        return {"instance_id": "i", "db_password": PASSWORD, "batch_size": 100, **place}

    async def send(self, target: base.Target, number: int) -> bool:
        await self._server.insert(number)
        return True

    def numbers(self, event: Any) -> list[int]:
        return [json.loads(record["dds"]["full_document"])["number"] for record in event["records"]]

    async def remove(self, target: base.Target) -> None:
        async with self._server.client() as client:
            await client[DATABASE].drop_collection(COLLECTION)

    async def restore(self, target: base.Target, parts: str) -> None:
        async with self._server.client() as client:
            await client[DATABASE].create_collection(COLLECTION)

    async def breaks(self) -> None:
        await self._server.kill()

    async def mends(self) -> None:
        await self._server.run()
