"""Deployment of an app: its description, its package, its functions with their schedules."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from functiond.app import Deployment
from functiond.describe import Description
from msgspec import Struct, convert
from msgspec.structs import replace

from engine.config.search_path import CLIENT
from engine.deploy.client import ApiError, Client, path_of
from engine.deploy.functions import Asynchronous, store, terms_of
from engine.deploy.packaging import Build, BuildOptions, build
from engine.deploy.packaging.files import IGNORE_FILES
from engine.deploy.packaging.python import INCLUDES, SOURCES, PythonDependencies, find_dependencies
from engine.deploy.progress import report
from engine.deploy.timers import read_schedule, set_timer
from engine.errors import UsageError

_TARGET = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
PROGRAM = "functiond.describe"
REQUIREMENTS = "requirements.txt"
_LEFT_OUT = shutil.ignore_patterns("__pycache__", ".git", ".venv", "node_modules")
_OWN = re.compile(r"functiond\b(?![-.])", re.IGNORECASE)
_TAKEN = ("functiond", "functiond.py", "functiond_apps")


def timer_of(function: Deployment) -> dict[str, str] | None:
    """Return the options of the TIMER trigger of a function. Raises UsageError if the schedule is invalid."""
    return None if function.schedule is None else read_schedule(function.schedule, function.zone)


def is_app(text: str) -> bool:
    return bool(_TARGET.fullmatch(text)) and not os.path.exists(text)


def describe(target: str, search_path: Sequence[str] = ()) -> Description:
    """Import an app, such as ``tasks:app``, and return its description.

    Its modules are searched in ``search_path``, by default in the current folder and as the environment says.

    Raises UsageError after the traceback is printed if the module cannot be imported, has no such app, or if a schedule
    is invalid.
    """
    path = [*search_path, os.environ.get("PYTHONPATH", ""), CLIENT if os.path.isdir(CLIENT) else ""]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))}
    # Without writing bytecode, which would be stale if a file of equal size replaced this one within a second.
    command = [sys.executable, "-B", *(["-P"] if search_path else []), "-m", PROGRAM, target]
    run = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if run.returncode == 0:
        if run.stderr:  # output of the modules of the app
            report(run.stderr.rstrip("\n"))
        app = msgspec.json.decode(run.stdout, type=Description)
        for function in app.functions:
            timer_of(function)
        return app
    *lines, last = run.stderr.rstrip("\n").split("\n")
    if last.startswith("functiond: "):
        raise UsageError(last.removeprefix("functiond: "))
    if lines:
        report("\n".join(lines))
    raise UsageError(f"cannot import {target}: {last}")


@contextmanager
def staged(app: Description) -> Iterator[Path]:
    """Make the folder of an app's package for the duration of the block.

    Beside the modules of the app, it has a module with a handler for each function, the package ``functiond`` for
    instances, and the requirements of the app without functiond itself.
    """
    source = Path(app.root)
    if taken := [part for part in app.parts if part in _TAKEN]:
        raise UsageError(f"{source / taken[0]} has a name that the package of an app needs: rename it")
    with tempfile.TemporaryDirectory(prefix="functiond-") as folder:
        root = Path(folder, app.module.rpartition(".")[2])
        root.mkdir()
        for part in [*app.parts, *IGNORE_FILES]:
            _copy(source / part, root / part)
        handlers = root / f"{app.handlers}.py"
        handlers.parent.mkdir(parents=True)
        handlers.write_text(_handlers(app))
        shutil.copyfile(app.instance, root / "functiond.py")
        if requirements := _requirements(source):
            (root / REQUIREMENTS).write_text("".join(f"{line}\n" for line in requirements))
        yield root


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, symlinks=True, ignore=_LEFT_OUT)
    elif source.is_file():
        shutil.copyfile(source, target)


def _handlers(app: Description) -> str:
    target = f"{app.module}:{app.app}"
    names = [function.attribute for function in app.functions]
    lines = [f"{name} = handler_of({target!r}, {name!r})" for name in names]
    head = f'"""Handlers of the app {target}, written by ``functiond deploy``."""'
    return "\n".join([head, "", "from functiond import handler_of", "", *lines, ""])


def _requirements(root: Path) -> list[str]:
    """Return the requirements of an app without functiond, from ``root``, else from the current folder.

    Raises UsageError if their file is malformed.
    """
    dependencies = find_dependencies(root) or find_dependencies(Path.cwd())
    if dependencies is None or _is_clone(dependencies):
        return []
    lines = dependencies.requirements
    if lines is None:
        lines = [
            _absolute(line.strip(), dependencies.file.parent) for line in dependencies.file.read_text().splitlines()
        ]
    return [line for line in lines if line and not line.startswith("#") and not _OWN.match(line)]


def _is_clone(dependencies: PythonDependencies) -> bool:
    """Return whether the dependencies are those of functiond itself, for apps that are written in its clone."""
    if dependencies.requirements is None:
        return False
    project: dict[str, object] = tomllib.loads(dependencies.file.read_text())["project"]
    return project.get("name") == "functiond"


def _absolute(line: str, root: Path) -> str:
    """Return a line of a list of requirements, with the whole path of a file or folder that it names."""
    option, _, value = line.replace("=", " ", 1).partition(" ") if line.startswith("-") else ("", "", line)
    if (option in (*INCLUDES, *SOURCES) or line.startswith(".")) and "://" not in value:
        return f"{option} {root / value.strip()}".lstrip()
    return line


class Deployed(Struct, frozen=True, kw_only=True):
    """Result of the deployment of one function."""

    func_name: str
    func_urn: str
    action: str  #: created or updated
    terms: str  #: timeout, memory, runtime, retries and maximum age
    schedule: str  #: empty: none
    due: str  #: next due times of a new or changed schedule


class AppDeployment(Struct, frozen=True, kw_only=True):
    """Result of the deployment of an app."""

    functions: list[Deployed]
    gone: list[str]  #: functions of earlier deployments that the code has no more
    pruned: bool  #: they were deleted


def store_app(
    client: Client, app: Description, config: Mapping[str, Any], options: BuildOptions, *, prune: bool
) -> AppDeployment:
    """Deploy all functions of an app with one package.

    ``config`` has the runtime and variables for all of them, by their fields in the API. With ``prune``, functions that
    an earlier deployment of the app made, and that its code has no more, are deleted.
    """
    settings = {each.name: convert(each, Asynchronous, from_attributes=True) for each in app.functions}
    for configured in settings.values():
        configured.check()
    for function in app.functions:
        with _told(function):
            settings[function.name].check_receivers(client, settings.keys())
    existing = {entry["func_name"]: entry for entry in client.get_all("", "functions")}
    earlier = {name: entry for name, entry in existing.items() if entry["handler"].rpartition(".")[0] == app.handlers}
    runtime = config.get("runtime") or next((entry["runtime"] for entry in earlier.values()), "")
    with staged(app) as folder:
        handler = f"{app.handlers}.{app.functions[0].attribute}"
        built = build(client, folder, replace(options, runtime=runtime, handler=handler))
    others = (existing.keys() - earlier.keys()) & settings.keys()
    replaced = [f"{name} was deployed from elsewhere, and is replaced" for name in sorted(others)]
    for note in [*built.notes, *replaced]:
        report(f"functiond: {note}")
    shown: dict[str, dict[str, Any]] = {}
    for function in app.functions:
        with _told(function, shown):
            shown[function.name] = _store(client, app, function, built, config)
    deployed = []
    for function in app.functions:  # destinations may be any of the functions, so all are stored before
        with _told(function, shown):
            terms = terms_of(shown[function.name], settings[function.name].apply(client, function.name))
            schedule, due = set_timer(client, function.name, timer_of(function))
        action = "updated" if function.name in existing else "created"
        urn = shown[function.name]["func_urn"]
        done = Deployed(func_name=function.name, func_urn=urn, action=action, terms=terms, schedule=schedule, due=due)
        deployed.append(done)
    gone = sorted(earlier.keys() - shown.keys())
    for name in gone if prune else []:
        client.send("DELETE", path_of(name))
    return AppDeployment(functions=deployed, gone=gone, pruned=prune)


@contextmanager
def _told(function: Deployment, stored: Collection[str] = ()) -> Iterator[None]:
    """Name the function in errors of the engine, and those whose code is stored by then."""
    try:
        yield
    except ApiError as error:
        note = f"; stored already: {', '.join(stored)}" if stored else ""
        raise ApiError(error.status, error.code, f"function {function.name}: {error.message}{note}") from None


def _store(
    client: Client, app: Description, function: Deployment, built: Build, config: Mapping[str, Any]
) -> dict[str, Any]:
    """Create or update a function, and return it."""
    old = client.find(path_of(function.name, "/config"))
    own: dict[str, Any] = {"timeout": function.timeout, "memory_size": function.memory}
    if function.per_key is not None:
        own["functiond"] = {**((old or {}).get("functiond") or {}), "per_key": function.per_key}
    given = {name: value for name, value in own.items() if value is not None}
    fields = {**config, "runtime": built.runtime, "handler": f"{app.handlers}.{function.attribute}", **given}
    return store(client, function.name, built.package, old, fields)
