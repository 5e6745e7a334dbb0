"""Photo shop of 12 tasks, written for Celery and for functiond: both run, and their outcomes are compared."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import DEVNULL

from tests.support.engine_process import CLEAN, ROOT, engine_process
from tests.support.own_environment import own_environment
from tests.support.rabbit_broker import rabbit_broker
from tests.support.waiting import until

SOURCES = ROOT / "tests" / "support" / "functions" / "photo_shop"
PACKAGE = "celery==5.6.3"
#: Files in the shop's folder at the end.
OUTCOMES = (
    *(f"{kind}/{order}.json" for kind in ("albums", "letters", "reminders") for order in (17, 18, 20, 21)),
    *(f"bills/{customer}.json" for customer in ("anna", "ben", "cem")),
    *("damages/19.json", "desk/values.json", "machines/cleared.json"),
)


def lines(*names: str, imports: bool) -> int:
    """Return how many lines the files of an application have without blank ones, with or without those of imports."""
    left = [line for name in names for line in (SOURCES / name).read_text().splitlines() if line.strip()]
    return len(left) if imports else len([line for line in left if not line.startswith(("import ", "from "))])


def shop(folder: Path) -> Path:
    """Copy the applications to a folder, and return the one for their outcomes."""
    outcomes = folder / "outcomes"
    for source in SOURCES.glob("*.py"):
        (folder / source.name).write_text(source.read_text().replace("/srv/shop", str(outcomes)))
    return outcomes


def read(folder: Path) -> dict[str, str]:
    return {str(file.relative_to(folder)): file.read_text() for file in folder.glob("*/*.json")}


@contextmanager
def celery(folder: Path) -> Iterator[Path]:
    """Run a worker of Celery and its scheduler, with RabbitMQ and a folder for results. Yield its Python."""
    settings = {"broker_url": rabbit_broker().url(), "result_backend": f"file://{folder}/results"}
    programs = own_environment(PACKAGE, "Celery to compare with") / "bin"
    (folder / "results").mkdir()
    (folder / "celeryconfig.py").write_text("".join(f"{name} = {value!r}\n" for name, value in settings.items()))
    options = ("-A", "celery_shop", "worker", "-B", "-c", "2", "-f", folder / "log")
    with subprocess.Popen(
        [programs / "celery", *options], env=CLEAN, cwd=folder, stdout=DEVNULL, stderr=DEVNULL
    ) as worker:
        try:
            yield programs / "python"
        finally:
            worker.terminate()


def run(folder: Path, *command: str | Path, **environ: str) -> None:
    environment = {**CLEAN, **environ}
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_the_application_for_functiond_has_no_more_lines() -> None:
    options = ("--isolated", "--check", "--no-cache", "--line-length", "120")
    subprocess.run([sys.executable, "-m", "ruff", "format", *options, SOURCES], check=True)
    tasks, functions = ((SOURCES / name).read_text() for name in ("celery_shop.py", "shop.py"))

    assert tasks.count("@app.task") == functions.count("@app.function") == 12
    for imports in (False, True):
        before = lines("celery_shop.py", "celery_desk.py", imports=imports)
        assert lines("shop.py", "desk.py", imports=imports) <= before


async def test_both_applications_leave_the_same(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    expected, outcomes = shop(first), shop(second)
    with celery(first) as python:
        run(first, python, "celery_desk.py")
        await until(lambda: read(expected).keys() >= set(OUTCOMES))
    path = os.pathsep.join(map(str, (ROOT, ROOT / "engine" / "client")))
    with engine_process(tmp_path, environ={"FUNCTIOND_RETRY__BASE": "0.1"}) as engine:
        run(second, sys.executable, "-m", "engine", "deploy", "shop:app", PYTHONPATH=path, FUNCTIOND_URL=engine.url)
        run(second, sys.executable, "desk.py", PYTHONPATH=path, FUNCTIOND_URL=engine.url)
        await until(lambda: read(outcomes).keys() >= read(expected).keys())

    assert read(outcomes) == read(expected)
    assert read(expected).keys() == set(OUTCOMES)
