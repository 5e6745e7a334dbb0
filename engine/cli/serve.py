"""``functiond serve``: run an engine in this process until SIGTERM or SIGINT, after a message about its start."""

from __future__ import annotations

import base64
import json
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import anyio
import uvloop

from engine.app.parts import EngineParts
from engine.app.service import serve as serve_engine
from engine.cli.options import ConfigFile, Flag, Texts
from engine.cli.output import RESTART, USAGE, Output, program
from engine.code.store import NO_CODE, CodeSource
from engine.config.plugin_registry import load_plugins
from engine.config.search_path import append_current_folder
from engine.config.settings import AuthSettings, Settings, load_settings
from engine.errors import (
    DataDirectoryLocked,
    DataDirectoryUnusable,
    DiskFailing,
    FunctiondError,
    FunctionExists,
    JournalBroken,
    MembershipLost,
    SettingsError,
)
from engine.errors.files import is_file_problem, unusable
from engine.errors.groups import leaves
from engine.metrics.prometheus import configure_logging
from engine.model import Function

PROJECT = "default"
DEMO = '''"""Return a greeting. `event` is the JSON value that the caller sent."""


def handler(event, context):
    name = event.get("name", "world")
    context.getLogger().info("greeting %s", name)
    return {"hello": name}
'''
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
    config: ConfigFile = None,
    plugin: Texts = (),
    demo: Flag = False,
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
    os.umask(0o077)
    try:
        settings = load()
        configure_logging(settings.log.format, settings.log.level)
        uvloop.run(_serve(settings, demo, lambda: load().auth))
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
            elif settings.log.format == "console" and settings.logs.forward != "stdout":
                greet(engine, url)

        await serve_engine(settings, plugins=plugins, ready=ready, read_auth=read_auth)
        tasks.cancel_scope.cancel()


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


def _expected(errors: Sequence[BaseException]) -> BaseException | None:
    """Return the first error that has a message for users, those that a new start can cure before others."""
    files = [error for error in errors if isinstance(error, OSError) and is_file_problem(error)]
    ordered = [*errors, *(unusable(error.filename or "a file", error) for error in files)]
    for kinds in (_RESTART, _EXPECTED):
        for candidate in ordered:
            if isinstance(candidate, kinds):
                return candidate
    return None


# --- message about the start ----------------------------------------------------------------------------------


def greet(engine: EngineParts, url: str) -> None:
    """Print the address of the engine, then the number of its functions.

    If there are none, print a command that deploys a function.
    """
    output = Output()
    functions = {function.function_id for function in engine.catalog.all()}
    _print_address(output, engine, url)
    if functions:
        output.print(f"{len(functions)} functions, {engine.backlog.rows} invocations waiting")
    else:
        output.print("No functions yet. Deploy a folder that contains index.py with `def handler(event, context)`:")
        output.paste(f"{program()} deploy FOLDER --handler index.handler{_url_option(url)}")
    _print_stop_hint(output)


async def greet_demo(engine: EngineParts, url: str) -> None:
    """Deploy the demo function and print commands that call it. If deployment fails, print the reason."""
    output, auth = Output(), engine.settings.auth
    projects = [*(key.project for key in auth.keys), *(token.project for token in auth.tokens), PROJECT]
    project = projects[0]
    try:
        function = await _deploy(engine, project)
    except FunctiondError as error:
        output.print(f"The demo function cannot be deployed: {error}", style="red", markup=False)
        return
    _print_address(output, engine, url)
    if auth.required:
        _print_signed_commands(output, url, project)
        return
    target = f"{url}/v2/{project}/fgs/functions/{function.urn(engine.settings.http.region)}"
    output.print("The function [bold]hello[/] is deployed. Accept now, run when idle (202 and a request id):")
    output.paste(_curl(f"{target}/invocations-async"))
    output.print("Show its state:")
    output.paste(f"{program()} invocations hello{_url_option(url)}")
    output.print("Or call it and wait for the result:")
    output.paste(_curl(f"{target}/invocations"))
    _print_stop_hint(output)


def _print_address(output: Output, engine: EngineParts, url: str) -> None:
    output.print(
        f"[bold green]functiond[/] serves [bold]{url}[/], data directory [bold]{engine.settings.storage.path}[/]"
    )
    if engine.settings.http.console:
        output.print(f"Open the console at [bold]{url}/console/[/]")


def _print_signed_commands(output: Output, url: str, project: str) -> None:
    """Print ``functiond`` commands that call the demo function: curl cannot sign requests with the engine's scheme."""
    hello, options = f"{program()} invoke hello", f" --project {project}{_url_option(url)}"
    output.print("The function [bold]hello[/] is deployed. Set FUNCTIOND_ACCESS_KEY and FUNCTIOND_SECRET_KEY to")
    output.print(f"a key of project {project}. Then accept now and run when idle, or call it and wait for the result:")
    output.paste(f"""{hello} --async --data '{{"name": "you"}}'{options}""")
    output.paste(f"""{hello} --data '{{"name": "you"}}'{options}""")
    _print_stop_hint(output)


def _print_stop_hint(output: Output) -> None:
    output.print("Press Ctrl-C to stop. Accepted invocations stay on disk and run after the next start.", style="dim")


async def _deploy(engine: EngineParts, project: str) -> Function:
    draft = Function(
        function_id=0,
        project=project,
        package="default",
        name="hello",
        runtime="Python3.10",
        handler="index.handler",
        timeout=10,
        memory_size=128,
        code=NO_CODE,
        description="Demo of functiond",
    )
    try:
        return await engine.catalog.create(
            draft, CodeSource(kind="inline", file=base64.b64encode(DEMO.encode()).decode())
        )
    except FunctionExists:
        return engine.catalog.find(draft.urn(engine.settings.http.region))


def _curl(url: str) -> str:
    return f"""curl '{url}' -H 'Content-Type: application/json' -d '{{"name": "you"}}'"""


def _url_option(url: str) -> str:
    return "" if url == "http://127.0.0.1:8080" else f" --url {url}"
