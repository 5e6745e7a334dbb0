"""Checks whether code can run: its file, its syntax, and the function that its handler names.

Another process reads the code, so that no code can hold or crash the engine. The results are warnings: a dependency may
have the handler's file, and code may define functions while it is loaded.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Awaitable, Callable
from contextlib import suppress

import anyio

from engine.code.browsing import PackageView
from engine.code.default_code import inline_file
from engine.errors import InvalidField, NoInterpreter
from engine.model import Function
from engine.runtimes.catalog import Family
from engine.runtimes.interpreters import Interpreter

LONGEST = 5.0  #: seconds of a check
#: Fails with the reason why the code on its standard input cannot run. Arguments: file; function, or an empty text.
_PYTHON = """
import ast, resource, sys
resource.setrlimit(resource.RLIMIT_AS, (1 << 29, 1 << 29))
file, name, source = *sys.argv[1:], sys.stdin.buffer.read()
try:
    compile(source, file, "exec", dont_inherit=True)
    nodes = list(ast.walk(ast.parse(source)))
except SyntaxError as error:
    sys.exit("Error: line %s: %s, says Python %d.%d" % (error.lineno, error.msg, *sys.version_info[:2]))
names = {getattr(node, key, None) for node in nodes for key in ("name", "asname", "id")}
if name and names.isdisjoint({name, "*", "__getattr__", "exec", "globals", "setattr"}):
    sys.exit("Error: it has no function %s, which the handler names" % name)
"""

Find = Callable[[str], Awaitable[tuple[Family, Interpreter | None]]]


async def problem_of(version: Function, view: PackageView, find: Find) -> str:
    """Return why code cannot run, as far as its files and the shown text tell; empty: no reason is known.

    ``find`` returns the family of a runtime, and its interpreter.
    """
    try:
        family, interpreter = await find(version.runtime)
        file = inline_file(version.handler, version.runtime, version.code.filename)[0]
    except (InvalidField, NoInterpreter) as error:
        return str(error)
    paths, module = [entry.path for entry in view.files.files], file.rpartition(".")[0] or file
    if not paths:
        return "the package has no files"
    listed = view.files.count == len(paths) and not version.dependencies
    if listed and not any(path == module or path.startswith((f"{module}.", f"{module}/__init__.")) for path in paths):
        return f"the package has no file {file}, which the handler {version.handler} needs"
    if interpreter is None or view.text is None or not view.path.endswith((".py", ".js", ".cjs", ".mjs")):
        return ""
    if view.text.binary:
        return f"{view.path} is no text: it has NUL, or bytes that are not UTF-8"
    command = [interpreter.path, "--check", "-"]
    if family is Family.PYTHON:
        name = version.handler.rpartition(".")[2] if view.path == file else ""
        command = [interpreter.path, "-I", "-S", "-W", "ignore", "-c", _PYTHON, view.path, name]
    with suppress(OSError), anyio.move_on_after(0 if view.path.endswith(".mjs") else LONGEST):
        ended = await anyio.run_process(command, input=view.text.text.encode(), stdout=subprocess.DEVNULL, check=False)
        lines = ended.stderr.decode("utf-8", "replace").splitlines()
        errors = [line for line in lines if re.match(r"\w*Error\b", line)]
        return f"{view.path}: {errors[0].removeprefix('Error: ')}" if errors else ""
    return ""
