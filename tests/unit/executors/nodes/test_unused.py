"""Test of an engine without nodes."""

from __future__ import annotations

import subprocess
import sys

LOADED = """
import sys, engine.app.service, engine.cli.serve, plugins.timer
print(*(name for name in sys.modules if name.startswith(("engine.executors.nodes.", "engine.agent"))))
"""


def test_an_engine_without_nodes_loads_only_their_settings_and_description() -> None:
    loaded = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=True)

    assert set(loaded.stdout.split()) == {"engine.executors.nodes.options", "engine.executors.nodes.report"}
