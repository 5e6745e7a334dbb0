"""``functiond deploy``: create or update a function from a folder or file, or the functions of an app."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from functiond.describe import Description
from msgspec import to_builtins
from msgspec.structs import replace

from engine.cli.apply import Shown, print_plan
from engine.cli.http import published
from engine.cli.options import Flag, Texts
from engine.cli.output import Output, print_json, print_result, write
from engine.cli.target import DEFAULT_TARGET, Target
from engine.deploy.apis import publish
from engine.deploy.apps import AppDeployment, describe, is_app, plan_app, store_app
from engine.deploy.client import Client
from engine.deploy.functions import Asynchronous, deploy_function, terms_of
from engine.deploy.manifest.project import Project
from engine.deploy.packaging import BuildOptions, default_name
from engine.errors import UsageError
from engine.model.urn import short_name


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Configuration:
    """Configuration of the function. Options that are not given stay unchanged."""

    handler: str | None = None
    "Entry point, as file.function. [default: index.handler, or FILE.handler for a file]"

    runtime: str | None = None
    """Runtime, such as Python3.10. [default: that of this Python if the engine has it, else its newest; or of Node.js;
    http for a folder with a bootstrap or a single .jar, Custom or provided.al2 for a bootstrap that requests events]"""

    timeout: int | None = None
    "Maximum duration of a run in seconds. [default: 30]"

    memory: int | None = None
    "Memory of an instance in MB. [default: 128]"

    concurrency: int | None = None
    "Requests that one instance serves at a time. [default: 200 for a web application, else 1]"

    instances: int | None = None
    "Instances that run at a time, at most; -1: no limit, 0: disabled. [default: 400]"

    env: Texts = ()
    """Environment variable NAME=VALUE, or NAME for its value in the environment of this command. Repeat for several.
    Replaces all existing variables."""

    folder: Texts = ()
    """Folder of the host that the function sees, by its name in `executor.folders`. Repeat for several. Replaces all
    existing folders; empty: none."""

    @property
    def folders(self) -> list[str] | None:
        return [*filter(None, self.folder)] if self.folder else None

    def fields(self) -> dict[str, Any]:
        """Return the options that were given, by the names of their fields in the API."""
        strategy = {"concurrency": self.instances, "concurrent_num": self.concurrency}
        named = {
            "handler": self.handler,
            "runtime": self.runtime,
            "timeout": self.timeout,
            "memory_size": self.memory,
            "user_data": json.dumps(_variables(self.env)) if self.env else None,
            "strategy_config": {name: value for name, value in strategy.items() if value is not None} or None,
            "functiond": None if self.folders is None else {"folders": self.folders},
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
    http: str | None = None,
    plan: Flag = False,
    prune: Flag = False,
    take_over: Flag = False,
    target: Target = DEFAULT_TARGET,
) -> int:
    """Create a function, or update its code and the given options. Other configuration stays unchanged.

    Parameters
    ----------
    path
        Folder, Python or JavaScript file, Java archive, zip package, or module:app, which deploys all functions of an
        app, or a web application (ASGI or WSGI) and the functions of the app in its module.
    name
        Name of the function. [default: name of the folder or file; of a web application that of its app]
    http
        Path of the gateway under which the web application or the function is published, for all methods.
    plan
        Show what deploying the app would change, and change nothing. Exit with 0 if nothing would, with 4 otherwise.
    prune
        Delete functions of the app that its code has no more.
    take_over
        Take functions over from other apps that have them.
    """
    config, options, client = configuration.fields(), installation.options(), target.client()
    if http and not http.startswith("/"):
        raise UsageError(f"--http is {http}: give a path such as /shop; the setting plugins.apig.port is the port")
    if is_app(str(path)):
        app, project = configured(describe(str(path)), name, configuration, asynchronous), Project(client)
        if prune and not app.named:
            problem = f"--prune needs a name of the app: another folder may have a module {app.name}, too"
            raise UsageError(f"{problem}. Give App(name=…), or the name of the project in pyproject.toml")
        web = next((each.name for each in app.functions if each.web), "")
        if http and (plan or not web):
            raise UsageError("--http needs a web application, and no --plan; functions have @app.http() in their code")
        made = plan_app(project, app, config, options, prune=prune, take_over=take_over)
        if plan:
            return print_plan(made, Shown(frozenset()), "code", json=target.json, app=str(path))
        done = store_app(project, app, made, pruned=prune)
        if http:
            publish(client, web, http)
        if target.json:
            print_json({"app": str(path), **to_builtins(done)})
        else:
            show_app(done)
            if web or any(each.http for each in app.functions):
                show_addresses(client, web, {each.name for each in app.functions})
        return 0
    if prune or plan:
        raise UsageError(f"--{'prune' if prune else 'plan'} needs an app, given as module:app")
    name = name or default_name(path)
    stored = deploy_function(client, path, name, config, options, asynchronous, take_over=take_over)
    text = f"{stored.summary(name)}\n  {terms_of(stored.function, stored.settings)}"
    result = {**stored.function, "async_invoke_config": stored.settings}
    if http:
        publish(client, name, http)
    print_result(result, text, stored.function["func_urn"], json=target.json)
    if http and not target.json:
        show_addresses(client, "", {name})
    return 0


def show_addresses(client: Client, web: str, names: set[str]) -> None:
    """Print the addresses of functions, or how to publish the web application ``web`` if there are none."""
    apis = [api["event_data"] for api in published(client) if short_name(api["func_urn"]) in names]
    for data in apis:
        Output().print(f"[bold green]published[/] {data['req_method']} {data.get('invoke_url', data['path'])}")
    if web and not apis:
        Output().print(f"publish it by: functiond http {web} /{web}")


def check_app_options(configuration: Configuration, asynchronous: Asynchronous, *, others: bool = False) -> None:
    """Raise UsageError if an option was given that no app takes, or ``others``, which only web applications take."""
    if configuration.handler is not None or asynchronous != UNCHANGED_ASYNC or others:
        own = "its web application also --name, --timeout, --memory, --concurrency, --instances and --folder"
        raise UsageError(f"an app takes --runtime and --env only, {own}: give others to @app.function() in its code")


def configured(
    app: Description, name: str | None, configuration: Configuration, asynchronous: Asynchronous
) -> Description:
    """Return an app with the options for its web application.

    Raises UsageError if an option was given that the code of an app decides for each function.
    """
    options: dict[str, Any] = {"name": name, "timeout": configuration.timeout, "memory": configuration.memory}
    options |= {"concurrency": configuration.concurrency, "folders": configuration.folders}
    options["instances"] = configuration.instances
    given = {option: value for option, value in options.items() if value is not None}
    has_web = any(function.web for function in app.functions)
    check_app_options(configuration, asynchronous, others=bool(given) and not has_web)
    return replace(app, functions=[replace(each, **given) if each.web else each for each in app.functions])


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
