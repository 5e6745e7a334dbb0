"""Contracts of executors and of runtime families, tested on a node: its agent runs as long as the tests of this module.

The tests are those of the modules for this machine. Only their fixtures are others.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from msgspec.structs import replace

from engine.executors.local.choice import IsolationOptions
from engine.executors.pool import Pool
from engine.model import Begin, CodePackage, Function, Invocation, Outcome
from tests.contracts.dialect import Dialect
from tests.contracts.test_executor import *  # noqa: F403
from tests.contracts.test_executor import HANDLERS
from tests.contracts.test_runtimes import *  # noqa: F403
from tests.contracts.test_runtimes import DIALECTS, SANDBOXED, Runner
from tests.support.nodes import NodePool, agent, node_pool
from tests.support.programs import program
from tests.support.waiting import in_own_task

pytestmark = pytest.mark.asyncio(loop_scope="module")
Opener = Callable[[IsolationOptions], Awaitable[NodePool]]


class OnNode:
    """Pool that gives all functions this code, and an id of their own."""

    def __init__(self, pool: Pool, code: CodePackage, function_id: int) -> None:
        self._pool, self._code, self._function_id = pool, code, function_id
        self.cancel, self.statistics = pool.cancel, pool.statistics

    async def execute(self, function: Function, invocation: Invocation, begin: Begin | None = None) -> Outcome:
        function = replace(function, code=self._code, function_id=self._function_id)
        return await self._pool.execute(function, replace(invocation, function_id=self._function_id), begin)

    async def retire(self, function_id: int) -> None:
        await self._pool.retire(self._function_id)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def opener(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Opener]:
    """Return an opener of one pool with a node for each kind of isolation."""
    opened: dict[str, NodePool] = {}
    async with AsyncExitStack() as stack:

        async def open_pool(sandbox: IsolationOptions) -> NodePool:
            if sandbox.isolation not in opened:
                made = node_pool(tmp_path_factory.mktemp("nodes"), "n1", sandbox=sandbox)
                pool = await stack.enter_async_context(in_own_task(made))
                await stack.enter_async_context(in_own_task(agent(pool, "n1", "--cpus", "10")))
                opened[sandbox.isolation] = pool
            return opened[sandbox.isolation]

        yield open_pool


@pytest_asyncio.fixture(loop_scope="module")  # type: ignore[no-redef]
async def executor(opener: Opener) -> AsyncIterator[OnNode]:
    nodes = await opener(IsolationOptions(isolation="process"))
    made = OnNode(nodes.pool, await nodes.package({"index.py": HANDLERS}), 100)
    yield made
    await made.retire(100)


@pytest_asyncio.fixture(loop_scope="module")  # type: ignore[no-redef]
async def run(request: pytest.FixtureRequest, opener: Opener, tmp_path: Path) -> AsyncIterator[Runner]:
    dialect, sandbox = getattr(request, "param", (DIALECTS[0], SANDBOXED))
    if sandbox is SANDBOXED:
        program("bwrap")
    nodes = await opener(sandbox)
    number = 1 + DIALECTS.index(dialect)
    made: Any = OnNode(nodes.pool, await nodes.package(_files(dialect, tmp_path)), number)
    yield Runner(made, dialect)
    await made.retire(number)


def _files(dialect: Dialect, folder: Path) -> dict[str, Path]:
    dialect.write(folder)
    return {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
