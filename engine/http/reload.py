"""SIGHUP: an engine that serves reads its credentials again. What is wrong with them changes nothing, and is logged."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio
import anyio.to_thread
import structlog
from anyio.abc import TaskStatus

from engine.config.settings import AuthSettings
from engine.errors import SettingsError
from engine.http.auth import Authenticator

log = structlog.get_logger("functiond")


@asynccontextmanager
async def reloading(
    authenticator: Authenticator | None, read: Callable[[], AuthSettings] | None
) -> AsyncIterator[None]:
    """While the block is entered. ``read`` blocks, and raises SettingsError.

    An engine that is open to its machine stays so until it is started again, and SIGHUP ends it, as without this.
    """
    if authenticator is None or read is None:
        yield
        return
    async with anyio.create_task_group() as tasks:
        await tasks.start(_follow, authenticator, read)
        yield
        tasks.cancel_scope.cancel()


async def _follow(
    authenticator: Authenticator, read: Callable[[], AuthSettings], *, task_status: TaskStatus[None]
) -> None:
    with anyio.open_signal_receiver(signal.SIGHUP) as signals:
        task_status.started()
        async for _ in signals:
            try:
                auth = await anyio.to_thread.run_sync(_read, read)
            except SettingsError as problem:
                log.error("credentials not replaced", problem=str(problem))
                continue
            authenticator.replace(auth.keys, auth.tokens)
            log.info("credentials replaced", keys=len(auth.keys), tokens=len(auth.tokens))


def _read(read: Callable[[], AuthSettings]) -> AuthSettings:
    auth = read()
    if not auth.required:
        raise SettingsError("there are no credentials any more: start the engine again to open it to its machine")
    return auth
