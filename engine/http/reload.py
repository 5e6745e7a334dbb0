"""Reload of credentials on SIGHUP. If the new ones are invalid, the error is logged and the old ones stay valid."""

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
    """Reload credentials on SIGHUP until the block ends.

    ``read`` returns the new credentials. It may block, so it runs in a thread, and may raise SettingsError. An engine
    that was started without credentials runs without them until it is restarted. SIGHUP then has its default effect
    and ends the process, as it does without ``read``.
    """
    if authenticator is None or read is None:
        yield
        return
    async with anyio.create_task_group() as tasks:
        await tasks.start(_reload_on_signal, authenticator, read)
        yield
        tasks.cancel_scope.cancel()


async def _reload_on_signal(
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
        raise SettingsError("no credentials are configured any more; restart the engine to run it without credentials")
    return auth
