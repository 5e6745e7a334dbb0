"""Reload of access keys and tokens when the process receives SIGHUP.

If the new credentials are invalid, the error is logged and the previous ones stay valid.
"""

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
    """Replace the credentials of ``authenticator`` at each SIGHUP, until the block ends.

    ``read`` returns the new credentials. It runs in a thread, because it may block. If it raises SettingsError, or
    returns no credentials, the previous ones stay valid. If ``authenticator`` or ``read`` is None, SIGHUP keeps its
    default effect and ends the process. An engine started without credentials therefore needs a restart to require
    them.
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
