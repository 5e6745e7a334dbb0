"""Reload of credentials and of the TLS certificate when the process receives SIGHUP.

If the new ones are invalid, the error is logged and the previous ones stay valid. Neither prevents the reload of the
other.
"""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext

import anyio
import anyio.to_thread
import structlog
from anyio.abc import TaskStatus

from engine.asgi.tls import ServerTls
from engine.config.settings import AuthSettings
from engine.errors import SettingsError
from engine.http.auth import Authenticator
from engine.http.console.sessions import Sessions

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
    replaced: list[_Replaced] = []
    if authenticator is not None and read is not None:
        replaced.append(_Credentials(authenticator, sessions, read))
    if tls is not None:
        replaced.append(_Certificate(tls))
    if not replaced and report is None:
        yield
        return
    async with anyio.create_task_group() as tasks:
        await tasks.start(_reload_on_signal, replaced, report or nullcontext)
        yield
        tasks.cancel_scope.cancel()


class _Credentials:
    name = "credentials"

    def __init__(self, authenticator: Authenticator, sessions: Sessions, read: Callable[[], AuthSettings]) -> None:
        self._authenticator, self._sessions, self._read = authenticator, sessions, read

    async def replace(self) -> dict[str, int]:
        auth = await anyio.to_thread.run_sync(self._read)
        if not auth.required:
            raise SettingsError(
                "no credentials are configured any more; restart the engine to run it without credentials"
            )
        self._authenticator.replace(auth.keys, auth.tokens)
        await self._sessions.retain(self._authenticator.principals)
        return {"keys": len(auth.keys), "tokens": len(auth.tokens)}


class _Certificate:
    name = "certificate"

    def __init__(self, tls: ServerTls) -> None:
        self._tls = tls

    async def replace(self) -> dict[str, int]:
        await anyio.to_thread.run_sync(self._tls.reload)
        return {}


_Replaced = _Credentials | _Certificate


async def _reload_on_signal(
    replaced: Sequence[_Replaced],
    report: Callable[[], AbstractContextManager[object]],
    *,
    task_status: TaskStatus[None],
) -> None:
    with anyio.open_signal_receiver(signal.SIGHUP) as signals:
        task_status.started()
        async for _ in signals:
            with report():
                for one in replaced:
                    await _replace(one)


async def _replace(one: _Replaced) -> None:
    try:
        counts = await one.replace()
    except SettingsError as problem:
        log.error(f"{one.name} not replaced", problem=str(problem))
    else:
        log.info(f"{one.name} replaced", **counts)
