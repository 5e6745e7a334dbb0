"""Agent of a node, with an engine's end of its connection in the test."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.agents import engine_end, node

SOURCE = """
import os, sys

def handler(event, context):
    os.write(1, b"raw\\n")
    print("said")
    return {"pid": os.getpid(), **event}
"""


async def test_a_function_runs_on_a_node(tmp_path: Path) -> None:
    async with engine_end(tmp_path) as engine, node(engine):
        end = await engine.joined()
        remote = await end.start(SOURCE)
        result = await remote.invoke(b'{"a": 1}')
        remote.kill()

        assert json.loads(result)["a"] == 1
        assert (await remote.gone()).status == -9
        assert remote.pids() == []
