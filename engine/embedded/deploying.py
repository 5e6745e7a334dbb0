"""Deployment of an app of the running program to its engine."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from engine.cli.apps import describe, store_app
from engine.cli.apps.description import PROGRAM
from engine.cli.client import Client, Key, UsageError
from engine.cli.deploy_options import Installation

if TYPE_CHECKING:
    from functiond import App
    from functiond.configuration import Configuration


def deploy(app: App, configuration: Configuration) -> None:
    """Deploy an app as ``functiond deploy MODULE:APP`` does. Functions that left its code are deleted."""
    given, key = configuration, None
    if given.access_key:
        key = Key(access=given.access_key, secret=given.secret_key, token=given.token)
    client = Client(given.url, given.project, "functiond", key, ca_file=given.ca_file, token=given.token)
    target, root = place_of(app)
    found = describe(target, [str(root), *(os.path.abspath(folder) for folder in sys.path)])
    store_app(client, found, {}, Installation(), prune=True)


def place_of(app: App) -> tuple[str, Path]:
    """Return the name of an app, such as ``tasks:app``, and the folder from which its module is imported."""
    owners = {function.__module__ for function in app.functions.values()}
    for name, module in sorted(sys.modules.items(), key=lambda item: item[0] not in owners):
        attributes = getattr(module, "__dict__", {})
        for attribute in [one for one, value in attributes.items() if value is app]:
            if getattr(module, "__file__", None):
                full = _full_name(name, module)
                depth = full.count(".") + hasattr(module, "__path__")
                return f"{full}:{attribute}", Path(str(module.__file__)).absolute().parents[depth]
    raise UsageError("the app is not a name in a module with a file: write `app = App()` at the top of a module")


def refuse_in_description() -> None:
    """Raise UsageError in the process that imports an app's module for its deployment.

    An engine that the module starts would deploy the app from there, and so on without end.
    """
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if spec is not None and spec.name == PROGRAM:
        raise UsageError('the import of the module starts an engine: start it below `if __name__ == "__main__":`')


def _full_name(name: str, module: ModuleType) -> str:
    """Return the name by which other programs import a module; that of a script is the stem of its file."""
    if name != "__main__":
        return name
    spec = module.__spec__
    return spec.name.removesuffix(".__main__") if spec is not None else Path(str(module.__file__)).stem
