"""Folder with everything that the package of an app needs, from which it is built like any other function's."""

from __future__ import annotations

import re
import shutil
import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engine.cli.apps.description import AppDescription
from engine.cli.client import UsageError
from engine.cli.packaging.python_dependencies import PythonDependencies, find_dependencies

IGNORE_FILES = (".functiondignore", ".gitignore")
REQUIREMENTS = "requirements.txt"
_LEFT_OUT = shutil.ignore_patterns("__pycache__", ".git", ".venv", "node_modules")
_OWN = re.compile(r"functiond\b(?![-.])", re.IGNORECASE)
#: Options in lists of requirements that name a file or folder.
_PATHS = ("-r", "--requirement", "-c", "--constraint", "-e", "--editable", "-f", "--find-links")
_TAKEN = ("functiond", "functiond.py", "functiond_apps")


@contextmanager
def staged(app: AppDescription) -> Iterator[Path]:
    """Make the folder of an app's package for the duration of the block.

    Beside the modules of the app, it has a module with a handler for each function, the package ``functiond`` for
    instances, and the requirements of the app without functiond itself.
    """
    if taken := [part for part in app.parts if part in _TAKEN]:
        raise UsageError(f"{app.root / taken[0]} has a name that the package of an app needs: rename it")
    with tempfile.TemporaryDirectory(prefix="functiond-") as folder:
        root = Path(folder, app.module.rpartition(".")[2])
        root.mkdir()
        for part in [*app.parts, *IGNORE_FILES]:
            _copy(app.root / part, root / part)
        handlers = root / f"{app.handlers}.py"
        handlers.parent.mkdir(parents=True)
        handlers.write_text(_handlers(app))
        shutil.copyfile(app.instance, root / "functiond.py")
        if requirements := _requirements(app.root):
            (root / REQUIREMENTS).write_text("".join(f"{line}\n" for line in requirements))
        yield root


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, symlinks=True, ignore=_LEFT_OUT)
    elif source.is_file():
        shutil.copyfile(source, target)


def _handlers(app: AppDescription) -> str:
    target = f"{app.module}:{app.app}"
    names = [function.attribute for function in app.functions]
    lines = [f"{name} = handler_of({target!r}, {name!r})" for name in names]
    head = f'"""Handlers of the app {target}, written by ``functiond deploy``."""'
    return "\n".join([head, "", "from functiond import handler_of", "", *lines, ""])


def _requirements(root: Path) -> list[str]:
    """Return the requirements of an app without functiond, from ``root``, else from the current folder.

    Raises UsageError if their file is malformed.
    """
    found = find_dependencies(root) or find_dependencies(Path.cwd())
    if found is None or _is_clone(found):
        return []
    lines = found.requirements
    if lines is None:
        lines = [_absolute(line.strip(), found.file.parent) for line in found.file.read_text().splitlines()]
    return [line for line in lines if line and not line.startswith("#") and not _OWN.match(line)]


def _is_clone(found: PythonDependencies) -> bool:
    """Return whether the dependencies are those of functiond itself, for apps that are written in its clone."""
    if found.requirements is None:
        return False
    project: dict[str, object] = tomllib.loads(found.file.read_text())["project"]
    return project.get("name") == "functiond"


def _absolute(line: str, root: Path) -> str:
    """Return a line of a list of requirements, with the whole path of a file or folder that it names."""
    option, _, value = line.replace("=", " ", 1).partition(" ") if line.startswith("-") else ("", "", line)
    if (option in _PATHS or line.startswith(".")) and "://" not in value:
        return f"{option} {root / value.strip()}".lstrip()
    return line
