"""``functiond serve``: run an engine in this process until SIGTERM or SIGINT."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import anyio
from cyclopts import Parameter

from engine.app.parts import EngineParts
from engine.app.service import serve as serve_engine
from engine.cli.banner import greet, greet_demo
from engine.cli.exit_codes import RESTART, USAGE
from engine.config.plugin_registry import load_plugins
from engine.config.search_path import append_current_folder
from engine.config.settings import AuthSettings, Settings, load_settings
from engine.errors import (
    DataDirectoryLocked,
    DataDirectoryUnusable,
    DiskFailing,
    JournalBroken,
    MembershipLost,
    SettingsError,
)
from engine.errors.files import is_file_problem, unusable
from engine.errors.groups import leaves
from engine.metrics.prometheus import configure_logging

_FATAL = (JournalBroken, MembershipLost)
_RESTART = (*_FATAL, DiskFailing)
_EXPECTED = (SettingsError, DataDirectoryLocked, DataDirectoryUnusable, *_FATAL)


def serve(
    *,
    data_dir: Path | None = None,
    host: str | None = None,
    port: int | None = None,
    tls_cert: Path | None = None,
    tls_key: Path | None = None,
    log_format: Literal["console", "json"] | None = None,
    log_level: Literal["debug", "info", "warning", "error"] | None = None,
    config: Annotated[Path | None, Parameter(env_var="FUNCTIOND_CONFIG")] = None,
    plugin: Annotated[tuple[str, ...], Parameter(negative="", show_default=False)] = (),
    demo: Annotated[bool, Parameter(negative="", show_default=False)] = False,
) -> int:
    """Run an engine.

    Set any setting in a TOML file, or in the environment as FUNCTIOND_SECTION__KEY: see `functiond settings`. The
    command line overrides the environment, which overrides the file.

    Parameters
    ----------
    data_dir
        Folder for all durable data. [default: data]
    host
        Address to listen on. Addresses other than loopback require credentials (auth.file). [default: 127.0.0.1]
    port
        Port to listen on; 0 chooses a free port. [default: 8080]
    tls_cert
        PEM file with a certificate and its issuers'. The API and HTTP APIs of functions are then served over HTTPS.
    tls_key
        PEM file with the private key of the certificate, readable by its owner only.
    log_format
        Format of log lines on standard error. [default: console]
    log_level
        Lowest level of log lines to print. [default: info]
    config
        TOML file with settings.
    plugin
        Module with plugins, installed or in the current folder. Repeat for several.
    demo
        Deploy a small function and print how to call it.
    """
    given = {
        "storage.data_dir": str(data_dir) if data_dir else None,
        "http.host": host,
        "http.port": port,
        "http.tls_certificate": str(tls_cert) if tls_cert else None,
        "http.tls_key": str(tls_key) if tls_key else None,
        "log.format": log_format,
        "log.level": log_level,
        "plugin": plugin or None,
    }
    load = partial(load_settings, file=config, environ=os.environ, overrides=given)
    try:
        settings = load()
        configure_logging(settings.log.format, settings.log.level)
        _loop_runner()(_serve(settings, demo, lambda: load().auth))
    except (*_EXPECTED, OSError, BaseExceptionGroup) as error:
        return _explain(error, log_format or os.environ.get("FUNCTIOND_LOG__FORMAT", ""))
    return 0


async def _serve(settings: Settings, demo: bool, read_auth: Callable[[], AuthSettings]) -> None:
    if settings.plugin:
        append_current_folder()
    plugins = load_plugins(settings.plugin)
    async with anyio.create_task_group() as tasks:

        def ready(engine: EngineParts, url: str) -> None:
            if demo:
                tasks.start_soon(greet_demo, engine, url)
            elif settings.log.format == "console":
                greet(engine, url)

        await serve_engine(settings, plugins=plugins, ready=ready, read_auth=read_auth)
        tasks.cancel_scope.cancel()


def _loop_runner() -> Callable[[Coroutine[Any, Any, None]], None]:
    try:
        import uvloop
    except ImportError:  # not on every platform
        return asyncio.run
    return uvloop.run


def _explain(error: BaseException, form: str) -> int:
    """Print one line for an expected error of the engine, and return the exit code of the command.

    Any other error is a bug and is raised again.
    """
    expected = _expected(list(leaves(error)))
    if expected is None:
        raise error
    hint = f"{expected} (start the engine again: it recovers from disk)" if isinstance(expected, _FATAL) else expected
    line = json.dumps({"event": str(hint), "level": "error"}) if form == "json" else f"functiond: {hint}"
    print(line, file=sys.stderr)
    return RESTART if isinstance(expected, _RESTART) else USAGE


def _expected(found: Sequence[BaseException]) -> BaseException | None:
    """Return the first error that has a message for users, those that a new start can cure before others."""
    files = [error for error in found if isinstance(error, OSError) and is_file_problem(error)]
    ordered = [*found, *(unusable(error.filename or "a file", error) for error in files)]
    for kinds in (_RESTART, _EXPECTED):
        for one in ordered:
            if isinstance(one, kinds):
                return one
    return None
