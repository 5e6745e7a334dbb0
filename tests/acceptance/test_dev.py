"""``functiond dev``: deploys at each change, shows log and ends, and sends events by keys."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.acceptance.engine_process import descendants, is_alive, until
from tests.support.engine_process import CLEAN, PROGRAM, ROOT, EngineProcess, engine_process, functiond
from tests.support.terminal import Terminal, terminal

pytestmark = pytest.mark.long
HANDLER = "def handler(event, context):\n    print('got', *sorted(event))\n    return 'version {}'\n"
NOTHING = "http://127.0.0.1:9"  #: URL without an engine


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    with engine_process(tmp_path_factory.mktemp("dev")) as running:
        yield running


def folder_of(path: Path, version: int = 1) -> Path:
    path.mkdir()
    (path / "index.py").write_text(HANDLER.format(version))
    return path


def save(folder: Path, text: str) -> None:
    """Save as an editor does: under another name, which then replaces the file."""
    (folder / "4913").touch()
    (folder / "4913").unlink()
    (folder / "index.py~").write_text(text)
    os.replace(folder / "index.py~", folder / "index.py")


def test_a_change_is_served_and_a_syntax_error_is_not(engine: EngineProcess, tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "changing")
    with terminal("dev", folder, environ={"FUNCTIOND_URL": engine.url}) as dev:
        assert "created changing: " in dev.expect("quit")
        dev.press("2")
        request_id = dev.expect(" sent TIMER").split()[-3]
        assert f"{request_id} stdout got time trigger_name" in dev.expect(" SUCCESS ")
        assert "(API)" in dev.expect("version 1")
        save(folder, HANDLER.format(2))
        dev.expect("updated changing: ")
        dev.press("e")
        assert "sent TIMER" in dev.expect("version 2")
        save(folder, "def handler(event, context:\n")
        assert f"{folder}/index.py:1: '(' was never closed" in dev.expect("The version before goes on serving.")
        dev.press("1")
        assert "sent APIG" in dev.expect("version 2")
        save(folder, "def handler(event, context):\n    raise KeyError('no such key')\n")
        dev.expect("updated changing: ")
        dev.press("e")
        dev.expect('/index.py", line 2, in handler')
        dev.expect(" FAIL ")
        dev.expect("no such key")
        dev.press("q")
        assert (dev.wait(), dev.is_restored()) == (0, True)
    assert dev.everything.count("updated changing: ") == 2


def test_keys_send_files_and_deploy_again(engine: EngineProcess, tmp_path: Path) -> None:
    (tmp_path / "event.json").write_text('{"mine": 1}')
    with terminal("dev", folder_of(tmp_path / "sending"), environ={"FUNCTIOND_URL": engine.url}) as dev:
        dev.expect("quit")
        dev.press("e")
        dev.expect("No event was sent yet.")
        dev.press("f")
        dev.expect("File with the event: ")
        assert dev.is_restored()
        dev.press(f"{tmp_path}/event.json\n")
        assert "stdout got mine" in dev.expect("version 1")
        dev.press("f")
        dev.expect("File with the event: ")
        dev.press("/nowhere\n")
        dev.expect("cannot read /nowhere: No such file or directory")
        dev.press("\x1b[Ar")  # an arrow is no key
        dev.expect("updated sending: ")


def end_by_key(dev: Terminal) -> None:
    dev.press("\x03")
    assert (dev.wait(), dev.is_restored()) == (0, True)


def end_by_hang_up(dev: Terminal) -> None:
    dev.hang_up()
    assert dev.process.wait(30) == 0


def end_by_kill(dev: Terminal) -> None:
    dev.process.kill()


@pytest.mark.parametrize("end", [end_by_key, end_by_hang_up, end_by_kill])
def test_an_engine_of_its_own_ends_with_the_command(tmp_path: Path, end: Callable[[Terminal], None]) -> None:
    environ = {"FUNCTIOND_URL": NOTHING, "FUNCTIOND_EXECUTOR__ISOLATION": "process", "TMPDIR": str(tmp_path)}
    with terminal("dev", folder_of(tmp_path / "alone"), environ=environ) as dev:
        assert f"No engine runs at {NOTHING}" in dev.expect("created alone: ")
        dev.expect("quit")
        dev.press("1")
        dev.expect("version 1")
        processes = descendants(dev.process.pid)
        assert len(processes) > 1
        end(dev)
        until(lambda: not any(map(is_alive, processes)))
    if end is not end_by_kill:
        assert not list(tmp_path.glob("functiond-dev-*"))


def test_plain_lines_need_no_terminal(engine: EngineProcess, tmp_path: Path) -> None:
    (tmp_path / "tasks.py").write_text(
        "from functiond import App\napp = App()\n@app.function()\ndef add(a: int, b: int) -> int:\n    return a + b\n"
    )
    command = [*PROGRAM, "dev", "tasks:app"]
    environ = {
        **CLEAN,
        "FUNCTIOND_URL": engine.url,
        "PYTHONPATH": os.pathsep.join([str(ROOT), CLEAN.get("PYTHONPATH", "")]),
    }
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, env=environ, cwd=tmp_path, text=True) as dev:
        assert dev.stdout is not None
        assert dev.stdout.readline().startswith("created add: ")
        assert dev.stdout.readline() == "Press Ctrl-C to end.\n"
        functiond("invoke", "add", "--data", '{"args": [1, 2], "kwargs": {}}', url=engine.url)
        *_, status, _, unit, source, result = dev.stdout.readline().split()
        dev.send_signal(signal.SIGTERM)
        assert (status, unit, source, result, dev.wait(30)) == ("SUCCESS", "ms", "(API)", "3", 0)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["/nowhere"], "cannot read /nowhere: no such file or folder"),
        (["tests:app", "--handler", "index.handler"], "an app takes --runtime and --env only"),
    ],
)
def test_unusable_options_are_refused_at_once(arguments: list[str], problem: str) -> None:
    run = functiond("dev", *arguments, url=NOTHING)

    assert (run.returncode, run.stdout) == (2, "")
    assert problem in run.stderr
