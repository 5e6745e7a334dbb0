"""Fixtures of pytest, in a test run of their own with the example of the documentation."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.support.documents import DOCS, blocks
from tests.support.engine_process import CLEAN, ROOT

SETTINGS = """
import pytest


@pytest.fixture(scope="session")
def functiond_settings():
    return {"http.region": "test-region"}
"""
OTHER = """
import sys

KNOWN = {"engine", "functiond", "httpx"} & sys.modules.keys()


def test_nothing_was_imported_before_a_fixture_was_used():
    assert KNOWN == set()


def test_the_client_uses_the_engine(functiond_client, functiond_engine):
    from images import app

    functiond_engine.deploy(app)
    handle = functiond_client.enqueue("resize", {"args": ["b.png"], "kwargs": {}})
    assert handle.result(60) == "b.png is 100 wide"
    assert functiond_client.configuration.url == functiond_engine.url
    assert functiond_engine.settings.http.region == "test-region"
"""


def test_the_example_of_the_documentation_passes(tmp_path: Path) -> None:
    files = {block.file: block.text for block in blocks(DOCS / "embedding.md", "python")}
    for name, text in {**files, "conftest.py": SETTINGS, "test_first.py": OTHER}.items():
        (tmp_path / name).write_text(text)
    path = os.pathsep.join(map(str, (ROOT, ROOT / "engine" / "client")))
    environment = {**CLEAN, "PYTHONPATH": path, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": ""}
    pytest = [sys.executable, "-m", "pytest", "-p", "pytest_functiond", "-p", "no:cacheprovider", "-W", "error", "-rA"]
    command = [*pytest, "test_first.py", "test_images.py"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)

    assert done.returncode == 0, done.stdout
    assert "3 passed" in done.stdout
    assert "fast mode for tests: nothing is kept" in done.stdout  # in the captured log
