"""Deployment of an app: its description, its package, and the plan by which its functions become as its code says."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from functiond.app import Deployment
from functiond.describe import Description
from msgspec import Struct
from msgspec.structs import replace

from engine.config.search_path import CLIENT
from engine.deploy.apis import apis_of
from engine.deploy.client import ApiError, app_of
from engine.deploy.functions import APPS, Asynchronous, terms_of
from engine.deploy.manifest.changes import Plan
from engine.deploy.manifest.planning import make_plan
from engine.deploy.manifest.project import Data, Project
from engine.deploy.manifest.reading import AsyncTable, ManifestReader, Variables
from engine.deploy.manifest.versions import read_param
from engine.deploy.packaging import Build, BuildOptions, build, left_out
from engine.deploy.packaging.files import IGNORE_FILES, select
from engine.deploy.packaging.python import INCLUDES, SOURCES, PythonDependencies, find_dependencies
from engine.deploy.progress import report
from engine.deploy.timers import KIND, NAME, next_due, read_schedule
from engine.errors import UsageError
from engine.model.urn import LATEST

_TARGET = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
PROGRAM = "functiond.describe"
REQUIREMENTS = "requirements.txt"
_LEFT_OUT = shutil.ignore_patterns("__pycache__", ".git", ".venv", "node_modules")
_OWN = re.compile(r"functiond\b(?![-.])", re.IGNORECASE)
_TAKEN = ("functiond", "functiond.py", "functiond_apps")
#: Requirements that serve a web application, by its interface.
SERVERS = {"asgi": ["uvicorn>=0.30"], "wsgi": ["a2wsgi>=1.10", "uvicorn>=0.30"]}
#: Configuration of a new function with a web application.
_WEB: Data = {"timeout": 60, "memory_size": 256, "strategy_config": {"concurrent_num": 200}}
_WEB |= {"initializer_timeout": 60, "pre_stop_timeout": 10}


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
    hint = f": {sys.executable} imports it, so install its requirements there, too" if "ModuleNotFound" in last else ""
    raise UsageError(f"cannot import {target}: {last}{hint}")


@contextmanager
def staged(app: Description) -> Iterator[Path]:
    """Make the folder of an app's package for the duration of the block.

    Beside the modules of the app, it has a module with a handler for each function, the package ``functiond`` for
    instances, and the requirements of the app: those of its servers too, and not functiond itself.
    """
    source = Path(app.root)
    with tempfile.TemporaryDirectory(prefix="functiond-") as folder:
        root = Path(folder, app.module.rpartition(".")[2])
        root.mkdir()
        for part in [*app.parts, *IGNORE_FILES]:
            _copy(source / part, root / part)
        if taken := [name for name in _TAKEN if (root / name).exists()]:
            raise UsageError(f"{source / taken[0]} has a name that the package of an app needs: rename it")
        handlers = root / f"{app.handlers}.py"
        handlers.parent.mkdir(parents=True)
        handlers.write_text(_handlers(app))
        shutil.copyfile(app.instance, root / "functiond.py")
        requirements = _requirements(source)
        named = {re.split(r"[^\w-]", line.lower())[0] for line in requirements}
        servers = (server for function in app.functions for server in SERVERS.get(function.web or "", ()))
        requirements += [server for server in servers if server.partition(">")[0] not in named]
        if requirements:
            (root / REQUIREMENTS).write_text("".join(f"{line}\n" for line in requirements))
        yield root


def _copy(source: Path, target: Path) -> None:
    if target.is_dir():  # the whole folder of a web application
        selection = select(source)
        for note in left_out(selection):
            report(f"functiond: {note}")
        for name, file in selection.found.items():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, target / name)
    elif source.is_dir():
        shutil.copytree(source, target, symlinks=True, ignore=_LEFT_OUT)
    elif source.is_file():
        shutil.copyfile(source, target)


def _handlers(app: Description) -> str:
    target, source = f"{app.module}:{app.app}", f"{app.module}:{app.source}"
    imports, lines = ["from functiond import handler_of, startup_of"], list[str]()
    for function in app.functions:
        name = function.attribute
        if function.web:
            imports.append("from functiond_web import Application")
            lines.append(f"{name} = Application({target!r}, {function.web!r})")
            lines += [f"{name}_{step} = {name}.{step}" for step in ("startup", "shutdown")]
        else:
            lines.append(f"{name} = handler_of({source!r}, {name!r})")
    lines += [f"startup = startup_of({source!r})"] if app.startup else []
    head = f'"""Handlers of the app {target}, written by ``functiond deploy``."""'
    return "\n".join([head, "", *imports, "", *lines, ""])


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
    action: str  #: created, updated or unchanged
    terms: str  #: timeout, memory, runtime, retries and maximum age
    schedule: str  #: empty: none
    due: str  #: next due times of a new or changed schedule


class AppDeployment(Struct, frozen=True, kw_only=True):
    """Result of the deployment of an app."""

    functions: list[Deployed]
    gone: list[str]  #: functions of the app that the code has no more
    pruned: bool  #: they were deleted


def store_app(project: Project, app: Description, plan: Plan, *, pruned: bool) -> AppDeployment:
    """Make the changes of ``plan_app``. Raises ApiError if the engine refuses one; those before it are made then."""
    existing, made = set(project.functions), dict[tuple[str, str], Any]()
    for number, change in enumerate(plan.changes):
        try:
            made[change.kind, change.name] = project.make(change)
        except ApiError as error:
            note = f"; {number} of {len(plan.changes)} changes are made: deploy again for the others"
            raise ApiError(error.status, error.code, f"cannot {change.title}: {error.message}{note}") from None
    deployed = []
    for function in app.functions:
        name, schedule = function.name, (timer_of(function) or {}).get("schedule", "")
        settings, timer = ("asynchronous settings", name), ("trigger", f"{KIND} {NAME} of {name}")
        changed = any(f" of {title}".endswith(f" of {name}") for _, title in made)
        shown = made.get(("function", name)) or project.functions[name]
        done = Deployed(
            func_name=name,
            func_urn=shown["func_urn"],
            action=("updated" if changed else "unchanged") if name in existing else "created",
            terms=terms_of(shown, made.get(settings) or project.settings(name).get(LATEST)),
            schedule=schedule,
            due=next_due(project.client, name, made[timer]) if schedule and timer in made else "",
        )
        deployed.append(done)
    gone = [change.name for change in (*plan.changes, *plan.unnamed) if change.title.startswith("delete function ")]
    return AppDeployment(functions=deployed, gone=gone, pruned=pruned)


def plan_app(
    project: Project, app: Description, config: Data, options: BuildOptions, *, prune: bool, take_over: bool
) -> Plan:
    """Return the changes that give a project the functions of an app.

    ``config`` has the runtime and variables for all of them, by their fields in the API. What neither it nor the code
    names stays as it is. With ``prune``, functions of the app that its code has no more are deleted. Without
    ``take_over``, raises FunctionOfApp for functions of other apps, and UsageError if the app was another module's.
    """
    project.check_role()
    for names in zip(*((function.name, function.attribute) for function in app.functions), strict=True):
        (name, number), *_ = Counter(names).most_common(1)
        if number > 1:
            raise UsageError(f"the app has a function {name}: choose another name for the web application, by --name")
    builds = _built(project, app, config, options, take_over=take_over)
    tables = {each.name: _table(app, each, builds[each.name], project, config) for each in app.functions}
    manifest = ManifestReader(Path(), Variables({})).manifest({"functions": tables})
    functions = {name: replace(function, built=builds[name]) for name, function in manifest.functions.items()}
    manifest = replace(manifest, functions=functions, app=app.name)
    return make_plan(manifest, project, prune=prune, send_secrets=False, take_over=take_over)


def _built(
    project: Project, app: Description, config: Data, options: BuildOptions, *, take_over: bool
) -> dict[str, Build]:
    """Return the package of each function. Functions of one runtime have the same."""
    earlier = {}
    for name, entry in project.functions.items():
        handlers = entry["handler"].rpartition(".")[0]
        if handlers == app.handlers:
            earlier[name] = entry["runtime"]
        elif app_of(entry) == app.name and handlers.startswith(APPS) and not take_over:
            target = ":".join(handlers.removeprefix(APPS).replace("/", ".").rsplit(".", 1))
            problem = f"the app {app.name} on the engine is {target}, with the function {name}"
            raise UsageError(f"{problem}: give one a name by App(name=…), or add --take-over if the app has moved")
        elif any(name == function.name for function in app.functions) and app_of(entry) in ("", app.name):
            report(f"functiond: {name} was deployed from elsewhere, and is to be replaced")
    default, handler = next(iter(earlier.values()), ""), f"{app.handlers}.{app.functions[0].attribute}"
    builds, built = dict[str, Build](), dict[str, Build]()
    with staged(app) as folder:
        for function in app.functions:
            runtime = function.runtime or config.get("runtime") or earlier.get(function.name, default)
            if runtime not in builds:
                builds[runtime] = build(project.client, folder, replace(options, runtime=runtime, handler=handler))
            built[function.name] = builds[runtime]
    for note in dict.fromkeys(note for each in builds.values() for note in each.notes):
        report(f"functiond: {note}")
    return built


def _table(app: Description, function: Deployment, built: Build, project: Project, config: Data) -> Data:
    """Return the table that a manifest would have for a function, without what stays as it is."""
    variables, secrets, common = function.environment, function.secrets, config.get("user_data")
    if missing := [name for name in secrets or () if name not in os.environ]:
        raise UsageError(f"function {function.name}: set the environment variable {missing[0]}, one of its secrets")
    own = _given(app=app.name, per_key=function.per_key, folders=function.folders, http=True if function.web else None)
    old, timer = project.functions.get(function.name, {}), timer_of(function)
    timers = [{"trigger_type_code": KIND, "event_data": {"name": NAME, **timer}}] if timer else []
    handler, startup = f"{app.handlers}.{function.attribute}", f"{app.handlers}.startup" if app.startup else ""
    strategy = _given(concurrency=function.instances, concurrent_num=function.concurrency)
    defaults: Data = {}
    if function.web:
        startup, defaults = f"{handler}_startup", {"pre_stop_handler": f"{handler}_shutdown", **({} if old else _WEB)}
    return defaults | _given(
        runtime=built.runtime,
        handler=handler,
        initializer_handler=startup,
        timeout=function.timeout,
        memory_size=function.memory,
        environment=variables if common is None else {**(variables or {}), **json.loads(common)},
        encrypted_environment=None if secrets is None else {name: os.environ[name] for name in secrets},
        strategy_config=strategy or None,
        functiond={**(old.get("functiond") or {}), **own},
        async_invoke_config=_settings(function, project.settings(function.name).get(LATEST)),
        controls=_given(rate=function.rate, soft_timeout=function.soft_timeout) or None,
        triggers=[*timers, *apis_of(function.http, mark=f"{NAME} ")],
    )


def _settings(function: Deployment, old: Data | None) -> Data | None:
    """Return the asynchronous settings ``old`` with those of the code; None if it names none."""
    fields = ("retries", "max_age", "on_success", "on_failure")
    options, rules = Asynchronous(**{field: getattr(function, field) for field in fields}), function.retry_rules
    if options == Asynchronous() and rules is None:
        return None
    merged = options.merged(old) | _given(retry_rules=rules)
    specs = merged.pop("destination_config").items()
    destinations = {name: {**spec, "param": read_param(spec["param"])} for name, spec in specs if spec}
    table = {field: merged[field] for field in AsyncTable.__struct_fields__ if field in merged}
    return table | {"destination_config": destinations}


def _given(**fields: Any) -> Data:
    return {name: value for name, value in fields.items() if value is not None}
