"""Dependencies of Python code: ``requirements.txt``, else those of ``pyproject.toml``, installed by uv, else by pip."""

from __future__ import annotations

import json
import shutil
import sys
import tomllib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from msgspec import Struct

from engine.cli.client import UsageError
from engine.cli.packaging.interpreters import LocalInterpreter, interpreter_text, local_builder
from engine.cli.packaging.tools import run_tool
from engine.runtimes.descriptions import InterpreterInfo

#: Versions of glibc for which uv has names.
_UV_GLIBC = (17, 28, *range(31, 41))
_OLDEST_GLIBC = {"x86_64": 5}  #: of wheels; on other machines 17
_LEGACY = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}  #: earlier names
_LIST = ".requirements"  #: file with those of pyproject.toml, for pip
_INCLUDES = ("-r", "--requirement", "-c", "--constraint")
_SOURCES = ("-e", "--editable", "-f", "--find-links")  #: options that name folders


class PythonDependencies(Struct, frozen=True, kw_only=True):
    file: Path
    #: Of pyproject.toml; None: the file is a list of requirements itself.
    requirements: list[str] | None = None
    content: str = ""  #: of all files that say what is installed; empty: they name what may change, such as folders


def find_dependencies(root: Path) -> PythonDependencies | None:
    """Return the dependencies of a folder; None if it has none. Raises UsageError if their file is malformed."""
    if (file := root / "requirements.txt").is_file():
        lines = list(_lines(file, set()))
        if not lines:
            return None
        return PythonDependencies(file=file, content="" if any(map(_may_change, lines)) else "\n".join(lines))
    if (file := root / "pyproject.toml").is_file():
        return _of_project(file)
    return None


def _of_project(file: Path) -> PythonDependencies | None:
    try:
        described = tomllib.loads(file.read_text())
        project, sources = described.get("project", {}), described.get("tool", {}).get("uv", {})
        found = project.get("dependencies", [])
        if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
            raise ValueError("project.dependencies must be a list of texts")
        if "dependencies" in project.get("dynamic", []):
            raise ValueError("project.dependencies are dynamic, which deploy cannot read; write requirements.txt")
    except ValueError as error:
        raise UsageError(f"{file} cannot be used: {error}") from None
    except AttributeError:
        raise UsageError(f"{file} cannot be used: project, tool and tool.uv must be tables") from None
    if not found:
        return None
    changing = bool(sources.get("sources")) or any(map(_may_change, found))
    content = "" if changing else "\n".join([*found, json.dumps(sources, default=str)])
    return PythonDependencies(file=file, requirements=found, content=content)


def _lines(file: Path, seen: set[Path]) -> Iterator[str]:
    """Yield the lines of a list of requirements and of the lists that it includes, without comments."""
    if file in seen:
        return
    seen.add(file)
    try:
        text = file.read_text()
    except UnicodeError as error:
        raise UsageError(f"{file} cannot be used: it is not UTF-8: {error}") from None
    for raw in text.splitlines():
        line = raw.strip()
        if line and not line.startswith("#"):
            yield line
            option, _, included = line.replace("=", " ", 1).partition(" ")
            if option in _INCLUDES and "://" not in included:
                yield from _lines(file.parent / included.strip(), seen)


def _may_change(line: str) -> bool:
    """Return whether a requirement names a folder or file of this machine, a list elsewhere, or a branch of Git."""
    text = line.partition(" #")[0]
    if text.startswith(_INCLUDES):
        return "://" in text
    is_path = text.startswith(".") or ("/" in text and "://" not in text and not text.startswith("-"))
    return is_path or text.startswith(_SOURCES) or "file:" in text or "git+" in text


def tool_of(wanted: InterpreterInfo) -> str:
    """Return the program that installs for an interpreter: ``uv`` or ``pip``. Raises UsageError if there is none."""
    if shutil.which("uv") and (_uv_platform(wanted) or local_builder(wanted)):
        return "uv"
    if find_spec("pip"):
        return "pip"
    raise UsageError(
        "dependencies are installed by uv or pip, and this machine has neither: install uv, or pip by "
        f"{sys.executable} -m ensurepip; --no-install sends the folder as it is"
    )


