"""Deployment of the functions of an app with their schedules, and removal of functions that left its code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from msgspec import Struct, to_builtins

from engine.cli.apps.description import AppDescription, AppFunction, describe
from engine.cli.apps.staging import staged
from engine.cli.client import ApiError, Client, path_of
from engine.cli.deploy_options import Asynchronous, Installation, terms_of
from engine.cli.functions import all_functions
from engine.cli.output import Output, print_json, write
from engine.cli.packaging import Build, build
from engine.cli.target import Target
from engine.cli.timers import set_timer
from engine.cli.uploads import create, update


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


def deploy_app(text: str, config: dict[str, Any], installation: Installation, *, prune: bool, target: Target) -> None:
    """Deploy the app ``text``, such as ``tasks:app``, as ``store_app`` does, and print the result."""
    done = store_app(target.client(), describe(text), config, installation, prune=prune)
    if target.json:
        print_json({"app": text, **to_builtins(done)})
    else:
        show_app(done)


def store_app(
    client: Client, app: AppDescription, config: dict[str, Any], installation: Installation, *, prune: bool
) -> AppDeployment:
    """Deploy all functions of an app with one package.

    ``config`` has the runtime and variables for all of them, by their fields in the API. With ``prune``, functions that
    an earlier deployment of the app made, and that its code has no more, are deleted.
    """
    settings = {function.name: _settings(function) for function in app.functions}
    for one in settings.values():
        one.check()
    for function in app.functions:
        with _told(function):
            settings[function.name].check_receivers(client, settings.keys())
    existing = {one["func_name"]: one for one in all_functions(client)}
    earlier = {name: one for name, one in existing.items() if one["handler"].rpartition(".")[0] == app.handlers}
    runtime = config.get("runtime") or next((one["runtime"] for one in earlier.values()), "")
    built = _build(client, app, runtime, installation)
    others = (existing.keys() - earlier.keys()) & settings.keys()
    replaced = [f"{name} was deployed from elsewhere, and is replaced" for name in sorted(others)]
    for note in [*built.notes, *replaced]:
        write(f"functiond: {note}", errors=True)
    shown = {}
    for function in app.functions:
        with _told(function):
            shown[function.name] = _store(client, app, function, built, config)
    deployed = []
    for function in app.functions:  # destinations may be any of the functions, so all are stored before
        with _told(function):
            terms = terms_of(shown[function.name], settings[function.name].apply(client, function.name))
            schedule, due = set_timer(client, function.name, function.timer())
        action = "updated" if function.name in existing else "created"
        urn = shown[function.name]["func_urn"]
        done = Deployed(func_name=function.name, func_urn=urn, action=action, terms=terms, schedule=schedule, due=due)
        deployed.append(done)
    gone = sorted(earlier.keys() - shown.keys())
    for name in gone if prune else []:
        client.send("DELETE", path_of(name))
    return AppDeployment(functions=deployed, gone=gone, pruned=prune)


@contextmanager
def _told(function: AppFunction) -> Iterator[None]:
    """Name the function in errors of the engine."""
    try:
        yield
    except ApiError as error:
        message = str(error).removeprefix(f"{error.code} ")
        raise ApiError(error.status, error.code, f"function {function.name}: {message}") from None


def _build(client: Client, app: AppDescription, runtime: str, installation: Installation) -> Build:
    with staged(app) as folder:
        handler = f"{app.handlers}.{app.functions[0].attribute}"
        return build(client, folder, installation.options(runtime, handler))


def _store(
    client: Client, app: AppDescription, function: AppFunction, built: Build, config: dict[str, Any]
) -> dict[str, Any]:
    """Create or update a function, and return it."""
    own = {"timeout": function.timeout, "memory_size": function.memory}
    given = {name: value for name, value in own.items() if value is not None}
    fields = {**config, "runtime": built.runtime, "handler": f"{app.handlers}.{function.attribute}", **given}
    old = client.find(path_of(function.name, "/config"))
    if old is None:
        return create(client, function.name, built.package, fields)
    return update(client, function.name, built.package, old, fields)


def _settings(function: AppFunction) -> Asynchronous:
    return Asynchronous(
        retries=function.retries,
        max_age=function.max_age,
        on_success=function.on_success,
        on_failure=function.on_failure,
    )


def show_app(done: AppDeployment) -> None:
    """Print the result of the deployment of an app."""
    output = Output()
    for one in done.functions:
        timer = f"; {one.schedule}" if one.schedule else ""
        output.print(f"[bold green]{one.action}[/] [bold]{one.func_name}[/]: {one.terms}{timer}")
        if one.due:
            output.print(f"  due {one.due}", style="dim")
    for name in done.gone if done.pruned else []:
        output.print(f"[bold green]deleted[/] [bold]{name}[/]")
    if done.gone and not done.pruned:
        write(f"functiond: not in the code any more: {', '.join(done.gone)}; add --prune to delete", errors=True)
