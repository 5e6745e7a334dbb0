"""Code that holds the event loop of a running engine, as probes and the log show it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.engine_process import HELD, EngineProcess, begun, engine_on, held_event, until

#: Plugin whose service holds the loop from the time at which the file ``hold`` exists until ``free`` does.
PLUGIN = """
import time
from pathlib import Path

import anyio

from engine import Plugin

FOLDER = Path(__file__).parent


class Service:
    async def run(self, context, *, task_status):
        task_status.started()
        while not (FOLDER / "hold").exists():
            await anyio.sleep(0.01)
        wait_for_the_network()
        await anyio.sleep_forever()


def wait_for_the_network():
    while not (FOLDER / "free").exists():
        time.sleep(0.01)


plugin = Plugin(kinds=("HOLDER",), serve=lambda settings: Service())
"""
DEADLINE = 60.0  #: seconds; only a failing test takes so long


def stalls(engine: EngineProcess) -> list[dict[str, Any]]:
    """Return the lines about stalls by the plugin. A slow machine may have others."""
    lines = [json.loads(line) for line in list(engine.log)]
    return [line for line in lines if line["event"] == "event loop stalled" and "wait_for_the_network" in line["stack"]]


def test_a_held_loop_answers_no_probe_and_the_log_names_the_code(tmp_path: Path) -> None:
    plugins = tmp_path / "plugins"
    plugins.mkdir()
    (plugins / "holder.py").write_text(PLUGIN)
    path = os.pathsep.join([str(plugins), os.environ.get("PYTHONPATH", "")])
    settings = {"FUNCTIOND_PLUGIN": "holder", "FUNCTIOND_HEALTH__STALL": "0.3", "PYTHONPATH": path}
    with engine_on(tmp_path / "data", **settings) as engine:
        engine.create("waits", HELD)
        request_id = engine.accepted("waits", held_event(tmp_path))
        begun(tmp_path, 1)
        (plugins / "hold").touch()
        until(lambda: stalls(engine))
        with pytest.raises(TimeoutError):
            engine.ask("GET", "/healthz", timeout=1.0)
        (plugins / "free").touch()
        health = engine.ask("GET", "/healthz")
        (tmp_path / "gate").touch()
        record = engine.record("waits", request_id, wait=30)
        assert engine.stop() == 0

    [line] = stalls(engine)
    assert line["seconds"] >= 0.3
    assert (health.status, health.json["status"]) == (200, "degraded")
    assert "held the event loop" in health.json["loop"]
    assert record["status"] == "SUCCESS"
