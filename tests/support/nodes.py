"""Pools whose instances run on nodes: agents that tests start on loopback."""

from __future__ import annotations

import asyncio
import base64
import io
import signal
import sys
import zipfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from anyio import TASK_STATUS_IGNORED

from engine import __version__
from engine.code.store import CodeSource, CodeStore
from engine.executors.nodes.launcher import NodeLauncher
from engine.executors.nodes.options import NodesOptions
from engine.executors.pool import Pool, PoolOptions, open_pool
from engine.isolation.limits import INSTANCE_VARIABLE
from engine.isolation.processes import marked
from engine.model import CodePackage
from tests.support.engine_process import CLEAN, PROGRAM, ROOT
from tests.support.executing import marker
from tests.support.waiting import until


class Sessions:
    """Record of the sessions of nodes (protocol ``NodeSessions``)."""

    def __init__(self) -> None:
        self.held: list[str] = []
        self.over: list[str] = []

    async def add(self, session: str) -> None:
        self.held.append(session)

    async def remove(self, session: str) -> None:
        self.held.remove(session)

    def ended(self, session: str) -> None:
        self.over.append(session)


class NodePool:
    """Pool with nodes, and its code."""

    def __init__(self, pool: Pool, launcher: NodeLauncher, codes: CodeStore, folder: Path, sessions: Sessions) -> None:
        self.pool, self.launcher, self.codes, self.folder, self.sessions = pool, launcher, codes, folder, sessions

    @property
    def url(self) -> str:
        return f"https://{self.launcher.nodes.address}"

    def token(self, name: str) -> Path:
        return self.folder / "nodes" / f"{name}.token"

    async def package(self, files: Mapping[str, str | Path]) -> CodePackage:
        """Store a package with these files, given by their text or as copies."""
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            for name, content in files.items():
                entry = zipfile.ZipInfo(name)  # the same time in each package
                entry.external_attr = (content.stat().st_mode if isinstance(content, Path) else 0o644) << 16
                archive.writestr(entry, content.read_bytes() if isinstance(content, Path) else content)
        source = CodeSource(kind="zip", file=base64.b64encode(packed.getvalue()).decode())
        return await self.codes.add(source, handler="index.handler")

    def state(self, name: str) -> str:
        return next(node.state for node in self.pool.nodes.report().nodes if node.name == name)  # type: ignore[union-attr]

    async def ready(self, *names: str) -> None:
        for name in names:
            await until(lambda name=name: self.state(name) == "ready")  # type: ignore[misc]


@asynccontextmanager
async def node_pool(
    folder: Path, *names: str, local: str = "never", lease: float = 5.0, **values: Any
) -> AsyncIterator[NodePool]:
    """Open a pool with nodes of these names, for which no agents run yet."""
    nodes = NodesOptions(
        version=__version__,
        listen="127.0.0.1:0",
        folder=folder / "nodes",
        agents=dict.fromkeys(names, ()),
        lease=lease,
        local=local,  # type: ignore[arg-type]
        **{name: values.pop(name) for name in ("needs", "api", "api_ports", "ray", "python", "gpus") if name in values},
    )
    codes, sessions = CodeStore(folder / "code"), Sessions()
    defaults: dict[str, Any] = {"tmp": folder / "tmp", "log_dir": folder / "logs", "marker": marker(folder)}
    options = PoolOptions(**{**defaults, "term_grace": 0.0, "nodes": nodes, **values})
    async with open_pool(options, code_path=codes.folder, check_code=codes.check) as pool, asyncio.TaskGroup() as tasks:
        launcher = pool._launcher
        assert isinstance(launcher, NodeLauncher)
        running = tasks.create_task(launcher.run(sessions, lambda: float("inf"), task_status=TASK_STATUS_IGNORED))
        await until(lambda: launcher.nodes.address)
        yield NodePool(pool, launcher, codes, folder, sessions)
        running.cancel()


@asynccontextmanager
async def agent(opened: NodePool, name: str, *options: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run the supervisor of an agent until the block ends. Wait until the node is ready."""
    command = [*PROGRAM, "agent", "--join", opened.url, "--token", str(opened.token(name))]
    command += ["--data-dir", str(opened.folder / f"agent-{name}"), *options]
    process = await asyncio.create_subprocess_exec(*command, env=CLEAN, cwd=ROOT, stdout=sys.stderr)
    try:
        await opened.ready(name)
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        await process.wait()


def processes_of(instance_id: str) -> list[int]:
    """Return the processes of an instance, on this machine in any namespace."""
    return list(marked(INSTANCE_VARIABLE, instance_id))