def install(dependencies: PythonDependencies, tool: str, wanted: InterpreterInfo, folder: Path) -> None:
    """Install dependencies into ``folder``. Source packages are built only if this machine has such an interpreter.

    Raises UsageError with the report of the program if it fails.
    """
    local, file = local_builder(wanted), dependencies.file.resolve()
    lists = folder / _LIST
    if dependencies.requirements is not None and tool == "pip":
        lists.write_text("\n".join(dependencies.requirements))
        file = lists
    command = _uv(local, wanted) if tool == "uv" else _pip(local, wanted)
    action = f"installing {dependencies.file.name} with {tool} for {interpreter_text(wanted)}"
    command += ["--target", str(folder), "-r", str(file)]
    run_tool(command, dependencies.file.resolve().parent, action, "" if local else _advice(wanted))
    lists.unlink(missing_ok=True)


def _advice(wanted: InterpreterInfo) -> str:
    return (
        f"This machine has no {interpreter_text(wanted)}, so only wheels for it are used. Source packages are refused: "
        "they would be built for this machine. Require versions with wheels, or deploy from a machine like the engine's"
    )


def _uv(local: LocalInterpreter | None, wanted: InterpreterInfo) -> list[str]:
    if local is not None:
        return ["uv", "pip", "install", "--python", local.path]
    version = ["--python-version", wanted.version, "--python-platform", _uv_platform(wanted)]
    return ["uv", "pip", "install", "--python", sys.executable, *version, "--only-binary", ":all:"]


def _pip(local: LocalInterpreter | None, wanted: InterpreterInfo) -> list[str]:
    pip = [sys.executable, "-P", "-m", "pip"]  # -P: the folder may have a pip of its own, which must not run
    if local is not None:
        return [*pip, "--python", local.path, "install", "--no-compile"]
    version = [f"--python-version={wanted.version}", f"--implementation={_tag(wanted.implementation)}"]
    platforms = [f"--platform={one}" for one in _pip_platforms(wanted)]
    return [*pip, "install", "--no-compile", "--only-binary=:all:", *version, *platforms]


def _tag(implementation: str) -> str:
    return {"cpython": "cp", "pypy": "pp"}.get(implementation, implementation)


def _uv_platform(wanted: InterpreterInfo) -> str:
    """Return uv's name of a platform; empty if it has none."""
    if wanted.machine not in ("x86_64", "aarch64"):
        return ""
    if wanted.libc == "musl":
        return f"{wanted.machine}-unknown-linux-musl"
    versions = [one for one in _UV_GLIBC if one <= _minor(wanted)]
    return f"{wanted.machine}-manylinux_2_{versions[-1]}" if versions and wanted.libc == "glibc" else ""


def _pip_platforms(wanted: InterpreterInfo) -> Iterator[str]:
    """Yield the platforms of wheels that run on a platform, the newest first."""
    kind, oldest = ("manylinux_2", 17) if wanted.libc == "glibc" else ("musllinux_1", 1)
    oldest = _OLDEST_GLIBC.get(wanted.machine, oldest) if wanted.libc == "glibc" else oldest
    for minor in range(_minor(wanted), oldest - 1, -1):
        yield f"{kind}_{minor}_{wanted.machine}"
        if wanted.libc == "glibc" and minor in _LEGACY:
            yield f"{_LEGACY[minor]}_{wanted.machine}"
    yield f"linux_{wanted.machine}"


def _minor(wanted: InterpreterInfo) -> int:
    _, _, minor = wanted.libc_version.partition(".")
    return int(minor) if minor.isdigit() else 0


def is_needed(name: str) -> bool:
    """Return whether the code needs an installed file when it runs.

    Programs in ``bin`` start the interpreter of this machine. Some files differ after each installation.
    """
    top, _, last = name.split("/")[0], *name.rpartition("/")[1:]
    return top not in ("bin", ".lock", _LIST) and last not in ("uv_cache.json", "direct_url.json")
