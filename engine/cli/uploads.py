"""Upload of the package of a function."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from engine.cli.client import ApiError, Client, path_of
from engine.cli.progress import progress_of

CHUNK = 256 << 10  #: bytes
PROGRESS_SIZE = 1 << 20  #: bytes from which an upload shows its progress
NEW = {"timeout": 30, "memory_size": 128}  #: configuration of new functions


def create(client: Client, name: str, package: bytes, config: Mapping[str, Any]) -> dict[str, Any]:
    """Create a function, named ``name`` or ``package:name``, with the package.

    Configuration that is not given gets the defaults of the command line.
    """
    group, _, own = name.rpartition(":")
    head = {"func_name": own, "package": group or "default", **NEW, **config}
    return upload(client, "POST", "", head, package)


def update(
    client: Client, name: str, package: bytes, old: Mapping[str, Any], config: Mapping[str, Any]
) -> dict[str, Any]:
    """Change the configuration, then the code. If one is refused, both are as before. Return the function."""
    changes = {field: value for field, value in config.items() if old.get(field) != value}
    if changes:
        # PUT would reset everything else, also encrypted variables and changes that others make meanwhile.
        client.patch(path_of(name, "/config"), changes)
    try:
        return upload(client, "PUT", path_of(name, "/code"), {}, package)
    except ApiError as refusal:
        if changes and refusal.status < 500:  # after a failure of the engine, the code may be stored
            client.patch(path_of(name, "/config"), {field: old[field] for field in changes if field in old})
        raise


def upload(client: Client, method: str, path: str, head: Mapping[str, Any], package: bytes) -> dict[str, Any]:
    """Send the package of a function, with the fields ``head``. Return the function without its code."""
    code = {"code_type": "zip", "func_code": {"file": base64.b64encode(package).decode()}}
    body = json.dumps({**head, **code}).encode()
    pieces = _with_progress(body) if len(body) > PROGRESS_SIZE and sys.stderr.isatty() else None
    shown: dict[str, Any] = client.send(method, path, body, pieces=pieces).json
    shown.pop("func_code", None)
    return shown


def _with_progress(body: bytes) -> Iterator[bytes]:
    with progress_of() as progress:
        task = progress.add_task("uploading", total=len(body))
        for start in range(0, len(body), CHUNK):
            yield body[start : start + CHUNK]
            progress.advance(task, CHUNK)
