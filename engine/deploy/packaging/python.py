"""Python code of a package: checks before it is sent, and its dependencies."""

from __future__ import annotations

import ast
import csv
import json
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path

from msgspec import Struct

from engine.deploy.packaging.tools import LocalInterpreter, interpreter_text, local_builder, local_interpreter, run_tool
from engine.errors import UsageError
from engine.runtimes.interpreters import InterpreterInfo

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
#: Versions of glibc for which uv has names.
_UV_GLIBC = (17, 28, *range(31, 41))
_OLDEST_GLIBC = {"x86_64": 5}  #: of wheels; on other machines 17
_LEGACY = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}  #: earlier names
_LIST = ".requirements"  #: file with those of pyproject.toml, for pip
#: Options in lists of requirements that name a file, and those that name a folder.
INCLUDES = ("-r", "--requirement", "-c", "--constraint")
SOURCES = ("-e", "--editable", "-f", "--find-links")  #: options that name folders


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
        near = get_close_matches(f"{path}.py", [candidate for candidate in files if candidate.endswith(".py")], 1)
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
    known = f"it has {', '.join(functions)}" if functions else "it has no functions"
    raise UsageError(f"{file} has no function {name} for the handler {handler}: {known}; set another --handler")


def module_file(files: Mapping[str, object], path: str) -> str:
    """Return the file of the module that a handler names, by its name in the package; empty if there is none."""
    path = path.strip("/")
    whole = path.replace(".", "/")
    candidates = [f"{path}.py", f"{whole}.py", f"{whole}/__init__.py", f"{whole}.pyc"]
    if file := next((candidate for candidate in candidates if candidate in files), ""):
        return file
    return next((name for name in files if name.startswith(f"{whole}.") and name.endswith(".so")), "")


def _defined(module: ast.Module) -> Iterator[str]:
    """Yield the names that a module defines, and ``*`` for an import of all names of another."""
    waiting: list[ast.AST] = list(module.body)
    while waiting:
        node = waiting.pop()
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                yield from (alias.asname or alias.name.partition(".")[0] for alias in aliases)
            case ast.Name(id=name, ctx=ast.Store()):
                yield name
            case _:
                waiting += ast.iter_child_nodes(node)


class PythonDependencies(Struct, frozen=True, kw_only=True):
    file: Path
    #: Of pyproject.toml; None: the file is a list of requirements itself.
    requirements: list[str] | None = None
    content: str = ""  #: of all files that say what is installed; empty: they name what may change, such as folders

    def tool(self, wanted: InterpreterInfo) -> str:
        """Return the program that installs: ``uv`` or ``pip``. Raises UsageError if there is none."""
        if shutil.which("uv") and (_uv_platform(wanted) or local_builder(wanted)):
            return "uv"
        if find_spec("pip"):
            return "pip"
        raise UsageError(
            "dependencies are installed by uv or pip, and this machine has neither: install uv, or pip by "
            f"{sys.executable} -m ensurepip; --no-install sends the folder as it is"
        )

    def install(self, tool: str, own: Mapping[str, Path], wanted: InterpreterInfo, folder: Path) -> None:
        """Install them into ``folder``. Source packages are built only if this machine has such an interpreter.

        Raises UsageError with the report of the program if it fails.
        """
        local, file = local_builder(wanted), self.file.resolve()
        lists = folder / _LIST
        if self.requirements is not None and tool == "pip":
            lists.write_text("\n".join(self.requirements))
            file = lists
        command = _uv(local, wanted) if tool == "uv" else _pip(local, wanted)
        action = f"installing {self.file.name} with {tool} for {interpreter_text(wanted)}"
        command += ["--target", str(folder), "-r", str(file)]
        run_tool(command, self.file.resolve().parent, action, "" if local else _advice(wanted))
        lists.unlink(missing_ok=True)

    def needs(self, name: str) -> bool:
        """Return whether the code needs an installed file when it runs.

        Programs in ``bin`` start the interpreter of this machine. Some files differ after each installation.
        """
        top, _, last = name.split("/")[0], *name.rpartition("/")[1:]
        return top not in ("bin", ".lock", _LIST) and last not in ("uv_cache.json", "direct_url.json")


def find_dependencies(root: Path) -> PythonDependencies | None:
    """Return the dependencies of a folder; None if it has none. Raises UsageError if their file is malformed."""
    if (file := root / "requirements.txt").is_file():
        lines = list(_lines(file, set()))
        if not lines:
            return None
        return PythonDependencies(file=file, content="" if any(map(_may_change, lines)) else "\n".join(lines))
    if (file := root / "pyproject.toml").is_file():
        return _of_project(file)
    return None


