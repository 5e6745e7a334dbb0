"""``functiond deploy``: create or update a function from a folder or file, or the functions of an app."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from msgspec import to_builtins

from engine.cli.apply import Shown, print_plan
from engine.cli.options import Flag, Texts
from engine.cli.output import Output, print_json, print_result, write
from engine.cli.target import DEFAULT_TARGET, Target
from engine.deploy.apps import AppDeployment, describe, is_app, plan_app, store_app
from engine.deploy.functions import Asynchronous, deploy_function, terms_of
from engine.deploy.manifest.project import Project
from engine.deploy.packaging import BuildOptions, default_name
from engine.errors import UsageError


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Configuration:
    """Configuration of the function. Options that are not given stay unchanged."""

    handler: str | None = None
    "Entry point, as file.function. [default: index.handler, or FILE.handler for a file]"

    runtime: str | None = None
    "Runtime, such as Python3.10. [default: that of this Python if the engine has it, else its newest; or of Node.js]"

    timeout: int | None = None
    "Maximum duration of a run in seconds. [default: 30]"

    memory: int | None = None
    "Memory of an instance in MB. [default: 128]"

    env: Texts = ()
    """Environment variable NAME=VALUE, or NAME for its value in the environment of this command. Repeat for several.
    Replaces all existing variables."""

    folder: Texts = ()
    """Folder of the host that the function sees, by its name in `executor.folders`. Repeat for several. Replaces all
    existing folders; empty: none."""

    def fields(self) -> dict[str, Any]:
        """Return the options that were given, by the names of their fields in the API."""
        named = {
            "handler": self.handler,
            "runtime": self.runtime,
            "timeout": self.timeout,
            "memory_size": self.memory,
            "user_data": json.dumps(_variables(self.env)) if self.env else None,
            "functiond": {"folders": [*filter(None, self.folder)]} if self.folder else None,
        }
        return {name: value for name, value in named.items() if value is not None}


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Installation:
    """Dependencies of a folder, which are installed for the interpreter of the function."""

    install: bool = True
    "Install requirements.txt or the dependencies of pyproject.toml, and package.json, into the package."

    reinstall: Flag = False
    "Install them again, also if the cache has them."

    def options(self) -> BuildOptions:
        return BuildOptions(install=self.install, reinstall=self.reinstall)


AsynchronousOptions = Annotated[Asynchronous, Parameter(name="*")]
UNCHANGED, INSTALLED, UNCHANGED_ASYNC = Configuration(), Installation(), Asynchronous()


def deploy(
    path: Path,
    /,
    *,
    name: str | None = None,
    configuration: Configuration = UNCHANGED,
    installation: Installation = INSTALLED,
    asynchronous: AsynchronousOptions = UNCHANGED_ASYNC,
    plan: Flag = False,
    prune: Flag = False,
    take_over: Flag = False,
    target: Target = DEFAULT_TARGET,
) -> int:
    """Create a function, or update its code and the given options. Other configuration stays unchanged.

    Parameters
    ----------
    path
        Folder, Python or JavaScript file, zip package, or module:app, which deploys all functions of an app.
    name
        Name of the function. [default: name of the folder or file]
    plan
        Show what deploying the app would change, and change nothing. Exit with 0 if nothing would, with 4 otherwise.
    prune
        Delete functions of the app that its code has no more.
    take_over
        Take functions over from other apps that have them.
    """
    config, options, client = configuration.fields(), installation.options(), target.client()
    if is_app(str(path)):
        check_app_options(name, configuration, asynchronous)
        app, project = describe(str(path)), Project(client)
        if prune and not app.named:
            problem = f"--prune needs a name of the app: another folder may have a module {app.name}, too"
            raise UsageError(f"{problem}. Give App(name=…), or the name of the project in pyproject.toml")
        made = plan_app(project, app, config, options, prune=prune, take_over=take_over)
        if plan:
            return print_plan(made, Shown(frozenset()), "code", json=target.json, app=str(path))
        done = store_app(project, app, made, pruned=prune)
        if target.json:
            print_json({"app": str(path), **to_builtins(done)})
        else:
            show_app(done)
        return 0
    if prune or plan:
        raise UsageError(f"--{'prune' if prune else 'plan'} needs an app, given as module:app")
    name = name or default_name(path)
    stored = deploy_function(client, path, name, config, options, asynchronous, take_over=take_over)
    text = f"{stored.summary(name)}\n  {terms_of(stored.function, stored.settings)}"
    result = {**stored.function, "async_invoke_config": stored.settings}
    print_result(result, text, stored.function["func_urn"], json=target.json)
    return 0


def check_app_options(name: str | None, configuration: Configuration, asynchronous: Asynchronous) -> None:
    """Raise UsageError if an option was given that the code of an app decides for each function."""
    config = configuration.fields()
    if name is not None or asynchronous != UNCHANGED_ASYNC or not config.keys() <= {"runtime", "user_data"}:
        raise UsageError("an app takes --runtime and --env only: give other options to @app.function() in its code")


def show_app(done: AppDeployment) -> None:
    """Print the result of the deployment of an app."""
    output = Output()
    for function in done.functions:
        timer = f"; {function.schedule}" if function.schedule else ""
        output.print(f"[bold green]{function.action}[/] [bold]{function.func_name}[/]: {function.terms}{timer}")
        if function.due:
            output.print(f"  due {function.due}", style="dim")
    for name in done.gone if done.pruned else []:
        output.print(f"[bold green]deleted[/] [bold]{name}[/]")
    if done.gone and not done.pruned:
        write(f"functiond: not in the code any more: {', '.join(done.gone)}; add --prune to delete", errors=True)


def _variables(pairs: tuple[str, ...]) -> dict[str, str]:
    variables = {}
    for pair in pairs:
        name, separator, value = pair.partition("=")
        if not separator and name not in os.environ:
            raise UsageError(f"--env is {pair}: write NAME=VALUE, or set the environment variable {pair} before")
        variables[name] = value if separator else os.environ[name]
    return variables
