"""Module search path of the engine, independent of the current folder. Real processes, started in test folders."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.contracts.dialect_bootstrap import CUSTOM
from tests.support.engine_process import CLEAN, PROGRAM, ROOT, engine_process, functiond

SCRIPT = (Path(sys.executable).with_name("functiond"),)
SAFE = (sys.executable, "-P", "-m", "engine")

PLUGIN = "from engine import Plugin\nplugin = Plugin(kinds=('MINE',))\n"
HANDLER = "def handler(event, context):\n    return event\n"
#: Plugin that fails after the built-in ones are loaded and reports in its error message.
PROBE = """
import json, sys
import engine, plugins
raise ImportError(json.dumps({"engine": engine.__file__, "plugins": plugins.__file__, "path": sys.path}))
"""


def files(folder: Path, text: str, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def refused(program: Sequence[str | Path], cwd: Path, plugin: str, **environ: str) -> str:
    """Return the standard error of an engine that loads its plugins but cannot use its data directory."""
    command = [*program, "serve", "--data-dir", os.devnull, "--plugin", plugin]
    done = subprocess.run(command, capture_output=True, text=True, env={**CLEAN, **environ}, cwd=cwd, timeout=120)
    assert (done.returncode, done.stdout) == (2, ""), done
    return done.stderr


def seen(program: Sequence[str | Path], cwd: Path, **environ: str) -> Any:
    """Return where the engine finds its modules."""
    files(cwd, PROBE, "probe.py")
    said = refused(program, cwd, "probe", **environ)
    assert said.startswith("functiond: plugin module probe cannot be imported: {"), said
    return json.loads(said[said.index("{") :])


@pytest.mark.parametrize("local", ["plugins/__init__.py", "plugins.py", "plugins/mine.py"])
def test_a_local_plugins_is_not_taken_for_the_engines(tmp_path: Path, local: str) -> None:
    files(tmp_path, "", local)

    paths = seen(PROGRAM, tmp_path)

    assert paths["plugins"] == str(ROOT / "plugins" / "__init__.py")
    assert paths["path"].index(str(tmp_path)) == len(paths["path"]) - 1


@pytest.mark.parametrize(
    "program", [SCRIPT, PROGRAM, SAFE], ids=["functiond", "python -m engine", "python -P -m engine"]
)
def test_a_folder_of_the_python_path_keeps_its_place(tmp_path: Path, program: Sequence[str | Path]) -> None:
    files(tmp_path, "", "plugins/__init__.py")

    paths = seen(program, tmp_path, PYTHONPATH=str(tmp_path))

    assert paths["plugins"] == str(ROOT / "plugins" / "__init__.py")
    assert paths["path"].count(str(tmp_path)) == 1
    assert paths["path"].index(str(tmp_path)) < 2  # at most the script's folder precedes it


def test_an_engine_from_a_checkout_has_the_plugins_of_that_checkout(tmp_path: Path) -> None:
    for name in ("engine", "plugins"):
        (tmp_path / name).symlink_to(ROOT / name)

    paths = seen(PROGRAM, tmp_path)

    assert (paths["engine"], paths["plugins"]) == tuple(
        str(tmp_path / name / "__init__.py") for name in ("engine", "plugins")
    )


def test_functiond_serves_in_a_folder_whose_modules_have_the_names_of_its_own(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    names = ("engine/__init__.py", "plugins/__init__.py", "json.py", "asyncio.py", "anyio/__init__.py", "socket.py")
    files(folder, "raise SystemExit('a module of the current folder was imported')\n", *names)
    files(folder, PLUGIN, "mine.py")
    files(tmp_path / "one", HANDLER, "index.py")
    for name, text in CUSTOM.files.items():
        files(tmp_path / "two", text, name)
    (tmp_path / "two" / "bootstrap").chmod(0o700)

    with engine_process(tmp_path, "--plugin", "mine", program=SCRIPT, cwd=folder) as engine:
        functiond("deploy", tmp_path / "one", url=engine.url)
        functiond("deploy", tmp_path / "two", "--runtime", "Custom", url=engine.url)
        one = functiond("invoke", "one", "--data", '{"k": 1}', url=engine.url)
        two = functiond("invoke", "two", "--data", '{"do": "echo", "with": 2}', url=engine.url)

    assert (json.loads(one.stdout), json.loads(two.stdout)) == ({"k": 1}, 2), (one.stderr, two.stderr)


@pytest.mark.parametrize(
    ("program", "name", "local", "found"),
    [
        (SCRIPT, "wave", "wave.py", "/wave.py"),
        (PROGRAM, "aiokafka", "aiokafka/__init__.py", "/aiokafka/__init__.py"),
        (SCRIPT, "plugins.mine", "plugins/mine.py", "/plugins/__init__.py"),
        (PROGRAM, "plugins.mine", "plugins/mine.py", "/plugins/__init__.py"),
        (PROGRAM, "importer", "plugins/mine.py", "/plugins/__init__.py"),
    ],
)
def test_a_local_plugin_whose_name_is_taken_is_explained(
    tmp_path: Path, program: Sequence[str | Path], name: str, local: str, found: str
) -> None:
    files(tmp_path, PLUGIN, local)
    files(tmp_path, "from plugins.mine import plugin\n", "importer.py")

    said = refused(program, tmp_path, name)

    assert said.startswith(f"functiond: plugin module {name} "), said
    assert f"{found} is found first, so ./{local} is shadowed: rename ./{local.split('/')[0]})\n" in said
    assert (said.count("\n"), str(tmp_path) in said) == (1, False)


def test_another_plugin_in_place_of_the_local_one_is_noticed(tmp_path: Path) -> None:
    files(tmp_path, PLUGIN, "here/mine.py", "there/mine.py")

    notice, error = refused(SCRIPT, tmp_path / "here", "mine", PYTHONPATH=str(tmp_path / "there")).splitlines()

    told = f"{tmp_path}/there/mine.py is found first, so ./mine.py is shadowed: rename ./mine.py"
    assert told in notice
    assert os.devnull in error


def test_an_embedded_engine_leaves_the_search_path_alone(tmp_path: Path) -> None:
    files(tmp_path, "", "plugins/__init__.py")
    program = """
import sys
from engine.embedded import Engine
before = list(sys.path)
kinds = {kind for plugin in Engine().plugins for kind in plugin.kinds}
print("TIMER" in kinds, sys.path == before)
"""

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=CLEAN, cwd=tmp_path)

    assert (done.stdout, done.stderr) == ("True True\n", "")


def test_a_program_with_plugins_of_its_own_is_told_to_rename_them(tmp_path: Path) -> None:
    files(tmp_path, "", "plugins/__init__.py")
    program = "import plugins\nfrom engine.embedded import Engine\nEngine()"

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=CLEAN, cwd=tmp_path)

    last = done.stderr.splitlines()[-1]
    assert last.startswith("engine.errors.SettingsError: "), done.stderr
    assert str(tmp_path / "plugins" / "__init__.py") in last
    assert "rename yours" in last
