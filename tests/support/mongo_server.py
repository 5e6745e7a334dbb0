"""A real server that speaks MongoDB's protocol, as a process of its own: SecantusDB, a replica set of one.

It is licensed under the GPL: it lives in an environment of its own in the user's cache, made when it is first wanted,
and talks to the tests over its port only.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio.to_thread
import pytest
from pymongo import AsyncMongoClient

from plugins.dds.settings import USER
from tests.support.ports import free_port
from tests.support.server_process import ServerProcess

PACKAGE = "secantusdb==0.7.0b3"
PASSWORD = "secret of rwuser"
DATABASE, COLLECTION = "shop", "orders"


class MongoServer(ServerProcess):
    """One that runs, or will again on the same port with what it has kept."""

    def __init__(self, program: Path, folder: Path) -> None:
        super().__init__()
        self._program, self._folder = program, folder
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"

    async def run(self, *options: str | Path) -> None:
        place = ("--host", "127.0.0.1", "--port", str(self.port), "--storage-path", self._folder)
        durable = ("--sync-on-commit", "--enable-test-commands")  # no change may be told and forgotten
        # It looks for a file of settings where it runs.
        await self.start(self._program, *place, *durable, *options, port=self.port, cwd=self._program.parent)

    @asynccontextmanager
    async def client(self, **how: Any) -> AsyncIterator[AsyncMongoClient[dict[str, Any]]]:
        """A new one, since each belongs to one event loop."""
        async with AsyncMongoClient[dict[str, Any]](self.address, serverMonitoringMode="poll", **how) as client:
            yield client

    async def insert(self, *numbers: int, collection: str = COLLECTION, **how: Any) -> None:
        async with self.client(**how) as client:
            await client[DATABASE][collection].insert_many([{"number": number} for number in numbers])

    async def fail(self, command: str, times: int = 1, **how: Any) -> None:
        """Let the server fail at a command."""
        data = {"failCommands": [command], **how}
        point = {"configureFailPoint": "failCommand", "mode": {"times": times}, "data": data}
        async with self.client() as client:
            await client.admin.command(point)


@asynccontextmanager
async def mongo_server(folder: Path) -> AsyncIterator[MongoServer]:
    """Runs while the block is entered, with the vendor's user; ``folder`` holds what it has kept."""
    server = MongoServer(await anyio.to_thread.run_sync(_program), folder)
    await server.run()
    try:
        async with server.client() as client:
            await client.admin.command("createUser", USER, pwd=PASSWORD, roles=["root"])
        yield server
    finally:
        await server.kill()


def home() -> Path:
    """Where its environment is, or will be."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "functiond-tests" / PACKAGE


def _program() -> Path:
    place = home()
    place.parent.mkdir(parents=True, exist_ok=True)
    with open(place.parent / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not ((place / "ready").exists() and (place / "bin" / "python").exists()):  # its interpreter may be gone
            _install(place)
            (place / "ready").touch()
    return place / "bin" / "secantusd-py"


def _install(place: Path) -> None:
    make, fill = ("-m", "venv", "--clear", place), ("-m", "pip", "install", "-q", PACKAGE)
    for python, command in ((sys.executable, make), (place / "bin" / "python", fill)):
        done = subprocess.run([python, *command], capture_output=True, text=True)
        if done.returncode:
            why = (done.stderr or done.stdout).strip().rpartition("\n")[2]
            pytest.skip(f"there is no MongoDB server to try: {PACKAGE} cannot be installed in {place}: {why}")
