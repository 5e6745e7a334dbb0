"""Program that describes an app for its deployment: ``python -m functiond.describe module:app``.

Prints JSON. Runs in a process of its own, so that the modules of the app meet no others of the same names.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
import tomllib
from collections.abc import Iterator
from contextlib import redirect_stdout
from importlib import import_module
from pathlib import Path
from types import ModuleType

import msgspec
from msgspec import Struct

from functiond.app import App, Deployment
from functiond.errors import BadConfiguration


class Description(Struct, frozen=True, kw_only=True):
    """App with its functions, and the files that its package needs."""

    name: str  #: of the app, to which its functions belong
    named: bool  #: by the code or its project, not by the module
    module: str
    app: str  #: name in the module, of the app or of a web application
    source: str  #: name in the module of the app that has the functions; empty: there is none
    root: str  #: folder from which the module is imported
    parts: list[str]  #: files and folders of ``root``: the module, and others that it imports; of a web application all
    instance: str  #: file that is the package ``functiond`` in instances
    functions: list[Deployment]
    startup: bool = False  #: has startup hooks, which the handler ``startup`` calls

    @property
    def handlers(self) -> str:
        """File with the handlers of the app, without its suffix, by its name in the package."""
        return f"functiond_apps/{self.module.replace('.', '/')}/{self.app}"


def describe(target: str) -> Description:
    """Import an app and return its description. Raises BadConfiguration if there is none.

    The functions of an app that the module of a web application has are deployed with the application.
    """
    name, _, attribute = target.partition(":")
    try:
        module = import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # a module that the app's module imports
        problem = f"there is no module {error.name}, neither in {Path.cwd()} nor installed"
        raise BadConfiguration(f"{problem}: write MODULE:APP, such as tasks:app") from None
    found = getattr(module, attribute, None)
    web = "" if isinstance(found, App) else _interface(found)
    if not web and not isinstance(found, App):
        problem = f"{name} has no app named {attribute!r}, and no ASGI or WSGI application"
        raise BadConfiguration(f"{problem}: write {attribute} = App() in it, or the application that a factory returns")
    app, source = (found, attribute) if isinstance(found, App) else _app_beside(module)
    if not web and not app.functions:
        raise BadConfiguration(f"the app {target} has no function: add one with @{attribute}.function()")
    if app.has_startup and "startup" in app.functions:
        raise BadConfiguration(f"the app {target} has startup hooks, and a function named startup: rename that one")
    root = _root(module)
    own = _project_name(root) if app.name is None else app.name
    owner = name.partition(".")[0] if app.name is None and not own else own
    if not re.fullmatch(r"[\w.-]{1,64}", owner, re.ASCII):
        raise BadConfiguration(f"the app's name is {owner!r}: give up to 64 letters, digits, ., _ and -: App(name=…)")
    own_parts = {*_parts(root), name.partition(".")[0] + (".py" if _is_file(root, name) else "")}
    functions = [function.deployment for function in app.functions.values()]
    if web:
        functions.append(Deployment(name=re.sub(r"[^\w-]", "-", owner), attribute=attribute, web=web))
    return Description(
        name=owner,
        named=bool(own),
        module=name,
        app=attribute,
        source=source,
        root=str(root),
        parts=["."] if web else _with_imports(root, own_parts),
        instance=str(Path(__file__).with_name("instance.py")),
        functions=functions,
        startup=app.has_startup,
    )


def _app_beside(module: ModuleType) -> tuple[App, str]:
    """Return the app whose functions a web application in the module queues, with its name there; empty: none."""
    apps = {value: name for name, value in vars(module).items() if isinstance(value, App)}
    if len(apps) > 1:
        raise BadConfiguration(f"{module.__name__} has the apps {', '.join(apps.values())}: leave one of them there")
    return next(iter(apps.items()), (App(), ""))


def _interface(found: object) -> str:
    """Return the interface of a web application, ``asgi`` or ``wsgi``; empty for other objects."""
    if isinstance(found, type) or not callable(found):
        return ""
    parameters = inspect.signature(found.__call__ if inspect.ismethod(found.__call__) else found).parameters.keys()
    return "asgi" if {"receive", "send"} <= parameters else "wsgi" if "start_response" in parameters else ""


def _project_name(root: Path) -> str:
    """Return the name of the project in the nearest ``pyproject.toml`` in or above a folder; empty if it has none."""
    file = next((file for folder in (root, *root.parents) if (file := folder / "pyproject.toml").is_file()), None)
    try:
        name = str(tomllib.loads(file.read_text()).get("project", {}).get("name", "")) if file else ""
    except ValueError as error:
        raise BadConfiguration(f"{file} is not valid TOML: {error}") from None
    return "" if name == "functiond" else name  # apps that are written in its clone


def _is_file(root: Path, name: str) -> bool:
    return (root / f"{name}.py").is_file() and not (root / name).is_dir()


def _root(module: ModuleType) -> Path:
    """Return the folder in which the search for a module finds its first name."""
    file = Path(module.__file__ or "").absolute()
    depth = module.__name__.count(".") + hasattr(module, "__path__")
    return file.parents[depth]


def _parts(root: Path) -> Iterator[str]:
    """Yield the files and folders in ``root`` that hold imported modules. Installed packages do not count."""
    own, environment = Path(__file__).parent, Path(sys.prefix) if sys.prefix != sys.base_prefix else None
    for module in list(sys.modules.values()):
        file = Path(getattr(module, "__file__", None) or "")
        installed = "site-packages" in file.parts or (environment and file.is_relative_to(environment))
        if file.is_relative_to(root) and not installed and not file.is_relative_to(own):
            yield file.relative_to(root).parts[0]


def _with_imports(root: Path, parts: set[str]) -> list[str]:
    """Return files and folders in ``root`` with those that they import, also where a function does so when it runs."""
    reached, left = set(parts), list(parts)
    while left:
        part = root / left.pop()
        for source in [part] if part.is_file() else sorted(part.rglob("*.py")):
            new = {other for name in _imports(source) if (other := _part(root, name))} - reached
            reached |= new
            left += new
    return sorted(reached)


def _imports(source: Path) -> Iterator[str]:
    """Yield the first names of the modules that a file imports."""
    try:
        tree = ast.parse(source.read_bytes())
    except (SyntaxError, ValueError):
        return  # reported when the package is built
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def _part(root: Path, name: str) -> str | None:
    """Return the file or package in ``root`` that is the module ``name``. The client itself does not count."""
    if name == "functiond" or name in sys.stdlib_module_names:
        return None
    if (root / name / "__init__.py").is_file():
        return name
    return f"{name}.py" if (root / f"{name}.py").is_file() else None


def main() -> None:
    (target,) = sys.argv[1:]
    try:
        with redirect_stdout(sys.stderr):
            description = describe(target)
    except BadConfiguration as error:
        raise SystemExit(f"functiond: {error}") from None
    sys.stdout.buffer.write(msgspec.json.encode(description))


if __name__ == "__main__":
    main()
