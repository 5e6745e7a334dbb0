"""Deployment of a function from a folder or file: its code, its configuration and its asynchronous settings."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from engine.deploy.client import ApiError, Client, app_of, claim_of, path_of
from engine.deploy.destinations import DestinationOption, read_destination
from engine.deploy.packaging import Build, BuildOptions, build
from engine.deploy.packaging.tools import interpreter_text
from engine.deploy.progress import progress_of, report
from engine.errors import FunctiondError, FunctionOfApp, UsageError
from engine.model.limits import EVENT_AGES
from engine.runtimes.catalog import warning_of

Code = bytes | Mapping[str, Any]  #: zip package, or fields of the API
APPS = "functiond_apps/"  #: folder of the modules with handlers of apps, which are written at their deployment
CHUNK = 256 << 10  #: bytes
PROGRESS_SIZE = 1 << 20  #: bytes from which an upload shows its progress
NEW = {"timeout": 30, "memory_size": 128}  #: configuration of new functions


@dataclass(frozen=True, kw_only=True)
class Asynchronous:
    """Asynchronous settings of the function. Options that are not given stay unchanged."""

    retries: int | None = None
    "Retries after a failure of the function, 0 to 3."

    max_age: int | None = None
    "Seconds after which a waiting invocation is discarded. [default: 86400 with the first settings of the function]"

    retry_rules: Path | None = None
    "JSON file with a list of retry rules, which replaces all existing rules."

    status_log: bool | None = None
    "Write each state of an invocation to the project's log stream of states."

    on_success: str | None = None
    """Receiver of outcomes of successful invocations: a function (name or URN), or KIND:FIELD=VALUE,… such as
    SMN:topic_urn=NAME, OBS:bucket=NAME,prefix=TEXT, DIS:stream_name=NAME, KAFKA:instance_id=ID,topic=NAME or
    WEBHOOK:url=URL. Empty: none."""

    on_failure: str | None = None
    "Receiver of outcomes of all other invocations, like --on-success."

    @property
    def destinations(self) -> dict[str, DestinationOption | None]:
        """The given destinations, by their fields in the API; None removes one. Raises UsageError if one is invalid."""
        given = {"on_success": self.on_success, "on_failure": self.on_failure}
        options = {field: f"--{field.replace('_', '-')}" for field in given}
        return {
            field: read_destination(options[field], text) if text else None
            for field, text in given.items()
            if text is not None
        }

    def check(self) -> None:
        """Raise UsageError if an option cannot be used, before anything is sent."""
        _ = self.destinations, self._rules()

    def check_receivers(self, client: Client, made: str) -> None:
        """Look up the functions and topics that destinations name, before anything is stored.

        ``made`` is the function that the caller stores. URNs are left to the engine. Raises ApiError or UsageError if a
        function or topic is missing.
        """
        for destination in self.destinations.values():
            if destination and destination.fields.get("func_urn") not in (made, f"default:{made}"):
                destination.config(client)

    def apply(self, client: Client, name: str) -> Any:
        """Store the given options for the function ``name`` and return its asynchronous settings; None if it has none.

        The API replaces all settings at once, so the stored settings are read first and sent again.
        """
        path = path_of(name, "/async-invoke-config")
        settings = client.find(path)
        return settings if self == Asynchronous() else client.put(path, self.merged(settings, client))

    def merged(self, settings: Mapping[str, Any] | None, client: Client | None = None) -> dict[str, Any]:
        """Return settings, or those of a new function, with the given options.

        Without a client, destinations keep the names of functions and topics.
        """
        settings = settings or {"max_async_event_age_in_seconds": EVENT_AGES[1]}
        given = {
            "max_async_retry_attempts": self.retries,
            "max_async_event_age_in_seconds": self.max_age,
            "enable_async_status_log": self.status_log,
            "retry_rules": self._rules(),
        }
        given = {field: value for field, value in given.items() if value is not None}
        destinations = dict(settings.get("destination_config") or {})
        for field, destination in self.destinations.items():
            destinations[field] = destination.config(client) if destination else None
        return {**settings, **given, "destination_config": destinations}

    def _rules(self) -> list[Any] | None:
        file = self.retry_rules
        if file is None:
            return None
        try:
            rules = json.loads(file.read_bytes())
        except (OSError, ValueError) as error:
            raise UsageError(f"--retry-rules is {file}: it cannot be read as JSON: {error}") from None
        if not isinstance(rules, list):
            raise UsageError(f"--retry-rules is {file}: it must contain a list of rules")
        return rules


def terms_of(function: Mapping[str, Any], settings: Mapping[str, Any] | None) -> str:
    """Return timeout, memory, runtime, retries and maximum age of a function, as people read them."""
    queued = "no retries and no maximum age, unless the engine has other defaults"
    if settings is not None:
        retries, age = settings["max_async_retry_attempts"], settings["max_async_event_age_in_seconds"]
        queued = f"{retries} {'retry' if retries == 1 else 'retries'}, maximum age {age:,} s"
    return f"{function['timeout']} s, {function['memory_size']} MB, {function['runtime']}; {queued}"


class Stored(Struct, frozen=True, kw_only=True):
    """Result of the deployment of one function."""

    created: bool
    function: dict[str, Any]
    settings: Any  #: asynchronous; None: the function has none
    built: Build

    def summary(self, name: str) -> str:
        """Return one line for people, as markup."""
        action = "created" if self.created else "updated"
        runs = f" on {interpreter_text(self.built.interpreter)}" if self.built.interpreter else ""
        size, handler = len(self.built.package), self.function["handler"]
        return f"[bold green]{action}[/] [bold]{name}[/]: {size:,} bytes, {handler}{runs}"


def deploy_function(
    client: Client,
    path: Path,
    name: str,
    config: Mapping[str, Any],
    options: BuildOptions,
    asynchronous: Asynchronous,
    *,
    take_over: bool = False,
) -> Stored:
    """Create or update a function from a folder or file. Print notes for the user to standard error.

    ``config`` has fields of the API. Runtime and handler in ``options`` do not count: they follow from ``config``, the
    function as it is, and the folder. The function belongs to no app then. Only ``take_over`` takes it from one.
    """
    if not path.exists():
        raise UsageError(f"cannot read {path}: no such file or folder")
    asynchronous.check()
    asynchronous.check_receivers(client, name)
    old = client.find(path_of(name, "/config"))
    app = app_of(old or {})
    if app and not take_over:
        raise FunctionOfApp(name, app)
    if own := config.get("functiond"):
        config = {**config, "functiond": {**((old or {}).get("functiond") or {}), **own}}
    kept = {} if old is None or app else old  # the handler of an app is in its package
    runtime, handler = (config.get(field) or kept.get(field, "") for field in ("runtime", "handler"))
    layered = old is not None and bool(old["depend_list"])
    built = build(client, path, replace(options, runtime=runtime, handler=handler, layered=layered))
    for note in built.notes:
        report(f"functiond: {note}")
    guessed = {} if kept else {"runtime": built.runtime, "handler": built.handler}
    shown = store(client, name, built.package, old, {**guessed, **config}, claim_of("", take_over=take_over))
    if warning := warning_of(shown["runtime"]):
        report(f"functiond: {warning}")
    try:
        settings = asynchronous.apply(client, name)
    except FunctiondError as error:
        kind, action = UsageError if isinstance(error, UsageError) else FunctiondError, "updated" if old else "created"
        raise kind(f"{name} is {action}, but not its asynchronous settings: {error}") from None
    return Stored(created=old is None, function=shown, settings=settings, built=built)


def store(
    client: Client, name: str, code: Code | None, old: Mapping[str, Any] | None, config: Mapping[str, Any], claim: str
) -> dict[str, Any]:
    """Create a function, or change the configuration ``old``, then its code unless that is None. Return the function.

    ``claim`` is that of its app. If the code of an existing function is refused, its configuration is as before.
    """
    if old is None:
        return create(client, name, code or {}, config, claim)
    handler, initializer = config.get("handler", old["handler"]), old.get("initializer_handler") or ""
    if initializer.startswith(APPS) and not handler.startswith(APPS):  # its hooks are not in the new code
        own = {**(config.get("functiond") or old.get("functiond") or {}), "http": False}
        config = {"initializer_handler": "", "pre_stop_handler": "", **config, "functiond": own}
    changes = {field: value for field, value in config.items() if old.get(field) != value}
    if changes or code is None:
        # PUT would reset everything else, also encrypted variables and changes that others make meanwhile.
        shown: dict[str, Any] = client.patch(path_of(name, "/config") + claim, changes)
    if code is None:
        return shown
    try:
        return upload(client, "PUT", path_of(name, "/code") + claim, {}, code)
    except ApiError as refusal:
        if changes and refusal.status < 500:  # after a failure of the engine, the code may be stored
            before = claim_of(app_of(old), take_over=True)
            client.patch(path_of(name, "/config") + before, {field: old[field] for field in changes if field in old})
        raise


def create(client: Client, name: str, code: Code, config: Mapping[str, Any], claim: str) -> dict[str, Any]:
    """Create a function, named ``name`` or ``package:name``, with its code as ``upload`` takes it.

    Configuration that is not given gets the defaults of the command line.
    """
    group, _, own = name.rpartition(":")
    head = {"func_name": own, "package": group or "default", **NEW, **config}
    return upload(client, "POST", claim, head, code)


def upload(client: Client, method: str, path: str, head: Mapping[str, Any], code: Code) -> dict[str, Any]:
    """Send the code of a function with the fields ``head``. Return the function without its code."""
    if isinstance(code, bytes):
        code = {"code_type": "zip", "func_code": {"file": base64.b64encode(code).decode()}}
    body = json.dumps({**head, **code}).encode()
    pieces = _with_progress(body) if len(body) > PROGRESS_SIZE and sys.stderr.isatty() else None
    shown: dict[str, Any] = client.send(method, path, body, pieces=pieces).json
    shown.pop("func_code", None)
    return shown


def _with_progress(body: bytes) -> Iterator[bytes]:
    with progress_of() as progress:
        task = progress.add_task("uploading", total=len(body))
        for start in range(0, len(body), CHUNK):
            yield body[start : start + CHUNK]
            progress.advance(task, CHUNK)
