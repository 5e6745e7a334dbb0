"""Worker programs on each Python version that they support."""

from __future__ import annotations

import pytest
from anyio import run_process

from engine.runtimes.interpreters import WORKERS
from tests.support.python_process import VERSIONS, interpreter

LOAD_ALL = """
import importlib, pathlib, sys
sys.path.insert(0, sys.argv[1])
for file in sorted(pathlib.Path(sys.argv[1]).glob("*.py")):
    importlib.import_module(file.stem)
    print(file.stem)
"""


@pytest.mark.parametrize("version", VERSIONS)
async def test_each_module_of_the_workers_loads(version: str) -> None:
    command = [await interpreter(version), "-I", "-B", "-c", LOAD_ALL, str(WORKERS)]

    done = await run_process(command, check=False)

    assert (done.stderr, done.returncode) == (b"", 0)
    assert {b"bridge_worker", b"python_template", b"python_worker"} <= set(done.stdout.split())
