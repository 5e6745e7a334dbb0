"""Checks of Python code before it is sent: its syntax, and whether it has the function that the handler names."""

from __future__ import annotations

import ast
import csv
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path

from engine.cli.client import UsageError
from engine.cli.packaging.interpreters import LocalInterpreter, interpreter_text, local_interpreter
from engine.runtimes.descriptions import InterpreterInfo

_SHOWN = 5  #: errors of one report
_LONGEST = 200  #: characters of a line of code
#: Reads a version and a list of names and paths, and prints a list of name, line, message and text for each error.
#: With a version, only the grammar of that version is checked.
_PROGRAM = """
import ast, json, sys
version, files = json.load(sys.stdin)
problems = []
for name, path in files:
    try:
        with open(path, "rb") as file:
            source = file.read()
        if version:
            ast.parse(source, name, feature_version=tuple(version))
        else:
            compile(source, name, "exec", dont_inherit=True)
    except SyntaxError as error:
        problems.append([name, error.lineno or 1, error.msg, (error.text or "").strip()])
    except (ValueError, RecursionError, MemoryError) as error:
        problems.append([name, 1, str(error) or type(error).__name__, ""])
print(json.dumps(problems))
"""
_DYNAMIC = frozenset({"*", "__getattr__", "exec", "globals", "setattr"})  #: names that may define others


def check_syntax(files: Mapping[str, Path], wanted: InterpreterInfo, root: Path) -> str:
    """Compile the Python files of a package. Return a line about what the check could not find; usually empty.

    Files of installed distributions are left out: some contain code for other versions on purpose. Raises UsageError
    with file, line and text of each error.
    """
    vendored = set(_vendored(files))
    own = [[name, str(file)] for name, file in files.items() if name.endswith(".py") and name not in vendored]
    local = local_interpreter(wanted)
    problems = _problems(own, local, wanted)
    if not problems:
        return ""
    checker = (
        interpreter_text(wanted)
        if local
        else f"Python {sys.version.split()[0]}, as this machine has no {interpreter_text(wanted)}"
    )
    lines = [
        f"{root / name}:{line}: {message}: {text[:_LONGEST]}".rstrip(": ")
        for name, line, message, text in problems[:_SHOWN]
    ]
    more = [f"and {len(problems) - _SHOWN} more files"] if len(problems) > _SHOWN else []
    report = "\n  ".join([f"the code has syntax errors, says {checker}:", *lines, *more])
    if local is None and wanted.minor > sys.version_info[:2]:
        return report  # they may be syntax of the newer version
    raise UsageError(report)


def _problems(
    own: list[list[str]], local: LocalInterpreter | None, wanted: InterpreterInfo
) -> list[tuple[str, int, str, str]]:
    if not own:
        return []
    run = subprocess.run(
        [local.path if local else sys.executable, *("-I", "-S", "-W", "ignore", "-c"), _PROGRAM],
        input=json.dumps([None if local else wanted.minor, own]),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return [(name, line, message, text) for name, line, message, text in json.loads(run.stdout)]


def _vendored(files: Mapping[str, Path]) -> Iterator[str]:
    """Yield the names of the files of distributions that were installed into the folder."""
    for name, file in files.items():
        if name.endswith(".dist-info/RECORD"):
            prefix = name.rpartition("/")[0].rpartition("/")[0]
            with file.open(newline="", errors="replace") as record:
                yield from (f"{prefix}/{row[0]}".lstrip("/") for row in csv.reader(record) if row)


def check_handler(files: Mapping[str, Path], handler: str) -> str:
    """Check that the package has the function that the handler names. Return a line if that cannot be known.

    Raises UsageError if the handler is malformed, or its file or function does not exist.
    """
    path, _, name = handler.rpartition(".")
    if not path or not name:
        raise UsageError(f"the handler is {handler}: it must look like file.function, such as index.handler")
    file = module_file(files, path)
    if not file:
        near = get_close_matches(f"{path}.py", [one for one in files if one.endswith(".py")], 1)
        hint = f"; did you mean {near[0].removesuffix('.py')}.{name}?" if near else ""
        raise UsageError(f"the package has no {path}.py for the handler {handler}: set --handler{hint}")
    if not file.endswith(".py"):
        return ""  # compiled
    try:
        module = ast.parse(files[file].read_bytes())
    except (SyntaxError, ValueError):  # syntax of a newer version
        return f"cannot see whether {file} has a function {name}"
    names = set(_defined(module))
    if name in names:
        return ""
    used = {node.id for node in ast.walk(module) if isinstance(node, ast.Name)}
    if not _DYNAMIC.isdisjoint(names | used):
        return f"cannot see whether {file} has a function {name}: it defines names while it runs"
    functions = [node.name for node in module.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    found = f"it has {', '.join(functions)}" if functions else "it has no functions"
    raise UsageError(f"{file} has no function {name} for the handler {handler}: {found}; set another --handler")


def module_file(files: Mapping[str, Path], path: str) -> str:
    """Return the file of the module that a handler names, by its name in the package; empty if there is none."""
    path = path.strip("/")
    whole = path.replace(".", "/")
    candidates = [f"{path}.py", f"{whole}.py", f"{whole}/__init__.py", f"{whole}.pyc"]
    if found := next((one for one in candidates if one in files), ""):
        return found
    return next((one for one in files if one.startswith(f"{whole}.") and one.endswith(".so")), "")


def _defined(module: ast.Module) -> Iterator[str]:
    """Yield the names that a module defines, and ``*`` for an import of all names of another."""
    waiting: list[ast.AST] = list(module.body)
    while waiting:
        node = waiting.pop()
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                yield from (one.asname or one.name.partition(".")[0] for one in aliases)
            case ast.Name(id=name, ctx=ast.Store()):
                yield name
            case _:
                waiting += ast.iter_child_nodes(node)
