"""Package ``functiond`` of the wheel, in a fresh environment."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import distribution
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.support.engine_process import CLEAN, ROOT

pytestmark = pytest.mark.long

#: Distributions of httpx, which the extra adds for the asyncio client. All else needs msgspec only.
EXTRA = ("anyio", "certifi", "h11", "httpcore", "httpx", "idna", "typing_extensions")
PYTEST = ("iniconfig", "packaging", "pluggy", "pygments", "pytest")
USE = """
import sys
from functiond import App, Client

app = App(Client("http://127.0.0.1:9", project="p"))

@app.function(retries=1)
def double(n: int) -> int:
    return 2 * n

assert double(4) == 8
assert "engine" not in sys.modules
print(sys.modules["functiond"].__file__)
"""
USE_ASYNC = "from functiond import AsyncClient; AsyncClient('http://127.0.0.1:9')"


def run(*command: str | Path, path: str = "", code: int = 0) -> subprocess.CompletedProcess[str]:
    environ = {**CLEAN, "PYTHONPATH": path}
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, env=environ, timeout=250, check=False)
    assert done.returncode == code, done.stderr
    return done


def test_the_client_needs_the_wheel_and_its_extra_only(tmp_path: Path) -> None:
    pip = (sys.executable, "-m", "pip", "-q", "--disable-pip-version-check")
    build = ("--no-build-isolation",) if find_spec("hatchling") else ()  # CI has hatchling and no index
    run(*pip, "wheel", "--no-deps", *build, "-w", tmp_path, ROOT)
    (wheel,) = tmp_path.glob("functiond-*.whl")
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv")
    python = tmp_path / "venv" / "bin" / "python"
    run(*pip, "--python", python, "install", "--no-deps", "--no-index", wheel)

    needed = tmp_path / "needed"
    needed.mkdir()
    link("msgspec", needed)
    used = run(python, "-c", USE, path=str(needed)).stdout
    assert Path(used.strip()).is_relative_to(tmp_path / "venv")
    assert "pip install 'functiond[client]'" in run(python, "-c", USE_ASYNC, path=str(needed), code=1).stderr
    for name in EXTRA:
        link(name, needed)
    run(python, "-c", USE_ASYNC, path=str(needed))
    (tmp_path / "pytest").mkdir()
    for name in PYTEST:
        link(name, tmp_path / "pytest")
    (tmp_path / "test_none.py").touch()
    list_fixtures = (python, "-m", "pytest", "--rootdir", tmp_path, "--fixtures", tmp_path / "test_none.py")
    assert "functiond_engine" in run(*list_fixtures, path=str(tmp_path / "pytest")).stdout


def link(name: str, folder: Path) -> None:
    """Link the packages of an installed distribution into a folder."""
    installed = distribution(name)
    tops = {file.parts[0] for file in installed.files or () if ".." not in file.parts and file.suffix != ".pyc"}
    for top in tops:
        (folder / top).symlink_to(Path(str(installed.locate_file(top))))
