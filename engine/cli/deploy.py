"""``functiond deploy``: create or update a function from a folder or file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from msgspec import Struct

from engine.cli.apps import deploy_app, is_app
from engine.cli.client import Client, UsageError, path_of
from engine.cli.deploy_options import Asynchronous, Configuration, Installation, terms_of
from engine.cli.output import Output, print_json, write
from engine.cli.packaging import Build, build, default_name
from engine.cli.packaging.interpreters import interpreter_text
from engine.cli.target import DEFAULT_TARGET, Target
from engine.cli.uploads import create, update
from engine.errors import FunctiondError
from engine.runtimes.catalog import warning_of

UNCHANGED, INSTALLED, UNCHANGED_ASYNC = Configuration(), Installation(), Asynchronous()


def deploy(
    path: Path,
    /,
    *,
    name: str | None = None,
    configuration: Configuration = UNCHANGED,
    installation: Installation = INSTALLED,
    asynchronous: Asynchronous = UNCHANGED_ASYNC,
    prune: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    target: Target = DEFAULT_TARGET,
) -> None:
    """Create a function, or update its code and the given options. Other configuration stays unchanged.

    Parameters
    ----------
    path
        Folder, Python or JavaScript file, zip package, or module:app, which deploys all functions of an app.
    name
        Name of the function. [default: name of the folder or file]
    prune
        Delete functions of the app that its code has no more.
    """
    if is_app(str(path)):
        check_app_options(name, configuration, asynchronous)
        deploy_app(str(path), configuration.fields(), installation, prune=prune, target=target)
        return
    if prune:
        raise UsageError("--prune needs an app, given as module:app")
    name = name or default_name(path)
    stored = deploy_function(target.client(), path, name, configuration, installation, asynchronous)
    if target.json:
        print_json({**stored.function, "async_invoke_config": stored.settings})
    else:
        output = Output()
        output.print(stored.summary(name))
        output.print(f"  {terms_of(stored.function, stored.settings)}")
        output.paste(stored.function["func_urn"])


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
    configuration: Configuration,
    installation: Installation,
    asynchronous: Asynchronous,
) -> Stored:
    """Create or update a function from a folder or file. Print notes for the user to standard error."""
    if not path.exists():
        raise UsageError(f"cannot read {path}: no such file or folder")
    config = configuration.fields()
    asynchronous.check()
    asynchronous.check_receivers(client, {name})
    old = client.find(path_of(name, "/config"))
    runtime, handler = (config.get(field) or (old or {}).get(field, "") for field in ("runtime", "handler"))
    layered = old is not None and bool(old["depend_list"])
    built = build(client, path, installation.options(runtime, handler, layered=layered))
    for note in built.notes:
        write(f"functiond: {note}", errors=True)
    if old is None:
        guessed = {"runtime": built.runtime, "handler": built.handler}
        shown = create(client, name, built.package, {**guessed, **config})
    else:
        shown = update(client, name, built.package, old, config)
    if warning := warning_of(shown["runtime"]):
        write(f"functiond: {warning}", errors=True)
    try:
        settings = asynchronous.apply(client, name)
    except FunctiondError as error:
        kind, action = UsageError if isinstance(error, UsageError) else FunctiondError, "updated" if old else "created"
        raise kind(f"{name} is {action}, but not its asynchronous settings: {error}") from None
    return Stored(created=old is None, function=shown, settings=settings, built=built)


def check_app_options(name: str | None, configuration: Configuration, asynchronous: Asynchronous) -> None:
    """Raise UsageError if an option was given that the code of an app decides for each function."""
    config = configuration.fields()
    given = name is not None or asynchronous != UNCHANGED_ASYNC or not config.keys() <= {"runtime", "user_data"}
    if given:
        raise UsageError("an app takes --runtime and --env only: give other options to @app.function() in its code")
