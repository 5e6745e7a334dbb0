"""Reload of credentials and of the TLS certificate when the process receives SIGHUP.

If the new ones are invalid, the error is logged and the previous ones stay valid. Neither prevents the reload of the
other.
"""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from functools import partial

import anyio
import anyio.to_thread
import structlog
from anyio.abc import TaskStatus

from engine.asgi.tls import ServerTls
from engine.config.settings import AuthSettings
from engine.errors import SettingsError
from engine.http.auth import Authenticator
from engine.http.console.session.sessions import Sessions

#: Replaces something, and returns what is logged about it.
_Replace = Callable[[], Awaitable[dict[str, int]]]

log = structlog.get_logger("functiond")


@asynccontextmanager
async def reloading(
    authenticator: Authenticator | None,
    sessions: Sessions,
    read: Callable[[], AuthSettings] | None,
    tls: ServerTls | None = None,
    *,
    report: Callable[[], AbstractContextManager[object]] | None = None,
) -> AsyncIterator[None]:
    """Replace the credentials of ``authenticator`` and the certificate of ``tls`` at each SIGHUP, until the block ends.

    The sessions of the console whose credentials are removed end at once.

    ``read`` returns the new credentials. If it raises SettingsError, or returns no credentials, the previous ones stay
    valid. Files are read in a thread, because that may block. An engine started without credentials needs a restart to
    require them, and one started without TLS to use it.

    ``report`` makes a context in which each reload runs. Without it, if there is nothing to replace, SIGHUP keeps its
    default effect and ends the process.
    """
    replaced: dict[str, _Replace] = {}
    if authenticator is not None and read is not None:
        replaced["credentials"] = partial(_replace_credentials, authenticator, sessions, read)
    if tls is not None:
        replaced["certificate"] = partial(_replace_certificate, tls)
    if not replaced and report is None:
        yield
        return
    async with anyio.create_task_group() as tasks:
        await tasks.start(_reload_on_signal, replaced, report or nullcontext)
        yield
        tasks.cancel_scope.cancel()


async def _replace_credentials(
    authenticator: Authenticator, sessions: Sessions, read: Callable[[], AuthSettings]
) -> dict[str, int]:
    auth = await anyio.to_thread.run_sync(read)
    if not auth.required:
        raise SettingsError("no credentials are configured any more; restart the engine to run it without credentials")
    authenticator.replace(auth.keys, auth.tokens)
    await sessions.retain(authenticator.principals)
    return {"keys": len(auth.keys), "tokens": len(auth.tokens)}


async def _replace_certificate(tls: ServerTls) -> dict[str, int]:
    await anyio.to_thread.run_sync(tls.reload)
    return {}


async def _reload_on_signal(
    replaced: Mapping[str, _Replace],
    report: Callable[[], AbstractContextManager[object]],
    *,
    task_status: TaskStatus[None],
) -> None:
    with anyio.open_signal_receiver(signal.SIGHUP) as signals:
        task_status.started()
        async for _ in signals:
            with report():
                for name, replace in replaced.items():
                    await _replace(name, replace)


async def _replace(name: str, replace: _Replace) -> None:
    try:
        counts = await replace()
    except SettingsError as problem:
        log.error(f"{name} not replaced", problem=str(problem))
    else:
        log.info(f"{name} replaced", **counts)
