"""Package of a function, made from its folder or file for the interpreter that will run it."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from msgspec import Struct

from engine.cli.client import Client, UsageError
from engine.cli.packaging import node_checks, python_checks
from engine.cli.packaging.archive import zipped
from engine.cli.packaging.defaults import NODE, default_handler, default_language
from engine.cli.packaging.files import Selection, select
from engine.cli.packaging.interpreters import default_runtime, interpreter_of
from engine.runtimes.catalog import Family, find_runtime
from engine.runtimes.descriptions import InterpreterInfo


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """Runtime and handler of the function; if empty, they follow from the folder and the engine."""

    runtime: str = ""
    handler: str = ""


class Build(Struct, frozen=True, kw_only=True):
    """Package of a function, with the runtime and the handler that it was made for."""

    package: bytes
    runtime: str
    handler: str
    notes: list[str] = []  #: lines for the user, such as the secrets that were left out


def build(client: Client, path: Path, options: BuildOptions) -> Build:
    """Make the package of a function from a folder, a file, or a zip package, which stays unchanged.

    Raises UsageError if the code has syntax errors or no such handler, a file cannot be read or packed, or the package
    is too large.
    """
    with _reading(path):
        runtime = options.runtime or default_runtime(client, default_language(path))
        handler = options.handler or default_handler(path)
        if _is_zip(path):
            package = path.read_bytes()
            return Build(package=package, runtime=runtime, handler=handler, notes=_missing(package, runtime, handler))
        selection = _selected(path)
        notes = _notes(selection)
        interpreter = interpreter_of(client, runtime)
        notes += _check(selection, runtime, handler, interpreter, path)
        package = zipped(selection.found, str(path))
        return Build(package=package, runtime=runtime, handler=handler, notes=notes)


def pack(path: Path) -> bytes:
    """Return a folder or file as a zip package without its dependencies, and a zip file unchanged.

    Raises UsageError if a file cannot be read or packed, the folder contains no files, or the package is too large.
    """
    with _reading(path):
        return path.read_bytes() if _is_zip(path) else zipped(_selected(path).found, str(path))


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UsageError(f"cannot read {error.filename or path}: {error.strerror}") from None


def _is_zip(path: Path) -> bool:
    return path.suffix == ".zip" and path.is_file()


def _selected(path: Path) -> Selection:
    return select(path) if path.is_dir() else Selection(found={path.name: path})


def _notes(selection: Selection) -> list[str]:
    return [f"left out {name}: set variables by --env" for name in selection.secrets]


def _check(
    selection: Selection, runtime: str, handler: str, interpreter: InterpreterInfo | None, path: Path
) -> list[str]:
    files, root = selection.found, path if path.is_dir() else path.parent
    if interpreter is None:
        _check_bootstrap(files, runtime)
        return []
    if interpreter.language is Family.NODE:
        node_checks.check_syntax(files, interpreter)
        return [note for note in [node_checks.check_handler(files, handler)] if note]
    notes = [python_checks.check_syntax(files, interpreter, root), python_checks.check_handler(files, handler)]
    return [note for note in notes if note]


def _check_bootstrap(files: Mapping[str, Path], runtime: str) -> None:
    if "bootstrap" not in files:
        raise UsageError(
            f"the package has no file bootstrap, which the runtime {runtime} starts: add one to the folder"
        )


def _missing(package: bytes, runtime: str, handler: str) -> list[str]:
    """Return a line if a zip package lacks the file that the handler names. The engine reports invalid packages."""
    found, module = find_runtime(runtime), handler.rpartition(".")[0]
    try:
        names = {name: Path(name) for name in zipfile.ZipFile(io.BytesIO(package)).namelist()}
    except zipfile.BadZipFile:
        return []
    if found is None or not module:
        return []
    if found.family is Family.PYTHON and not python_checks.module_file(names, module):
        return [f"the package has no {module}.py for the handler {handler}: set another --handler"]
    if found.family is Family.NODE and not any(f"{module}{suffix}" in names for suffix in NODE):
        return [f"the package has no {module}.js for the handler {handler}: set another --handler"]
    return []
