"""Builders for tests that execute functions."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from engine.executors.local.launcher import LocalLauncher, LocalProcess
from engine.executors.local.spawners import Spawner
from engine.executors.pool import Pool, PoolOptions, open_pool
from engine.logs.lines import decode
from engine.model import CodePackage, Function, Invocation, Outcome

#: Functions for tests of the pool itself.
SOURCE = """
import os, sys, time


def tell(path):
    with open(path, "a") as file:
        file.write("%d\\n" % os.getpid())


def pid(event, context):
    return os.getpid()


def wait(event, context):
    if "say" in event:
        print(event["say"])
    tell(event["told"])
    with open(event["gate"]) as gate:  # blocks until the test writes
        gate.read()
    return os.getpid()


def fail(event, context):
    raise ValueError(context.getInstanceID())


def say(event, context):
    print(event, end="")
    return "said"


def size(event, context):
    return len(event)
"""

CODE = CodePackage(sha256="0", digest="", size=1)
_keys = count(1)  #: any distinct keys


def function(handler: str, **fields: Any) -> Function:
    """Return a function with handler ``index.<handler>``, or ``handler`` itself if it names a file."""
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
    if "revision" not in fields:  # each handler gets its own revision, as in the catalog
        fields["revision"] = hash((handler, str(fields))) % (1 << 31)
    return Function(**(values | fields))


def invocation(event: str = "{}", **fields: Any) -> Invocation:
    key = next(_keys)
    request_id = f"00000000-0000-7000-8000-{key:012x}"
    return Invocation(key=key, request_id=request_id, function_id=1, payload=event.encode(), **fields)


@asynccontextmanager
async def pool(folder: Path, source: str, **values: Any) -> AsyncIterator[Pool]:
    """Open a pool in which every function has this code, in ``folder``/code/index.py."""
    code = folder / "code"
    code.mkdir()
    (code / "index.py").write_text(source)
    defaults: dict[str, Any] = {"tmp": folder / "tmp", "log_dir": folder / "logs", "marker": marker(folder)}
    defaults["term_grace"] = 0.0  # so that tests need not wait for handlers that are to be killed
    chosen = {name: values.pop(name) for name in PoolOptions.__struct_fields__ if name in values}
    async with open_pool(PoolOptions(**(defaults | chosen)), code_path=lambda package: code, **values) as opened:
        yield opened


def local_spawner(opened: Pool) -> Spawner:
    """Return the part of a pool that starts processes on this machine."""
    return _local(opened)._spawner


def launched(opened: Pool) -> LocalProcess:
    """Return the process of the only instance of a pool."""
    ((_, found),) = _local(opened)._processes.items()
    return found


def _local(opened: Pool) -> LocalLauncher:
    assert isinstance(opened._launcher, LocalLauncher)
    return opened._launcher


def output(outcome: Outcome) -> str:
    """Return the lines of a log without the error of the run."""
    return "".join(f"{line.text}\n" for line in decode(outcome.log) if line.stream != "error")


def marker(folder: Path) -> str:
    return f"test-{os.getpid()}-{folder.name}"[:90]


async def exit_of(pid: int) -> None:
    """Wait until a process has exited; it need not be a child of this one."""
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
    """Return False for a process that does not exist or is a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def stop(pid: int) -> None:
    """Send SIGSTOP and return when the process has stopped."""
    os.kill(pid, signal.SIGSTOP)
    while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
        time.sleep(0.001)


async def pid_of(opened: Pool, **fields: Any) -> int:
    outcome = await opened.execute(function("pid", **fields), invocation())
    assert outcome.ok, outcome
    return int(outcome.result)


def dig(folder: Path) -> None:
    """Nest folders too deeply for a path and for any recursion."""
    above = os.open(folder, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("d", dir_fd=above)
        below = os.open("d", os.O_RDONLY, dir_fd=above)
        os.close(above)
        above = below
    os.close(above)


class Running:
    """Call of the handler ``wait``: ``pid`` waits until it runs, ``finish`` lets it end."""

    def __init__(
        self,
        opened: Pool,
        folder: Path,
        asked: Function | None = None,
        asked_as: Invocation | None = None,
        **event: str,
    ) -> None:
        name = os.urandom(4).hex()
        self.told, self.gate = folder / f"told-{name}", folder / f"gate-{name}"
        os.mkfifo(self.told)
        os.mkfifo(self.gate)
        payload = json.dumps(event | {"told": str(self.told), "gate": str(self.gate)})
        self.invocation = replace(asked_as or invocation(), payload=payload.encode())
        self.outcome: asyncio.Future[Outcome] = asyncio.ensure_future(
            opened.execute(asked or function("wait"), self.invocation)
        )

    async def pid(self) -> int:
        return int(await asyncio.to_thread(self.told.read_text))

    async def finish(self) -> Outcome:
        await asyncio.to_thread(self.gate.write_text, "")
        return await self.outcome
