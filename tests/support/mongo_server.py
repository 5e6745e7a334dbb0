"""MongoDB-compatible server SecantusDB in a process of its own, as a replica set of one.

SecantusDB is licensed under the GPL. It is installed into a virtual environment in the user's cache on first use,
and the tests use it over its port only.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio.to_thread
from pymongo import AsyncMongoClient

from plugins.dds.options import USER
from tests.support.own_environment import own_environment
from tests.support.ports import free_port
from tests.support.server_process import ServerProcess

PACKAGE = "secantusdb==0.7.0b3"
PASSWORD = "secret of rwuser"
DATABASE, COLLECTION = "shop", "orders"


class MongoServer(ServerProcess):
    """Server that can be restarted on the same port with its stored data."""

    def __init__(self, program: Path, folder: Path) -> None:
        super().__init__()
        self._program, self._folder = program, folder
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"

    async def run(self, *options: str | Path) -> None:
        place = ("--host", "127.0.0.1", "--port", str(self.port), "--storage-path", self._folder)
        durable = ("--sync-on-commit", "--enable-test-commands")  # no reported change may be lost
        # The server reads a settings file from its working directory.
        await self.start(self._program, *place, *durable, *options, port=self.port, cwd=self._program.parent)

    @asynccontextmanager
    async def client(self, **how: Any) -> AsyncIterator[AsyncMongoClient[dict[str, Any]]]:
        """Return a new client; a client belongs to one event loop."""
        async with AsyncMongoClient[dict[str, Any]](self.address, serverMonitoringMode="poll", **how) as client:
            yield client

    async def insert(self, *numbers: int, collection: str = COLLECTION, **how: Any) -> None:
        async with self.client(**how) as client:
            await client[DATABASE][collection].insert_many([{"number": number} for number in numbers])

    async def fail(self, command: str, times: int = 1, **how: Any) -> None:
        """Make the server fail a command."""
        data = {"failCommands": [command], **how}
        point = {"configureFailPoint": "failCommand", "mode": {"times": times}, "data": data}
        async with self.client() as client:
            await client.admin.command(point)


@asynccontextmanager
async def mongo_server(folder: Path) -> AsyncIterator[MongoServer]:
    """Run the server until the block is left, with DDS's default user; ``folder`` holds its data."""
    server = MongoServer(await anyio.to_thread.run_sync(_program), folder)
    await server.run()
    try:
        async with server.client() as client:
            await client.admin.command("createUser", USER, pwd=PASSWORD, roles=["root"])
        yield server
    finally:
        await server.kill()


def _program() -> Path:
    return own_environment(PACKAGE, "MongoDB server to try") / "bin" / "secantusd-py"
