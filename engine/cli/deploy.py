"""``functiond deploy``: create or update a function from a folder or file, or the functions of an app."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from msgspec import to_builtins

from engine.cli.deploy_options import AsynchronousOptions, Configuration, Installation
from engine.cli.output import Output, print_json, write
from engine.cli.target import DEFAULT_TARGET, Target
from engine.deploy.apps import AppDeployment, describe, is_app, store_app
from engine.deploy.functions import Asynchronous, deploy_function, terms_of
from engine.deploy.packaging import default_name
from engine.errors import UsageError

UNCHANGED, INSTALLED, UNCHANGED_ASYNC = Configuration(), Installation(), Asynchronous()


def deploy(
    path: Path,
    /,
    *,
    name: str | None = None,
    configuration: Configuration = UNCHANGED,
    installation: Installation = INSTALLED,
    asynchronous: AsynchronousOptions = UNCHANGED_ASYNC,
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
        config, options = configuration.fields(), installation.options()
        done = store_app(target.client(), describe(str(path)), config, options, prune=prune)
        if target.json:
            print_json({"app": str(path), **to_builtins(done)})
        else:
            show_app(done)
        return
    if prune:
        raise UsageError("--prune needs an app, given as module:app")
    name = name or default_name(path)
    client, options = target.client(), installation.options()
    stored = deploy_function(client, path, name, configuration.fields(), options, asynchronous)
    if target.json:
        print_json({**stored.function, "async_invoke_config": stored.settings})
    else:
        output = Output()
        output.print(stored.summary(name))
        output.print(f"  {terms_of(stored.function, stored.settings)}")
        output.paste(stored.function["func_urn"])


def check_app_options(name: str | None, configuration: Configuration, asynchronous: Asynchronous) -> None:
    """Raise UsageError if an option was given that the code of an app decides for each function."""
    config = configuration.fields()
    given = name is not None or asynchronous != UNCHANGED_ASYNC or not config.keys() <= {"runtime", "user_data"}
    if given:
        raise UsageError("an app takes --runtime and --env only: give other options to @app.function() in its code")


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
