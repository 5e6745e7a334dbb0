"""Package of a function, made from its folder or file, with its dependencies for the interpreter that will run it."""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path

from msgspec import Struct

from engine.deploy.client import Client
from engine.deploy.packaging import cache, node, python
from engine.deploy.packaging.bootstraps import (
    BOOTSTRAP,
    Contents,
    foreign_line_ends,
    guess_runtime,
    java_archive,
    java_bootstrap,
)
from engine.deploy.packaging.files import Selection, select, zipped
from engine.deploy.packaging.node import NODE, NodeDependencies
from engine.deploy.packaging.python import PythonDependencies
from engine.deploy.packaging.tools import default_runtime, interpreter_of, interpreter_text, local_builder
from engine.deploy.progress import report
from engine.errors import UsageError
from engine.runtimes.catalog import BY_BOOTSTRAP, Family, find_runtime
from engine.runtimes.interpreters import InterpreterInfo

_SHOWN = 3  #: names of a note
_FORMAT = 1  #: of the cache's entries; after a change, earlier entries are not used
_SETTINGS = ("PIP_", "UV_", "NPM_CONFIG_")  #: beginnings of variables that choose what is installed
_NODE_MODULES = "node_modules/"

Files = Mapping[str, Path]


def default_name(path: Path) -> str:
    """Return the default name of a function deployed from ``path``: the folder's name, or the file's without suffix."""
    path = path.resolve()
    return path.name if path.is_dir() else path.stem


def default_handler(path: Path) -> str:
    return f"{path.stem}.handler" if path.suffix in (".py", *NODE) else "index.handler"


def default_language(path: Path) -> Family:
    """Return Node.js for a JavaScript file or a folder with ``index.js``, else Python.

    The suffixes .mjs and .cjs count as .js.
    """
    is_node = path.suffix in NODE or any((path / f"index{suffix}").is_file() for suffix in NODE)
    return Family.NODE if is_node else Family.PYTHON


class BuildOptions(Struct, frozen=True, kw_only=True):
    """Runtime and handler of the function; if empty, they follow from the folder and the engine."""

    runtime: str = ""
    handler: str = ""
    install: bool = True  #: dependencies
    reinstall: bool = False  #: also those that the cache has
    layered: bool = False  #: the engine adds other packages, which may contain the handler


class Build(Struct, frozen=True, kw_only=True):
    """Package of a function, with the runtime and the handler that it was made for."""

    package: bytes
    runtime: str
    handler: str
    interpreter: InterpreterInfo | None = None  #: loads the handler; None: none does, or it is a zip package
    notes: list[str] = []  #: lines for the user, such as the secrets that were left out


