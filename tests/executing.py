"""Builders for tests that execute functions."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

from engine.executors.pool import Pool, open_pool
from engine.model import CodePackage, Function, Invocation

CODE = CodePackage(sha256="0", digest="", size=1)
_keys = count(1)  #: only to be different from each other


def function(handler: str, **fields: Any) -> Function:
    """A function ``index.<handler>``, or another file if the handler names one."""
    values: dict[str, Any] = {
        "function_id": 1,
        "project": "p",
        "package": "default",
        "name": handler,
        "runtime": "Python3.10",
        "handler": handler if "." in handler else f"index.{handler}",
        "timeout": 30,
        "memory_size": 128,
        "code": CODE,
    }
    if "revision" not in fields:  # each handler is a revision of its own, as it would be in the catalog
        fields["revision"] = hash((handler, str(fields))) % (1 << 31)
    return Function(**(values | fields))


def invocation(event: str = "{}", **fields: Any) -> Invocation:
    key = next(_keys)
    request_id = f"00000000-0000-7000-8000-{key:012x}"
    return Invocation(key=key, request_id=request_id, function_id=1, payload=event.encode(), **fields)


@asynccontextmanager
async def pool(folder: Path, source: str, **values: Any) -> AsyncIterator[Pool]:
    """A pool whose functions all have this code, in ``folder``/code/index.py."""
    code = folder / "code"
    code.mkdir()
    (code / "index.py").write_text(source)
    values.setdefault("marker", marker(folder))
    async with open_pool(
        code_path=lambda package: code, tmp=folder / "tmp", log_dir=folder / "logs", **values
    ) as opened:
        yield opened


def marker(folder: Path) -> str:
    return f"test-{os.getpid()}-{folder.name}"[:90]


async def exit_of(pid: int) -> None:
    """Wait until a process that may be anyone's child is gone."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop = asyncio.get_running_loop()
    gone = asyncio.Event()
    loop.add_reader(fd, gone.set)
    try:
        await gone.wait()
    finally:
        loop.remove_reader(fd)
        os.close(fd)


def is_alive(pid: int) -> bool:
    """A zombie is not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False
