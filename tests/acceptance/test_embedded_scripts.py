"""Scripts that run an engine: deployment of their own functions, and modules of their folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.support.engine_process import CLEAN, ROOT

TASKS = """
from functiond import App, Engine

app = App()


@app.function()
def resize(path: str, width: int = 100) -> str:
    return f"{path} {width}"


def main() -> None:
    with Engine.running(fast=True) as engine:
        engine.deploy(app)
        print(resize.enqueue("a.png", width=7).result(60))
"""
CLIENT = ROOT / "engine" / "client"


def run(folder: Path, *arguments: str, path: tuple[Path, ...] = (ROOT, CLIENT)) -> subprocess.CompletedProcess[str]:
    environment = {**CLEAN, "PYTHONPATH": os.pathsep.join(map(str, path))}
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder, check=False, timeout=60)


def test_a_script_deploys_its_own_functions(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(TASKS + '\n\nif __name__ == "__main__":\n    main()\n')

    done = run(tmp_path, "script.py")

    assert done.stdout == "a.png 7\n", done.stderr
    assert done.stderr.startswith("fast mode for tests: nothing is kept ")


def test_a_script_that_starts_an_engine_when_it_is_imported_is_refused(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(TASKS + "\n\nmain()\n")

    done = run(tmp_path, "script.py")

    assert done.returncode == 1
    assert done.stderr.count("fast mode for tests") == 1  # the import has started none
    assert done.stderr.rstrip().endswith('the module starts an engine: start it below `if __name__ == "__main__":`')


def test_the_lines_of_a_script_that_does_not_configure_structlog_stay_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(
        """
import logging

import structlog
from functiond import Engine

logging.basicConfig(level=logging.INFO, format="%(name)s %(message)s")
log, library = structlog.get_logger("script"), structlog.wrap_logger(logging.getLogger("library"))
log.info("begin", n=1)
with Engine.running(fast=True):
    log.bind(n=2).debug("runs")
    structlog.get_logger().info("runs", n=3)
    library.info("runs")
log.info("end", n=4)
"""
    )

    done = run(tmp_path, "script.py")

    lines = [line.split(maxsplit=2)[2].split() for line in done.stdout.splitlines()]
    assert lines == [
        ["[info", "]", "begin", "n=1"],
        ["[debug", "]", "runs", "n=2"],
        ["[info", "]", "runs", "n=3"],
        ["[info", "]", "end", "n=4"],
    ]
    assert "functiond serving url=http://127.0.0.1:" in done.stderr
    assert "\nlibrary " in done.stderr
    assert done.stderr.endswith("functiond stopped\n")


def test_a_script_ends_without_the_end_of_the_block(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(
        """
from functiond import Engine

running = Engine.running(settings={"storage.data_dir": "data"})
print(running.__enter__().settings.storage.data_dir)
"""
    )

    done = [run(tmp_path, "script.py") for _ in range(2)]

    assert [(result.returncode, result.stdout) for result in done] == [(0, "data\n")] * 2, done[0].stderr


def test_another_module_named_engine_is_named(tmp_path: Path) -> None:
    (tmp_path / "engine.py").touch()

    done = run(tmp_path, "-c", "from functiond import Client, Engine", path=(CLIENT, ROOT))

    expected = f"ImportError: {tmp_path}/engine.py has the name of functiond's package `engine`: rename yours"
    assert done.stderr.splitlines()[-1] == expected
