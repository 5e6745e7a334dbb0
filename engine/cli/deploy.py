"""``functiond deploy``: create or update a function from a folder or file."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from engine.cli.client import ApiError, Client, UsageError, path_of
from engine.cli.deploy_options import Asynchronous, Configuration
from engine.cli.output import Output, print_json, write
from engine.cli.packaging import BuildOptions, build, default_name
from engine.cli.target import DEFAULT_TARGET, Target
from engine.runtimes.catalog import warning_of

CHUNK = 256 << 10  #: bytes
PROGRESS_SIZE = 1 << 20  #: bytes from which an upload shows its progress
UNCHANGED, UNCHANGED_ASYNC = Configuration(), Asynchronous()
NEW = {"timeout": 30, "memory_size": 128}


def deploy(
    path: Path,
    /,
    *,
    name: str | None = None,
    configuration: Configuration = UNCHANGED,
    asynchronous: Asynchronous = UNCHANGED_ASYNC,
    target: Target = DEFAULT_TARGET,
) -> None:
    """Create a function, or update its code and the given options. Other configuration stays unchanged.

    Parameters
    ----------
    path
        Folder, Python or JavaScript file, or zip package.
    name
        Name of the function. [default: name of the folder or file]
    """
    if not path.exists():
        raise UsageError(f"cannot read {path}: no such file or folder")
    client, name, config = target.client(), name or default_name(path), configuration.fields()
    old = client.find(path_of(name, "/config"))
    built = build(client, path, _build_options(config, old or {}))
    for note in built.notes:
        write(f"functiond: {note}", errors=True)
    if old is None:
        guessed = {"runtime": built.runtime, "handler": built.handler}
        shown = _create(client, name, built.package, {**NEW, **guessed, **config})
    else:
        shown = _update(client, name, built.package, old, config)
    if warning := warning_of(shown["runtime"]):
        write(f"functiond: {warning}", errors=True)
    settings = asynchronous.apply(client, name)
    if target.json:
        print_json({**shown, "async_invoke_config": settings})
    else:
        action = "updated" if old else "created"
        output = Output()
        output.print(f"[bold green]{action}[/] [bold]{name}[/]: {len(built.package):,} bytes, {shown['handler']}")
        output.paste(shown["func_urn"])


def _build_options(config: Mapping[str, Any], old: Mapping[str, Any]) -> BuildOptions:
    given = {field: config.get(field) or old.get(field, "") for field in ("runtime", "handler")}
    return BuildOptions(runtime=given["runtime"], handler=given["handler"])


def _create(client: Client, name: str, package: bytes, config: Mapping[str, Any]) -> dict[str, Any]:
    head = {"func_name": name, "package": "default", **config}
    return _upload(client, "POST", "", head, package)


def _update(
    client: Client, name: str, package: bytes, old: Mapping[str, Any], config: Mapping[str, Any]
) -> dict[str, Any]:
    """Change the configuration, then the code. If one is refused, both are as before. Return the function."""
    changes = {field: value for field, value in config.items() if old.get(field) != value}
    if changes:
        # PUT would reset everything else, also encrypted variables and changes that others make meanwhile.
        client.patch(path_of(name, "/config"), changes)
    try:
        return _upload(client, "PUT", path_of(name, "/code"), {}, package)
    except ApiError as refusal:
        if changes and refusal.status < 500:  # after a failure of the engine, the code may be stored
            client.patch(path_of(name, "/config"), {field: old[field] for field in changes if field in old})
        raise


def _upload(client: Client, method: str, path: str, head: Mapping[str, Any], package: bytes) -> dict[str, Any]:
    code = {"code_type": "zip", "func_code": {"file": base64.b64encode(package).decode()}}
    body = json.dumps({**head, **code}).encode()
    pieces = _with_progress(body) if len(body) > PROGRESS_SIZE and sys.stderr.isatty() else None
    shown: dict[str, Any] = client.send(method, path, body, pieces=pieces).json
    shown.pop("func_code", None)
    return shown


def _with_progress(body: bytes) -> Iterator[bytes]:
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("uploading", total=len(body))
        for start in range(0, len(body), CHUNK):
            yield body[start : start + CHUNK]
            progress.advance(task, CHUNK)
