"""A real server that speaks MongoDB's protocol, as a process of its own: SecantusDB, a replica set of one.

It is licensed under the GPL: it lives in an environment of its own in the user's cache, made when it is first wanted,
and talks to the tests over its port only.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import subprocess
import sys
from asyncio.subprocess import DEVNULL
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from pymongo import AsyncMongoClient

from plugins.dds.settings import USER
from tests.gateways import free_port

PACKAGE = "secantusdb==0.7.0b3"
PASSWORD = "secret of rwuser"
DATABASE, COLLECTION = "shop", "orders"


class MongoServer:
    """One that runs, or will again on the same port with what it has kept."""

    def __init__(self, program: Path, folder: Path) -> None:
        self._program, self._folder = program, folder
        self._process: asyncio.subprocess.Process | None = None
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"

    async def start(self, *options: str) -> None:
        self._process = await asyncio.create_subprocess_exec(
            self._program,
            *("--host", "127.0.0.1", "--port", str(self.port), "--storage-path", self._folder),
            *("--sync-on-commit", "--enable-test-commands", *options),  # no change may be told and forgotten
            stdout=DEVNULL,
            stderr=DEVNULL,
            cwd=self._program.parent,  # it looks for a file of settings there
        )
        with anyio.fail_after(20):
            while not await _answers(self.port):
                assert self._process.returncode is None, "the server did not start"
                await anyio.sleep(0.02)

    async def kill(self) -> None:
        assert self._process is not None
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()

    @asynccontextmanager
    async def client(self) -> AsyncIterator[AsyncMongoClient[dict[str, Any]]]:
        """A new one, since each belongs to one event loop."""
        async with AsyncMongoClient[dict[str, Any]](self.address, serverMonitoringMode="poll") as client:
            yield client

    async def insert(self, *numbers: int, collection: str = COLLECTION) -> None:
        async with self.client() as client:
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
    await server.start()
    try:
        async with server.client() as client:
            await client.admin.command("createUser", USER, pwd=PASSWORD, roles=["root"])
        yield server
    finally:
        await server.kill()


def _program() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "functiond-tests"
    cache.mkdir(parents=True, exist_ok=True)
    home = cache / f"{PACKAGE}-py{sys.version_info.major}{sys.version_info.minor}"
    with open(cache / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (home / "ready").exists():
            _install(home)
            (home / "ready").touch()
    return home / "bin" / "secantusd-py"


def _install(home: Path) -> None:
    commands = f"{sys.executable} -m venv --clear {home}", f"{home}/bin/pip install -q {PACKAGE}"
    for command in map(str.split, commands):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"there is no MongoDB server to try: {PACKAGE} cannot be installed in {home}: {done.stderr}")


async def _answers(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    await writer.wait_closed()
    return True
