"""Server process that a test starts, kills and restarts."""

from __future__ import annotations

import asyncio
from asyncio.subprocess import DEVNULL
from collections.abc import Mapping
from pathlib import Path

import anyio


class ServerProcess:
    """Server process, running or not yet started."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None

    async def start(
        self, *command: str | Path, port: int, env: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> None:
        """Start the server and return when its port accepts connections."""
        process = await asyncio.create_subprocess_exec(*command, stdout=DEVNULL, stderr=DEVNULL, env=env, cwd=cwd)
        self._process = process
        with anyio.fail_after(90):
            while not await _answers(port):
                assert process.returncode is None, f"{command[0]} did not start"
                await anyio.sleep(0.02)

    async def kill(self) -> None:
        assert self._process is not None
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()


async def _answers(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    await writer.wait_closed()
    return True
