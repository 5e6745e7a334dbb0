"""``functiond deploy``: a folder or file becomes a function, or its next state."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from engine.cli.client import Client, UsageError, path_of
from engine.cli.packing import default_handler, default_name, pack
from engine.cli.target import HERE, Target
from engine.cli.words import Words, print_json

CHUNK = 256 << 10
SHOWN_FROM = 1 << 20  #: bytes from which on an upload shows its progress
NEW = {"runtime": "Python3.10", "timeout": 30, "memory_size": 128}


def deploy(
    path: Path,
    /,
    *,
    handler: str | None = None,
    name: str | None = None,
    runtime: str | None = None,
    timeout: int | None = None,
    memory: int | None = None,
    env: Annotated[tuple[str, ...], Parameter(negative="", show_default=False)] = (),
    retries: int | None = None,
    max_age: int | None = None,
    on_success: str | None = None,
    on_failure: str | None = None,
    target: Target = HERE,
) -> None:
    """Create a function, or update its code and what is named here; the rest stays as it is.

    Parameters
    ----------
    path
        A folder, a Python file, or a zip package.
    handler
        file.function to call. [default: index.handler, or that of the file]
    name
        What to call the function. [default: as the folder or file]
    runtime
        Such as Python3.10, the default.
    timeout
        Seconds that a run may take. [default: 30]
    memory
        MB of an instance. [default: 128]
    env
        Environment variable NAME=VALUE; can be given several times, and replaces all that were there.
    retries
        Further attempts after the function failed, 0 to 3.
    max_age
        Seconds after which what still waits is discarded.
    on_success
        Function (name or URN) that gets the outcomes that are successes.
    on_failure
        Function (name or URN) that gets the others.
    """
    client = target.client()
    package, name = pack(path), name or default_name(path)
    wanted = {"handler": handler, "runtime": runtime, "timeout": timeout, "memory_size": memory}
    config: dict[str, Any] = {field: value for field, value in wanted.items() if value is not None}
    if env:
        config["user_data"] = json.dumps(_variables(env))
    old = client.find(path_of(name, "/config"))
    if old is None:
        shown = _create(client, name, package, {**NEW, "handler": default_handler(path), **config})
    else:
        shown = _update(client, name, package, old, config)
    asynchronous = _asynchronous(client, name, retries, max_age, on_success, on_failure)
    if target.json:
        print_json({**shown, "async_invoke_config": asynchronous})
    else:
        did = "updated" if old else "created"
        words = Words()
        words.print(f"[bold green]{did}[/] [bold]{name}[/]: {len(package):,} bytes, {shown['handler']}")
        words.paste(shown["func_urn"])


def _create(client: Client, name: str, package: bytes, config: Mapping[str, Any]) -> dict[str, Any]:
    head = {"func_name": name, "package": "default", **config}
    return _upload(client, "POST", "", head, package)


def _update(
    client: Client, name: str, package: bytes, old: Mapping[str, Any], config: Mapping[str, Any]
) -> dict[str, Any]:
    shown = _upload(client, "PUT", path_of(name, "/code"), {}, package)
    if any(old.get(field) != value for field, value in config.items()):
        required = ("func_name", "runtime", "handler", "timeout", "memory_size")
        shown = client.put(path_of(name, "/config"), {**{field: old[field] for field in required}, **config})
    return shown


def _upload(client: Client, method: str, path: str, head: Mapping[str, Any], package: bytes) -> dict[str, Any]:
    code = {"code_type": "zip", "func_code": {"file": base64.b64encode(package).decode()}}
    body = json.dumps({**head, **code}).encode()
    pieces = _shown(body) if len(body) > SHOWN_FROM and sys.stderr.isatty() else None
    shown: dict[str, Any] = client.send(method, path, body, pieces=pieces).json
    shown.pop("func_code", None)
    return shown


def _shown(body: bytes) -> Iterator[bytes]:
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("uploading", total=len(body))
        for start in range(0, len(body), CHUNK):
            yield body[start : start + CHUNK]
            progress.advance(task, CHUNK)


def _variables(pairs: tuple[str, ...]) -> dict[str, str]:
    for pair in pairs:
        if "=" not in pair:
            raise UsageError(f"--env {pair}: it must look like NAME=VALUE")
    return dict(pair.split("=", 1) for pair in pairs)


def _asynchronous(
    client: Client, name: str, retries: int | None, max_age: int | None, on_success: str | None, on_failure: str | None
) -> Any:
    """The function's asynchronous settings with what was given changed; putting them replaces them all."""
    path = path_of(name, "/async-invoke-config")
    settings = client.find(path)
    if (retries, max_age, on_success, on_failure) == (None, None, None, None):
        return settings
    settings = settings or {}
    given = {"max_async_retry_attempts": retries, "max_async_event_age_in_seconds": max_age}
    settings |= {field: value for field, value in given.items() if value is not None}
    destinations = dict(settings.get("destination_config") or {})
    for field, function in (("on_success", on_success), ("on_failure", on_failure)):
        if function is not None:
            param = json.dumps({"func_urn": _whole_urn(client, function)})
            destinations[field] = {"destination": "FunctionGraph", "param": param}
    return client.put(path, {**settings, "destination_config": destinations})


def _whole_urn(client: Client, function: str) -> str:
    if function.startswith("urn:"):
        return function
    urn: str = client.get(path_of(function, "/config"))["func_urn"]
    return urn
