"""Changes to functions: configuration and code."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import zipfile
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import msgspec
from msgspec import UNSET

from engine.deploy.client import Client, app_of, claim_of, path_of
from engine.deploy.functions import NEW, create, store
from engine.deploy.manifest.changes import Change, Field, created, differences, hidden
from engine.deploy.manifest.project import Data, Project
from engine.deploy.manifest.reading import Function
from engine.deploy.packaging import Build, BuildOptions, build
from engine.deploy.packaging.tools import default_runtime
from engine.deploy.progress import report
from engine.errors import FunctionOfApp, UsageError
from engine.http.api.function_shapes import MountConfig, mounts_shown, variables_of
from engine.runtimes.catalog import Family

#: Tables of a manifest by their fields in the API.
_ENVIRONMENTS = {"user_data": "environment", "encrypted_user_data": "encrypted_environment"}
#: Code of a function whose table names none: the engine's default code.
_DEFAULT_CODE = {"code_type": "inline"}


class File(NamedTuple):
    digest: str
    mode: int  #: 0o755 for programs, 0o644 for other files; symbolic links have their own


def is_same_code(client: Client | None, function: dict[str, Any], package: bytes) -> bool:
    """Return whether a function has the files of a zip package.

    Packages of equal files differ if other programs made them. With a client, the engine's package is then read, and
    the files are compared.
    """
    if function["digest"] == hashlib.sha512(package).hexdigest():
        return True
    stored = stored_code(client, function) if client else None
    return stored is not None and files_of(stored) == files_of(package)


def stored_code(client: Client, function: dict[str, Any]) -> bytes | None:
    """Return the code that the engine has, as a zip package; None if the engine does not send so large packages."""
    shown = client.get(path_of(function["func_urn"], "/code"))
    code = base64.b64decode(shown["func_code"]["file"])
    if not code:
        return None
    if function["code_type"] != "inline":
        return code
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        entry = zipfile.ZipInfo(_inline_name(function))
        entry.external_attr = 0o100644 << 16
        archive.writestr(entry, code)
    return packed.getvalue()


def files_of(package: bytes) -> dict[str, File]:
    """Return the files of a zip package by name; none if it is no zip package."""
    try:
        with zipfile.ZipFile(io.BytesIO(package)) as archive:
            files = {}
            for entry in archive.infolist():
                if not entry.is_dir():
                    with archive.open(entry) as file:
                        digest = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
                    files[entry.filename] = File(digest, mode_of(entry))
            return files
    except zipfile.BadZipFile:
        return {}


def mode_of(entry: zipfile.ZipInfo) -> int:
    mode = entry.external_attr >> 16
    if mode & 0o170000 == 0o120000:
        return mode
    return 0o755 if mode & 0o111 else 0o644


def _inline_name(function: dict[str, Any]) -> str:
    if name := function["code_filename"]:
        return str(name)
    ending = ".js" if function["runtime"].startswith("Node") else ".py"
    return str(function["handler"].rpartition(".")[0] or "index") + ending


def function_changes(function: Function, project: Project, app: str, *, take_over: bool) -> Iterator[Change]:
    """Yield the change that creates or updates a function of an app, if it needs one.

    Raises FunctionOfApp if the function belongs to another app and is not to be taken over.
    """
    old, app = project.functions.get(function.name), app_of(function.config) or app
    claim = claim_of(app, take_over=take_over)
    built = _built(function, project, old or {})
    if old is None:
        yield _creation(function, project, built, claim)
        return
    body = {name: new for name, new in function.config.items() if not _is_equal(name, old.get(name), new)}
    fields = {name: Field(old=old.get(name), new=new) for name, new in body.items()}
    for field, variables in function.environments.items():
        if changed := hidden(differences(variables_of(field, old[field]), variables), f"{_ENVIRONMENTS[field]}."):
            fields |= changed
            body[field] = json.dumps(variables)
    code = _new_code(function, project, old, built)
    if code:
        fields["code"] = Field(old=f"{old['code_size']:,} bytes", new=code)
    if app_of(old) != app:
        if app_of(old) and not take_over:
            raise FunctionOfApp(function.name, app_of(old))
        fields["app"] = Field(old=app_of(old), new=app)
    if fields:
        package = built.package if built else {"code_type": "obs", "code_url": function.own.code_url}
        run = partial(store, project.client, function.name, package if code else None, old, body, claim)
        yield Change(action="update", kind="function", name=function.name, fields=fields, run=run)


def _built(function: Function, project: Project, old: Data) -> Build | None:
    """Return the package of the function's code, after checks; None if the manifest names no code."""
    if function.built or function.code is None:
        return function.built
    given = {name: function.config.get(name) or old.get(name, "") for name in ("runtime", "handler")}
    try:
        layered = bool(function.config.get("depend_version_list") or old.get("depend_list"))
        options = BuildOptions(**given, install=function.own.install, layered=layered)
        built = build(project.client, function.code, options)
    except UsageError as error:
        raise UsageError(f"functions.{function.name}.code: {error}") from None
    for note in built.notes:
        report(f"functiond: {function.name}: {note}")
    return built


def _creation(function: Function, project: Project, built: Build | None, claim: str) -> Change:
    client, url = project.client, function.own.code_url
    guessed = {
        "runtime": built.runtime if built else function.config.get("runtime") or default_runtime(client, Family.PYTHON),
        "handler": built.handler if built else "index.handler",
    }
    config = {**guessed, **function.config}
    environments = {field: json.dumps(variables) for field, variables in function.environments.items()}
    code: Data | bytes = _DEFAULT_CODE if url is UNSET else {"code_type": "obs", "code_url": url}
    shown = "default code" if url is UNSET else url
    if built:
        code, shown = built.package, f"{len(built.package):,} bytes"
    fields = {**created({**NEW, **config}), "code": Field(new=shown)}
    for field, variables in function.environments.items():
        fields |= hidden(created(variables), f"{_ENVIRONMENTS[field]}.")
    run = partial(create, client, function.name, code, {**config, **environments}, claim)
    return Change(action="create", kind="function", name=function.name, fields=fields, run=run)


def _is_equal(name: str, old: Any, new: Any) -> bool:
    if name == "functiond":  # without its app, which the request has
        old, new = ({**(value or {}), "app": ""} for value in (old, new))
    if name == "strategy_config":  # its fields are independent
        return bool(new.items() <= (old or {}).items())
    if name == "mount_config":
        return bool(mounts_shown(msgspec.convert(new, MountConfig)) == old)
    return bool(old == new)


def _new_code(function: Function, project: Project, old: Data, built: Build | None) -> str:
    """Return a description of the new code; empty if the function has it."""
    url = function.own.code_url
    if isinstance(url, str):
        return "" if url == old["code_url"] else url
    if built is None or is_same_code(None if function.built else project.client, old, built.package):
        return ""
    return f"{len(built.package):,} bytes"