def _of_project(file: Path) -> PythonDependencies | None:
    try:
        described = tomllib.loads(file.read_text())
        project, sources = described.get("project", {}), described.get("tool", {}).get("uv", {})
        requirements = project.get("dependencies", [])
        if not isinstance(requirements, list) or not all(isinstance(requirement, str) for requirement in requirements):
            raise ValueError("project.dependencies must be a list of texts")
        if "dependencies" in project.get("dynamic", []):
            raise ValueError("project.dependencies are dynamic, which deploy cannot read; write requirements.txt")
    except ValueError as error:
        raise UsageError(f"{file} cannot be used: {error}") from None
    except AttributeError:
        raise UsageError(f"{file} cannot be used: project, tool and tool.uv must be tables") from None
    if not requirements:
        return None
    changing = bool(sources.get("sources")) or any(map(_may_change, requirements))
    content = "" if changing else "\n".join([*requirements, json.dumps(sources, default=str)])
    return PythonDependencies(file=file, requirements=requirements, content=content)


def _lines(file: Path, seen: set[Path]) -> Iterator[str]:
    """Yield the lines of a list of requirements and of the lists that it includes, without comments."""
    if file in seen:
        return
    seen.add(file)
    try:
        text = file.read_text()
    except UnicodeError as error:
        raise UsageError(f"{file} cannot be used: it is not UTF-8: {error}") from None
    for raw in text.splitlines():
        line = raw.strip()
        if line and not line.startswith("#"):
            yield line
            option, _, included = line.replace("=", " ", 1).partition(" ")
            if option in INCLUDES and "://" not in included:
                yield from _lines(file.parent / included.strip(), seen)


def _may_change(line: str) -> bool:
    """Return whether a requirement names a folder or file of this machine, a list elsewhere, or a branch of Git."""
    text = line.partition(" #")[0]
    if text.startswith(INCLUDES):
        return "://" in text
    is_path = text.startswith(".") or ("/" in text and "://" not in text and not text.startswith("-"))
    return is_path or text.startswith(SOURCES) or "file:" in text or "git+" in text


def _advice(wanted: InterpreterInfo) -> str:
    return (
        f"This machine has no {interpreter_text(wanted)}, so only wheels for it are used. Source packages are refused: "
        "they would be built for this machine. Require versions with wheels, or deploy from a machine like the engine's"
    )


def _uv(local: LocalInterpreter | None, wanted: InterpreterInfo) -> list[str]:
    if local is not None:
        return ["uv", "pip", "install", "--python", local.path]
    version = ["--python-version", wanted.version, "--python-platform", _uv_platform(wanted)]
    return ["uv", "pip", "install", "--python", sys.executable, *version, "--only-binary", ":all:"]


def _pip(local: LocalInterpreter | None, wanted: InterpreterInfo) -> list[str]:
    pip = [sys.executable, "-P", "-m", "pip"]  # -P: the folder may have a pip of its own, which must not run
    if local is not None:
        return [*pip, "--python", local.path, "install", "--no-compile"]
    version = [f"--python-version={wanted.version}", f"--implementation={_tag(wanted.implementation)}"]
    platforms = [f"--platform={platform}" for platform in _pip_platforms(wanted)]
    return [*pip, "install", "--no-compile", "--only-binary=:all:", *version, *platforms]


def _tag(implementation: str) -> str:
    return {"cpython": "cp", "pypy": "pp"}.get(implementation, implementation)


def _uv_platform(wanted: InterpreterInfo) -> str:
    """Return uv's name of a platform; empty if it has none."""
    if wanted.machine not in ("x86_64", "aarch64"):
        return ""
    if wanted.libc == "musl":
        return f"{wanted.machine}-unknown-linux-musl"
    versions = [version for version in _UV_GLIBC if version <= _minor(wanted)]
    return f"{wanted.machine}-manylinux_2_{versions[-1]}" if versions and wanted.libc == "glibc" else ""


def _pip_platforms(wanted: InterpreterInfo) -> Iterator[str]:
    """Yield the platforms of wheels that run on a platform, the newest first."""
    kind, oldest = ("manylinux_2", 17) if wanted.libc == "glibc" else ("musllinux_1", 1)
    oldest = _OLDEST_GLIBC.get(wanted.machine, oldest) if wanted.libc == "glibc" else oldest
    for minor in range(_minor(wanted), oldest - 1, -1):
        yield f"{kind}_{minor}_{wanted.machine}"
        if wanted.libc == "glibc" and minor in _LEGACY:
            yield f"{_LEGACY[minor]}_{wanted.machine}"
    yield f"linux_{wanted.machine}"


def _minor(wanted: InterpreterInfo) -> int:
    _, _, minor = wanted.libc_version.partition(".")
    return int(minor) if minor.isdigit() else 0
