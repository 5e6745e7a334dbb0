"""Module search path of the engine's process.

The current folder may contain modules of any name. Python therefore searches it last, and only if a setting names
plugin modules. Files in it never replace the engine's modules, its dependencies or the standard library.
Exception: ``python -m engine`` searches the current folder until Python has imported the package ``engine``.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from engine.errors import SettingsError

PLUGINS = "plugins"  #: package of the built-in plugins
ROOT = str(Path(__file__).parents[2])  #: folder of the packages ``engine`` and ``plugins``
CLIENT = os.path.join(ROOT, "engine", "client")  #: folder of the package ``functiond`` in a clone


def drop_current_folder() -> None:
    """Remove the current folder from the start of ``sys.path``, where ``python -m`` puts it.

    An entry for the same folder from PYTHONPATH stays.
    """
    if not sys.flags.safe_path and sys.path[:1] == [_current_folder()]:
        del sys.path[0]


def append_current_folder() -> None:
    """Append the current folder to ``sys.path``, so that plugin modules found nowhere else are imported from there."""
    folder = _current_folder()
    if folder and folder not in sys.path:
        sys.path.append(folder)


def append_client() -> None:
    """Append the folder of the package ``functiond`` to ``sys.path`` in a clone that is not installed."""
    if find_spec("functiond") is None:
        sys.path.append(CLIENT)


def import_own_plugins() -> None:
    """Import ``plugins`` from beside this engine, even if a package of the same name precedes it on ``sys.path``.

    Raises SettingsError if the program has already imported that other package.
    """
    sys.path.insert(0, ROOT)
    try:
        module = import_module(PLUGINS)
    finally:
        sys.path.remove(ROOT)
    own = os.path.realpath(os.path.join(ROOT, PLUGINS))
    if own not in map(os.path.realpath, getattr(module, "__path__", ())):
        raise SettingsError(f"{module} is imported, but the engine has a package of this name in {own}: rename yours")


def describe_shadow(name: str) -> str:
    """Describe the module that is imported instead of the module ``name`` in the current folder.

    Returns an empty text if the current folder has no such module, or if no other module precedes it.
    """
    top, *_ = parts = name.split(".")
    module = Path(*parts)
    local = next((file for file in (module / "__init__.py", module.with_suffix(".py")) if file.is_file()), None)
    spec = find_spec(top)
    if local is None or spec is None:
        return ""
    taken = {os.path.realpath(path) for path in (spec.origin, *(spec.submodule_search_locations or ())) if path}
    renamed = local.parts[0] if len(local.parts) > 1 else local
    if os.path.realpath(renamed) in taken:
        return ""
    origin = spec.origin if spec.has_location else f"Python's own {top}"
    return f"{origin} is found first, so ./{local} is shadowed: rename ./{renamed}"


def _current_folder() -> str:
    """Return the path of the current folder; empty if the folder was deleted."""
    try:
        return os.getcwd()
    except FileNotFoundError:
        return ""
