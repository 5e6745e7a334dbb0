"""Search for interpreters, on this machine and on one simulated by launchers in a folder."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

from engine.errors import InvalidField, NoInterpreter
from engine.runtimes.catalog import ELSEWHERE, Family, find_runtime, refusal_of, warning_of
from engine.runtimes.interpreters import Interpreters, own_interpreter
from tests.support.programs import can_others_read, needs

OWN = own_interpreter().path
READ_PATH = "import engine.runtimes.interpreters as read; print(read._files(read.Family.PYTHON))"
OWN_RUNTIME = "Python{}.{}".format(*sys.version_info)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a folder the whole search path of a user without a home directory."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("HOME", "/nonexistent")
    return tmp_path


def program(path: Path, version: str = "", *told: str) -> None:
    """Write a program that answers like an interpreter of a version, whatever its arguments. Without one, it fails."""
    said = json.dumps([version, "any", "any", "", "", *told])
    path.write_text(f"#!/bin/sh\necho '{said}'\n" if version else "#!/bin/sh\nexit 127\n")
    path.chmod(0o755)


@pytest.mark.parametrize(
    ("name", "family", "version"),
    [
        ("Python3.10", Family.PYTHON, (3, 10)),
        ("Python2.7", Family.PYTHON, (2, 7)),
        ("Node.js18.15", Family.NODE, (18, 15)),
        ("Custom", Family.CUSTOM, (0, 0)),
        ("http", Family.HTTP, (0, 0)),
        ("Lambda", Family.LAMBDA, (0, 0)),
        ("provided.al2023", Family.LAMBDA, (0, 0)),
        ("Java8", None, (0, 0)),
    ],
)
def test_the_family_of_a_runtime_follows_from_its_name(
    name: str, family: Family | None, version: tuple[int, int]
) -> None:
    runtime = find_runtime(name)

    assert runtime is not None
    assert (runtime.family, runtime.version) == (family, version)


@pytest.mark.parametrize("name", ["", "python3.10", "Python", "Python4.0", "Python3.10 ", "Node18", "custom", "HTTP"])
def test_other_names_are_no_runtimes(name: str) -> None:
    assert find_runtime(name) is None


async def test_python_functions_run_on_the_interpreter_of_their_version() -> None:
    command = await Interpreters().worker_command(OWN_RUNTIME)

    assert (command[0], command[1], Path(command[2]).name) == (OWN, "-I", "python_worker.py")


async def test_the_nearest_minor_version_serves_and_the_log_says_so_once(machine: Path) -> None:
    real = machine / "real"
    program(real)
    program(machine / "python3.98", "3.98", "/venv/python", str(real))
    program(machine / "python3.90", "3.90", "/venv/python", "/real/python3.90")
    interpreters = Interpreters()

    with capture_logs() as logs:
        commands = [await interpreters.worker_command("Python3.95") for _ in range(2)]

    assert [command[0] for command in commands] == [str(real)] * 2
    assert [(line["runtime"], line["version"]) for line in logs] == [("Python3.95", "3.98")]


async def test_a_launcher_that_does_not_run_is_passed_over(machine: Path) -> None:
    program(machine / "python3.95")

    assert (await Interpreters().worker_command("Python3.95"))[0] == OWN


async def test_versions_before_the_workers_language_are_never_taken(machine: Path) -> None:
    program(machine / "python3.6", "3.6", "/real/python3.6", "/real/python3.6")

    assert (await Interpreters().worker_command("Python3.6"))[0] == OWN


async def test_functions_of_python_2_run_on_the_nearest_python_3(machine: Path) -> None:
    program(machine / "python2.7", "2.7", "/real/python2.7", "/real/python2.7")
    program(machine / "python3.6", "3.6", "/real/python3.6", "/real/python3.6")

    assert (await Interpreters().worker_command("Python2.7"))[0] == OWN


def test_only_runtimes_of_another_language_version_have_a_warning() -> None:
    names = ("Python2.7", "Python3.6", "Node.js6.10", "Custom", "Java8", "nonsense")

    assert [name for name in names if warning_of(name)] == ["Python2.7"]
    assert "Python2.7" in warning_of("Python2.7")


@pytest.mark.parametrize("name", sorted(ELSEWHERE))
def test_a_runtime_that_is_not_run_here_is_refused_with_what_to_use(name: str) -> None:
    text = refusal_of(name)

    assert [word for word in ("http", "Custom", "bootstrap", "this engine runs Python3") if word not in text] == []
    assert ("images" in text) == ("Image" in name)


async def test_an_interpreter_that_is_set_serves_every_version_with_its_own_packages(tmp_path: Path) -> None:
    link = tmp_path / "bin" / "python"
    link.parent.mkdir()
    link.symlink_to(OWN)
    (tmp_path / "pyvenv.cfg").write_text(f"home = {Path(OWN).parent}\n")

    assert (await Interpreters(python=str(link)).worker_command("Python3.6"))[0] == str(link)


@pytest.mark.parametrize(("told", "shown"), [((), "does not run"), (("3.8", "/a", "/a"), "3.8")])
async def test_a_set_interpreter_that_is_of_no_use_is_named(machine: Path, told: tuple[str, ...], shown: str) -> None:
    program(machine / "mine", *told)

    with pytest.raises(NoInterpreter, match=rf"found only \S*mine \({shown}\): .* setting executor.python") as refused:
        await Interpreters(python=str(machine / "mine")).find("Python3.10")

    assert refused.value.field == "runtime"


async def test_node_of_the_nearest_major_version_serves_from_18_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for version in ("16.17", "20.1", "24.0"):
        (tmp_path / version).mkdir()
        program(tmp_path / version / "node", version + ".9", f"/real/{version}", f"/real/{version}")
    monkeypatch.setenv("PATH", ":".join(str(tmp_path / version) for version in ("16.17", "24.0", "20.1")))
    monkeypatch.setenv("HOME", "/nonexistent")

    command = await Interpreters().worker_command("Node.js16.17")

    assert (command[0], Path(command[1]).name) == ("/real/20.1", "node_worker.cjs")


async def test_an_interpreter_that_is_replaced_is_looked_for_again(machine: Path) -> None:
    old, new = machine / "old", machine / "new"
    for real in (old, new):
        program(real, "20.1.0", str(real), str(real))
    interpreters = Interpreters()
    program(machine / "node", "20.1.0", str(old), str(old))
    before = await interpreters.worker_command("Node.js20.1")

    old.unlink()
    program(machine / "node", "20.2.0", str(new), str(new))

    assert [before[0], (await interpreters.worker_command("Node.js20.1"))[0]] == [str(old), str(new)]


async def test_an_interpreter_installed_later_is_found_without_a_new_start(machine: Path) -> None:
    interpreters = Interpreters()
    with pytest.raises(NoInterpreter, match=r"this machine has none: install one, or name it by .* executor\.node"):
        await interpreters.find("Node.js18.15")

    program(machine / "node", "18.15.0", "/real/node", "/real/node")

    assert (await interpreters.worker_command("Node.js18.15"))[0] == "/real/node"


@pytest.mark.parametrize(("runtime", "argument"), [("Custom", "custom"), ("http", "http"), ("provided.al2", "lambda")])
async def test_runtimes_with_their_own_bootstrap_are_served_by_the_bridge(runtime: str, argument: str) -> None:
    command = await Interpreters().worker_command(runtime)

    assert (command[0], Path(command[2]).name, command[3:]) == (OWN, "bridge_worker.py", [argument])


@pytest.mark.parametrize("runtime", ["Java8", "C#(.NET Core 6.0)", "Custom Image", "Python", "nonsense"])
async def test_a_runtime_without_an_interpreter_is_refused_with_those_that_have_one(runtime: str) -> None:
    with pytest.raises(InvalidField, match="this engine runs Python3") as refused:
        await Interpreters().find(runtime)

    assert not isinstance(refused.value, NoInterpreter)


@needs("node")
async def test_the_installed_node_is_found() -> None:
    assert Path((await Interpreters().worker_command("Node.js18.15"))[0]).name == "node"


async def test_the_interpreter_of_a_runtime_is_described() -> None:
    info = await Interpreters().describe(OWN_RUNTIME)

    assert info is not None
    assert (info.runtime, info.language, info.implementation) == (OWN_RUNTIME, "python", sys.implementation.name)
    assert (info.version, info.machine) == (platform.python_version(), platform.machine())
    assert (info.libc, info.libc_version) == platform.libc_ver()
    assert await Interpreters().describe("Custom") == replace(info, runtime="Custom")


async def test_installed_interpreters_are_listed_the_newest_first_each_by_its_own_runtime(machine: Path) -> None:
    program(machine / "node", "20.1.0")
    (machine / "node").write_text("#!/bin/sh\necho '[]'\n")  # does not answer like Node.js
    program(machine / "python3.99")
    (machine / OWN_RUNTIME.lower()).symlink_to(OWN)

    installed = await Interpreters().installed()

    assert [interpreter.runtime for interpreter in installed] == [OWN_RUNTIME]


async def test_an_interpreter_of_the_settings_is_the_only_one_of_its_language() -> None:
    installed = await Interpreters(python=OWN).installed()

    assert [interpreter.runtime for interpreter in installed if interpreter.language is Family.PYTHON] == [OWN_RUNTIME]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")
@pytest.mark.skipif(not can_others_read(Path(__file__).parent), reason="other users cannot read these sources")
def test_a_folder_of_the_search_path_that_this_user_cannot_read_is_left_out(tmp_path: Path) -> None:
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    become = ["setpriv", "--reuid=4242", "--regid=4242", "--clear-groups"]
    environment = {"PATH": f"{private}/bin:/usr/bin:/bin", "HOME": "/nonexistent"}
    ran = subprocess.run([*become, sys.executable, "-c", READ_PATH], env=environment, capture_output=True, text=True)

    assert (ran.returncode, ran.stderr) == (0, "")
