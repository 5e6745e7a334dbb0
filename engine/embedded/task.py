"""Task that runs an engine on the event loop of a program."""

from __future__ import annotations

import asyncio

from engine.embedded.hosting import Host, Started


class EngineTask:
    """Task of its own, so that the tasks of the program may start and stop the engine in any order."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._started: asyncio.Future[Started] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(host.run(self._started.set_result), name="functiond-engine")

    async def start(self) -> Started:
        """Wait until the engine accepts requests. Raises the errors of its start."""
        try:
            await asyncio.wait((self._task, self._started), return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            await self.stop()
            raise
        if not self._started.done():
            await self._task
        return self._started.result()

    async def stop(self) -> None:
        """Stop the engine after the grace period, which a cancellation ends. Raises the error that ended it."""
        self._host.stop()
        try:
            await asyncio.wait((self._task,))
        except asyncio.CancelledError:
            self._host.end_grace()
            await asyncio.wait((self._task,))
            raise
        await self._task