def build(client: Client, path: Path, options: BuildOptions) -> Build:
    """Make the package of a function from a folder, a file, or a zip package, which stays unchanged.

    Without a runtime, it is that of a ``bootstrap`` if the package has one, or has a single Java archive, which gets
    one. Raises UsageError if the code has syntax errors or no such handler, a file cannot be read or packed, or the
    package is too large.
    """
    with reading(path):
        handler, package = options.handler or default_handler(path), b""
        selection = Selection(found={path.name: path})
        contents: Contents = selection.found
        if path.suffix == ".zip" and path.is_file():
            package = path.read_bytes()
            contents = _contents(package)
        elif path.is_dir():
            selection = select(path)
            contents = selection.found
        stays = package and BOOTSTRAP not in contents  # so an archive in it gets none
        guessed, note = ("", "") if options.runtime or stays else guess_runtime(contents, handler)
        runtime = options.runtime or guessed or default_runtime(client, default_language(path))
        handler = options.handler or (BOOTSTRAP if runtime in BY_BOOTSTRAP else handler)
        if package:
            notes = [note, _missing(contents, runtime, handler)]
            return Build(package=package, runtime=runtime, handler=handler, notes=[*filter(None, notes)])
        installs_for = interpreter_of(client, runtime)
        interpreter = installs_for if runtime not in BY_BOOTSTRAP else None
        notes = [note, *left_out(selection), *foreign_line_ends(selection.found)]
        notes.append(_check_syntax(selection.found, interpreter, path))
        completed: AbstractContextManager[Files] = nullcontext(selection.found)
        if installs_for is not None and options.install and path.is_dir():
            completed = with_dependencies(path, selection.found, installs_for, reinstall=options.reinstall)
        with completed as files:
            archive = java_archive(files) if runtime in BY_BOOTSTRAP and BOOTSTRAP not in files else ""
            if not archive:
                notes.append(_check_handler(files, runtime, handler, interpreter, options.layered))
            package = zipped(files, str(path), java_bootstrap(archive) if archive else b"")
        notes = [*filter(None, notes)]
        return Build(package=package, runtime=runtime, handler=handler, interpreter=interpreter, notes=notes)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Raise UsageError for files of the block that cannot be read."""
    try:
        yield
    except OSError as error:
        raise UsageError(f"cannot read {error.filename or path}: {error.strerror}") from None


def left_out(selection: Selection) -> list[str]:
    """Return lines about secrets, special files, and what a file names that was not written for functions."""
    advice = "set variables by --env, or rename it if the function needs it"
    notes = [f"left out {name}, which may hold secrets: {advice}" for name in selection.secrets]
    notes += [f"left out {name}: it is neither a file nor a folder" for name in selection.unusable]
    if selection.ignored and selection.rules == ".gitignore":
        more = f" and {len(selection.ignored) - _SHOWN} more" if len(selection.ignored) > _SHOWN else ""
        names = ", ".join(selection.ignored[:_SHOWN])
        notes.append(f"left out {names}{more}, as .gitignore says; a file .functiondignore would replace it")
    return notes


def _check_syntax(own: Files, interpreter: InterpreterInfo | None, path: Path) -> str:
    if interpreter is None:
        return ""
    if interpreter.language is Family.NODE:
        node.check_syntax(own, interpreter)
        return ""
    return python.check_syntax(own, interpreter, path if path.is_dir() else path.parent)


def _check_handler(files: Files, runtime: str, handler: str, interpreter: InterpreterInfo | None, layered: bool) -> str:
    if interpreter is None:
        if BOOTSTRAP not in files:
            problem = f"the package has no file {BOOTSTRAP}, which the runtime {runtime} starts"
            raise UsageError(f"{problem}: add one, or a single .jar, which gets one")
        return ""
    check = node.check_handler if interpreter.language is Family.NODE else python.check_handler
    try:
        return check(files, handler)
    except UsageError as problem:
        if layered:
            return str(problem)
        started = BOOTSTRAP if BOOTSTRAP in files else java_archive(files)
        if started:
            advice = f"or start {started} by --runtime http, Custom or provided.al2"
            raise UsageError(f"{problem}, {advice}") from None
        if not any(name.endswith((".py", *NODE)) for name in files):
            raise UsageError(f"{problem}, or add a {BOOTSTRAP} or a .jar for another language") from None
        raise


def _contents(package: bytes) -> dict[str, zipfile.Path]:
    """Return the files of a zip package; none if it is invalid, which the engine reports."""
    try:
        archive = zipfile.ZipFile(io.BytesIO(package))
        if BOOTSTRAP in archive.namelist():
            archive.read(BOOTSTRAP)
        return {name: zipfile.Path(archive, name) for name in archive.namelist()}
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError):  # the last if it is encrypted
        return {}


def _missing(files: Contents, runtime: str, handler: str) -> str:
    """Return a line if a zip package lacks the file that the handler names."""
    known, module = find_runtime(runtime), handler.rpartition(".")[0]
    if known is None or not module or not files:
        return ""
    if known.family is Family.PYTHON and not python.module_file(files, module):
        return f"the package has no {module}.py for the handler {handler}: set another --handler"
    if known.family is Family.NODE and not any(f"{module}{suffix}" in files for suffix in NODE):
        return f"the package has no {module}.js for the handler {handler}: set another --handler"
    return ""


# --- dependencies -------------------------------------------------------------------------------------------


@contextmanager
def with_dependencies(root: Path, own: Files, wanted: InterpreterInfo, *, reinstall: bool) -> Iterator[Files]:
    """Yield the files of a folder and of its dependencies, which are installed unless the cache has them.

    A file of the folder replaces one of the dependencies. Raises UsageError if they cannot be installed.
    """
    dependencies: NodeDependencies | PythonDependencies | None = (
        node.find_dependencies(root) if wanted.language is Family.NODE else python.find_dependencies(root)
    )
    if dependencies is None:
        yield own
        return
    tool = dependencies.tool(wanted)
    key = _key(dependencies.content, tool, wanted)
    if reinstall:
        cache.forget(key)
    source = "dependencies from the cache:" if cache.has(key) else "installing"
    report(f"functiond: {source} {dependencies.file.name} with {tool} for {interpreter_text(wanted)}")
    with cache.entry(key, partial(dependencies.install, tool, own, wanted)) as folder:
        if wanted.language is Family.NODE:
            own = {name: file for name, file in own.items() if not name.startswith(_NODE_MODULES)}
        yield {name: file for name, file in _tree(str(folder), "", ()) if dependencies.needs(name)} | dict(own)


def _key(content: str, tool: str, wanted: InterpreterInfo) -> str:
    """Return the key of an entry of the cache; empty if there is none, as ``content`` says."""
    if not content:
        return ""
    parts = 1 if wanted.language is Family.NODE else 2
    platform = (wanted.implementation, wanted.minor[:parts], wanted.machine, wanted.libc, wanted.libc_version)
    settings = sorted((name, value) for name, value in os.environ.items() if name.upper().startswith(_SETTINGS))
    described = [_FORMAT, content, tool, platform, local_builder(wanted) is not None, settings]
    return hashlib.sha256(json.dumps(described).encode()).hexdigest()


def _tree(folder: str, prefix: str, parents: tuple[str, ...]) -> Iterator[tuple[str, Path]]:
    """Yield the files below a folder. Links to folders are followed, as npm links local packages, never in circles."""
    real = os.path.realpath(folder)
    if real in parents:
        return
    with os.scandir(folder) as scan:
        entries = sorted(scan, key=lambda entry: entry.name)
    for entry in entries:
        if entry.is_dir():
            yield from _tree(entry.path, f"{prefix}{entry.name}/", (*parents, real))
        elif entry.is_file():
            yield prefix + entry.name, Path(entry.path)
