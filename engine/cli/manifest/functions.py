"""Changes to functions: configuration and code."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
from msgspec import UNSET

from engine.cli.client import UsageError, path_of
from engine.cli.manifest.changes import Change, Field, created, differences, hidden
from engine.cli.manifest.code import is_same_code
from engine.cli.manifest.project import Data, Project
from engine.cli.manifest.tables import Function
from engine.cli.output import write
from engine.cli.packaging import Build, BuildOptions, build
from engine.cli.packaging.interpreters import default_runtime
from engine.cli.uploads import NEW, upload
from engine.http.api.function_shapes import MountConfig, mounts_shown
from engine.runtimes.catalog import Family

_ENVIRONMENT = {"environment": "user_data", "encrypted_environment": "encrypted_user_data"}
#: Code of a function whose table names none: the engine's default code.
_DEFAULT_CODE = {"code_type": "inline"}


def function_changes(function: Function, project: Project) -> Iterator[Change]:
    """Yield the change that creates or updates a function, if it needs one."""
    old = project.functions.get(function.name)
    built = _built(function, project, old or {})
    if old is None:
        yield _creation(function, project, built)
        return
    package = built.package if built else None
    fields = dict(_changed_config(function, old))
    for name, field in _ENVIRONMENT.items():
        if isinstance(given := getattr(function.own, name), dict):
            fields |= hidden(differences(_variables(old[field]), given), f"{name}.")
    changes = {_ENVIRONMENT.get(name.partition(".")[0], name) for name in fields}
    body = {name: value for name, value in wanted(function).items() if name in changes}
    code = _new_code(function, project, old, package)
    if code:
        fields["code"] = Field(old=f"{old['code_size']:,} bytes", new=code)
    if fields:
        run = _updating(function, project, body, package if code else None, bool(code))
        yield Change(action="update", kind="function", name=function.name, fields=fields, run=run)


def wanted(function: Function) -> Data:
    """Return the configuration that the manifest names, as fields of the API."""
    environments = {
        field: json.dumps(given)
        for name, field in _ENVIRONMENT.items()
        if isinstance(given := getattr(function.own, name), dict)
    }
    return {**function.config, **environments}


def _built(function: Function, project: Project, old: Data) -> Build | None:
    """Return the package of the function's code, after checks; None if the manifest names no code."""
    if function.code is None:
        return None
    given = {name: function.config.get(name) or old.get(name, "") for name in ("runtime", "handler")}
    try:
        layered = bool(function.config.get("depend_version_list") or old.get("depend_list"))
        options = BuildOptions(**given, install=function.own.install, layered=layered)
        built = build(project.client, function.code, options)
    except UsageError as error:
        raise UsageError(f"functions.{function.name}.code: {error}") from None
    for note in built.notes:
        write(f"functiond: {function.name}: {note}", errors=True)
    return built


def _creation(function: Function, project: Project, built: Build | None) -> Change:
    package_name, _, name = function.name.rpartition(":")
    client, url = project.client, function.own.code_url
    guessed = {
        "runtime": built.runtime if built else function.config.get("runtime") or default_runtime(client, Family.PYTHON),
        "handler": built.handler if built else "index.handler",
    }
    config = {**NEW, **guessed, **function.config}
    head = {"func_name": name, "package": package_name or "default", **config, **wanted(function)}

    def run() -> object:
        if built is not None:
            return upload(client, "POST", "", head, built.package)
        code = {"code_type": "obs", "code_url": url} if url is not UNSET else _DEFAULT_CODE
        return client.post("", {**head, **code})

    code = f"{len(built.package):,} bytes" if built else "default code" if url is UNSET else url
    fields = {**created(config), "code": Field(new=code)}
    for environment in _ENVIRONMENT:
        if isinstance(given := getattr(function.own, environment), dict):
            fields |= hidden(created(given), f"{environment}.")
    return Change(action="create", kind="function", name=function.name, fields=fields, run=run)


def _changed_config(function: Function, old: Data) -> Iterator[tuple[str, Field]]:
    for name, new in function.config.items():
        if not _is_equal(name, old.get(name), new):
            yield name, Field(old=old.get(name), new=new)


def _is_equal(name: str, old: Any, new: Any) -> bool:
    if name == "strategy_config":  # its fields are independent
        return bool(new.items() <= (old or {}).items())
    if name == "mount_config":
        return bool(mounts_shown(msgspec.convert(new, MountConfig)) == old)
    return bool(old == new)


def _variables(text: str) -> dict[str, str]:
    found: dict[str, str] = json.loads(text) if text else {}
    return found


def _new_code(function: Function, project: Project, old: Data, package: bytes | None) -> str:
    """Return a description of the new code; empty if the function has it."""
    url = function.own.code_url
    if isinstance(url, str):
        return "" if url == old["code_url"] else url
    if package is None or is_same_code(project.client, old, package):
        return ""
    return f"{len(package):,} bytes"


def _updating(
    function: Function, project: Project, body: Data, package: bytes | None, new_code: bool
) -> Callable[[], object]:
    def run() -> None:
        client = project.client
        if body:
            client.patch(path_of(function.name, "/config"), body)
        if package is not None:
            upload(client, "PUT", path_of(function.name, "/code"), {}, package)
        elif new_code:
            code = {"code_type": "obs", "code_url": function.own.code_url}
            client.put(path_of(function.name, "/code"), code)

    return run
