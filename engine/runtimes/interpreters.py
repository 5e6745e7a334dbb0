"""Interpreters installed on this machine, and their descriptions, by which clients choose packages that fit.

A runtime's interpreter is searched for and tried on first use, then cached.

The interpreter's version need not equal that of the runtime. Among interpreters with the same major version, the one
with the nearest minor version is used (for Node.js, the nearest major version from 18 on). Functions of Python 2 run
on Python 3. A log event reports the difference once. An interpreter is used only if a trial run succeeds, which
excludes launchers without an interpreter. If the search finds a virtual environment, its base interpreter is used
instead, so that functions cannot import the environment's packages. An interpreter whose path is in the settings is
used as it is.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import structlog
from anyio import to_thread
from msgspec import Struct

from engine.errors import InvalidField, NoInterpreter
from engine.runtimes.catalog import Family, Runtime, find_runtime, refusal_of, runtime_name

log = structlog.get_logger("functiond")

OLDEST = {Family.PYTHON: (3, 9), Family.NODE: (18, 0)}  #: oldest versions that the workers support
WORKERS = Path(__file__).parents[1] / "workers"
BRIDGE = WORKERS / "bridge_worker.py"  #: worker of functions with their own ``bootstrap``

_PYTHON_NAME = re.compile(r"python(3)\.(\d{1,2})")
PROBE_TIMEOUT = 30.0  #: seconds until an interpreter must have answered
#: Programs, also for versions that no worker supports. They print a JSON list with the fields of InterpreterInfo from
#: ``version`` on, then the running program, and the base interpreter of its virtual environment.
_PROGRAMS = {
    Family.PYTHON: (
        *("-I", "-S", "-c"),
        "import json, platform, sys, sysconfig; libc = platform.libc_ver(); e = sys.executable; "
        # Before Python 3.14, libc_ver() does not know musl, which has one binary interface since 1.2.
        "musl = 'musl' in str(sysconfig.get_config_var('HOST_GNU_TYPE')) and ('musl', '1.2'); "
        "print(json.dumps(['%d.%d.%d' % sys.version_info[:3], sys.implementation.name, platform.machine()] "
        "+ list(musl or libc) + [e, getattr(sys, '_base_executable', e)]))",
    ),
    Family.NODE: (
        "-p",
        "const none = { getReport: () => ({ header: {} }) }, { report = none } = process; "
        "report.excludeNetwork = true; const glibc = report.getReport().header.glibcVersionRuntime; "
        "const machine = {x64: 'x86_64', arm64: 'aarch64'}[process.arch] || process.arch; "
        "const other = process.platform === 'linux' ? 'musl' : ''; const path = process.execPath; "
        "JSON.stringify([process.versions.node, 'node', machine, glibc ? 'glibc' : other, glibc || '', path, path])",
    ),
}
_FOLDERS = {
    Family.PYTHON: ("/opt/function/runtime/python3*/rtsp/python/bin", "~/.pyenv/versions/3*/bin"),
    Family.NODE: ("/opt/function/runtime/nodejs*/rtsp/nodejs/bin", "~/.nvm/versions/node/*/bin"),
}
_FILES = {Family.PYTHON: "python3.*", Family.NODE: "node"}

PLATFORM = "/opt/function/runtime"  #: where bootstraps of the platform find interpreters, by language and version
#: Program of each language below such a folder, and the versions that the platform documents.
_PLATFORM_FILES = {
    "python": ("rtsp/python/bin/python3", "2.7 3.6 3.7 3.8 3.9 3.10 3.11 3.12 3.13 3.14"),
    "nodejs": ("rtsp/nodejs/bin/node", "6.10 8.10 10.16 12.13 14.18 16.17 18.15 20.15"),
    "java": ("rtsp/jre/bin/java", "8 11 17 21"),
    "php": ("rtsp/php/bin/php", "7.3 8.3"),
}


class Interpreter(NamedTuple):
    version: tuple[int, int]
    path: str


class InterpreterInfo(Struct, frozen=True, kw_only=True):
    """Interpreter that runs functions of ``runtime``."""

    runtime: str
    language: Family  #: ``python`` or ``node``
    version: str  #: such as 3.11.7
    implementation: str  #: such as cpython
    machine: str  #: such as x86_64 or aarch64
    libc: str  #: ``glibc`` or ``musl``; empty: unknown
    libc_version: str  #: empty: unknown

    @property
    def minor(self) -> tuple[int, int]:
        major, minor, *_ = self.version.split(".")
        return int(major), int(minor)


class Interpreters:
    """Cache of interpreters, one for each runtime.

    ``python`` and ``node`` are paths of interpreters, each used for all versions of its language. If a path is empty,
    an interpreter is searched for.
    """

    def __init__(self, *, python: str = "", node: str = "") -> None:
        self._set = {Family.PYTHON: python, Family.NODE: node}
        self._found: dict[str, Interpreter] = {}  #: by runtime name
        self._links: dict[str, str] | None = None
        self._searching = anyio.Lock()

    @property
    def chosen(self) -> dict[str, str]:
        """Paths that settings name, by the names of these; empty: none."""
        return {f"executor.{family}": path for family, path in self._set.items()}

    async def find(self, runtime: str) -> tuple[Family, Interpreter | None]:
        """Return the family of a runtime and its interpreter, which is None if functions bring a ``bootstrap``.

        Raises the errors of ``worker_command``.
        """
        declared = find_runtime(runtime)
        if declared is None or declared.family is None:
            raise InvalidField("runtime", runtime, refusal_of(runtime))
        if not declared.family.interpreted:
            return declared.family, None
        return declared.family, self._cached(runtime) or await self._search(declared, declared.family)

    async def worker_command(self, runtime: str, memory: int = 0) -> list[str]:
        """Return the command that starts a worker of this runtime, without its last argument: the socket's descriptor.

        ``memory`` is the instance's limit in MiB, from which the size of Node.js's heap follows. A cached interpreter
        is searched for again only if its file is not executable any more. Raises NoInterpreter if this machine has no
        interpreter for the runtime; raises InvalidField if this engine cannot run the runtime on any machine.
        """
        family, interpreter = await self.find(runtime)
        if interpreter is None:
            return [own_interpreter().path, "-I", str(BRIDGE), family.value]
        if family is Family.NODE:
            return [interpreter.path, *_heap(memory), str(WORKERS / "node_worker.cjs")]
        return [interpreter.path, "-I", str(WORKERS / "python_worker.py")]

    async def describe(self, runtime: str) -> InterpreterInfo | None:
        """Describe the interpreter that runs functions of this runtime; for a ``bootstrap``, its ``python3``.

        Return None if the interpreter does not run. Raises the errors of ``worker_command``.
        """
        family, interpreter = await self.find(runtime)
        if interpreter is None:
            family, interpreter = Family.PYTHON, own_interpreter()
        return await to_thread.run_sync(describe, runtime, family, interpreter.path)

    async def installed(self) -> list[InterpreterInfo]:
        """Describe all interpreters of this machine, each with the runtime of its version; the newest first."""
        listed = []
        for runtime in await to_thread.run_sync(_runtimes, self._set):
            try:
                info = await self.describe(runtime)
            except NoInterpreter:
                continue  # its executable does not run
            if info is not None and runtime_name(info.language, info.minor) == runtime:  # not the nearest version
                listed.append(info)
        return listed

    async def platform_links(self) -> dict[str, str]:
        """Return the symbolic links, with their targets, by which a ``bootstrap`` finds programs as on the platform.

        Any version leads to the same program: Python to the engine's, Java and PHP to those in PATH. There are no links
        if this machine has such a folder itself.
        """
        if self._links is None:
            node = None
            with suppress(NoInterpreter):
                _, node = await self.find("Node.js20.15")
            self._links = _platform_links(node.path if node else None)
        return self._links

    def _cached(self, runtime: str) -> Interpreter | None:
        interpreter = self._found.get(runtime)
        return interpreter if interpreter and os.access(interpreter.path, os.X_OK) else None

    async def _search(self, runtime: Runtime, family: Family) -> Interpreter:
        async with self._searching:
            if cached := self._cached(runtime.name):
                return cached
            outcome = await to_thread.run_sync(_choose, runtime.version, family, self._set[family])
            if isinstance(outcome, Interpreter):
                if outcome.version != runtime.version:
                    served_by = _dotted(outcome.version)
                    log.info("runtime served by the nearest version", runtime=runtime.name, version=served_by)
                self._found[runtime.name] = outcome
                return outcome
        raise NoInterpreter(runtime.name, outcome)


def bridge_of(command: Sequence[str]) -> str:
    """Return the family of a function that brings a ``bootstrap``, by the command of its worker; else an empty text."""
    return command[-1] if str(BRIDGE) in command else ""


def _platform_links(node: str | None) -> dict[str, str]:
    links = {f"{PLATFORM}/python/rtsp/python/bin/python": "python3"}
    for language, (file, versions) in _PLATFORM_FILES.items():
        program = {"python": own_interpreter().path, "nodejs": node}.get(language) or shutil.which(language)
        if program:
            links[f"{PLATFORM}/{language}/{file}"] = program
            links |= {f"{PLATFORM}/{language}{version}": language for version in versions.split()}
    return {} if os.path.exists(PLATFORM) else links


def _heap(memory: int) -> list[str]:
    """Return the option that limits the heap of Node.js, whose default depends on the machine's memory.

    The heap gets less than the instance's limit, because Node.js needs about 45 MiB besides its heap.
    """
    return [f"--max-old-space-size={min(memory - 48, memory * 9 // 10)}"] if memory else []


def own_interpreter() -> Interpreter:
    """Return the Python interpreter that runs the engine, or the base interpreter if that is a virtual environment."""
    return Interpreter(sys.version_info[:2], getattr(sys, "_base_executable", sys.executable))


def _runtimes(fixed: Mapping[Family, str]) -> list[str]:
    """Return the runtimes whose versions are those of installed interpreters, the newest of each family first. Blocks.

    A path in ``fixed`` is the only interpreter of its family.
    """
    listed = []
    for family in (Family.PYTHON, Family.NODE):
        if family is Family.PYTHON and not fixed[family]:
            named = {interpreter.version for interpreter in (own_interpreter(), *_named_pythons(_files(family)))}
        else:
            paths = [fixed[family]] if fixed[family] else _files(family)
            named = {described.minor for path in paths if (described := describe("", family, path))}
        versions = sorted((version for version in named if version >= OLDEST[family]), reverse=True)
        listed += [runtime_name(family, version) for version in versions]
    return listed


def _choose(version: tuple[int, int], family: Family, fixed: str) -> Interpreter | str:
    """Return the working interpreter whose version is nearest to that of the runtime. Blocks.

    If there is none, return the reason as text for an error message.
    """
    passed_over = []
    for candidate, interpreter in _candidates(version, family, fixed):
        if interpreter is not None and interpreter.version >= OLDEST[family]:
            return interpreter
        passed_over.append(f"{candidate} ({_dotted(interpreter.version) if interpreter else 'does not run'})")
    seen = f"found only {', '.join(passed_over)}" if passed_over else "this machine has none"
    need = f"{family.title()} {_dotted(OLDEST[family])} or newer"
    return f"it needs {need}, and {seen}: install one, or name it by the setting executor.{family}"


def _candidates(version: tuple[int, int], family: Family, fixed: str) -> Iterator[tuple[str, Interpreter | None]]:
    """Yield the path of each installed executable with its interpreter, the nearest version first. Blocks.

    The interpreter is None if the executable does not run.
    """
    if fixed:
        yield fixed, _probe(fixed, family, keep_venv=True)
    elif family is Family.PYTHON:
        own = own_interpreter()
        named = sorted([own, *_named_pythons(_files(family))], key=lambda python: _distance(python.version, version))
        yield from ((python.path, python if python is own else _probe(python.path, family)) for python in named)
    else:  # the file name has no version: all must be probed
        probed = [(path, _probe(path, family)) for path in _files(family)]
        yield from sorted(probed, key=lambda pair: _distance(pair[1].version if pair[1] else (0, 0), version))


def _named_pythons(paths: Iterable[str]) -> Iterator[Interpreter]:
    """Yield the Python executables whose file name contains a supported version.

    Executables are not run for this, because starting many processes would take long.
    """
    for path in paths:
        named = _PYTHON_NAME.fullmatch(Path(path).name)
        if named and (version := (int(named[1]), int(named[2]))) >= OLDEST[Family.PYTHON]:
            yield Interpreter(version, path)


def _distance(version: tuple[int, int], wanted: tuple[int, int]) -> tuple[int, int, bool]:
    """Return a sort key for the distance of a version from the runtime's.

    Of two equal distances, the newer version is first.
    """
    return abs(version[0] - wanted[0]), abs(version[1] - wanted[1]), version < wanted


def _files(family: Family) -> list[str]:
    """Return the paths of all executables that are named like an interpreter of this family.

    If several paths are links to the same file, only one of them is returned.
    """
    patterns = [os.path.expanduser(folder) for folder in _FOLDERS[family]]
    folders = [folder for pattern in patterns for folder in sorted(Path("/").glob(pattern.removeprefix("/")))]
    folders += [Path(folder) for folder in os.get_exec_path() if os.access(folder, os.R_OK | os.X_OK)]
    files = (file for folder in folders for file in sorted(folder.glob(_FILES[family])) if os.access(file, os.X_OK))
    return list({os.path.realpath(file): str(file) for file in files}.values())


def _probe(path: str, family: Family, *, keep_venv: bool = False) -> Interpreter | None:
    """Run an executable and return the version and path of its interpreter, or None if it does not run.

    The path in a virtual environment is replaced by the path of the base interpreter, except with ``keep_venv``.
    """
    try:
        version, *_, real, base = _answer(path, family)
        major, minor, *_ = version.split(".")
        return Interpreter((int(major), int(minor)), real if keep_venv else base)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None


def _dotted(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"


@lru_cache(maxsize=64)
def _cached_answer(path: str, language: Family, changed_at: int) -> Any:
    """Return what an executable says about itself, until its file changes."""
    return _answer(path, language)


def _answer(path: str, language: Family) -> Any:
    nothing = subprocess.DEVNULL
    command = [path, *_PROGRAMS[language]]
    return json.loads(subprocess.check_output(command, stdin=nothing, stderr=nothing, timeout=PROBE_TIMEOUT))


def describe(runtime: str, language: Family, path: str) -> InterpreterInfo | None:
    """Return the description of an executable, or None if it does not run. Blocks at the first call for a file."""
    try:
        version, implementation, machine, libc, libc_version, *_ = _cached_answer(
            path, language, os.stat(path).st_mtime_ns
        )
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return InterpreterInfo(
        runtime=runtime,
        language=language,
        version=version,
        implementation=implementation,
        machine=machine,
        libc=libc,
        libc_version=libc_version,
    )
