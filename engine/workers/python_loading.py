"""Lookup of a handler by name. Standard library only, Python 3.9 syntax."""

import os
import sys

from python_failures import ENTRY, PREFIX, Failure, failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType
    from typing import Any


def load(entry: str, loaded: "dict[str, ModuleType]") -> "Callable[..., Any]":
    """Return the callable that ``file.function`` names in the folder.

    ``loaded`` keeps the instance's modules by path, as some are not in ``sys.modules``. Raises Failure if the callable
    cannot be imported or found.
    """
    path, dot, name = entry.rpartition(".")
    if not (dot and path and name):
        raise Failure(ENTRY, f"{PREFIX[ENTRY]}'{entry}' is not a handler; write file.function")
    try:
        target: Callable[..., Any] | None = getattr(load_module(path.strip("/"), entry, loaded), name, None)
    except BaseException as error:
        raise failure(ENTRY, error) from None
    if not callable(target):
        raise Failure(ENTRY, f"{PREFIX[ENTRY]}there is no function '{name}' in {path}")
    return target


def load_module(path: str, entry: str, loaded: "dict[str, ModuleType]") -> "ModuleType":
    from importlib import import_module, util

    if path in loaded:
        return loaded[path]
    name = path.replace("/", ".")
    existing = sys.modules.get(name)
    file = os.path.join(os.getcwd(), path + ".py")
    if existing is not None and getattr(existing, "__file__", None) == file:
        return existing
    if os.path.isfile(file):
        spec = util.spec_from_file_location(name, file)
        assert spec
        assert spec.loader  # a file has one if its name ends with .py
        module = util.module_from_spec(spec)
        sys.modules.setdefault(name, module)  # a file named like a loaded standard module must not replace it
        spec.loader.exec_module(module)
        loaded[path] = module
        return module
    if util.find_spec(name.partition(".")[0]) is None:
        raise Failure(ENTRY, f"{PREFIX[ENTRY]}there is no file {path}.py for the handler '{entry}'")
    return import_module(name)
