"""The interpreters of this machine: found when a runtime is first asked for, tried, and remembered.

A runtime's name is a wish: of those of the same major version the nearest minor serves (for Node.js, the nearest
major from 18 on), and the log says so once. Only what has run once counts: a launcher without an interpreter behind
it is passed over. A virtual environment that is come upon leads to the interpreter below it, so that its packages
stay its own; one that the settings name is taken as it is.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import anyio
import structlog
from anyio import to_thread

from engine.errors import InvalidField, NoInterpreter
from engine.runtimes.catalog import CHOICE, Family, Runtime, find_runtime

log = structlog.get_logger("functiond")

OLDEST = {Family.PYTHON: (3, 9), Family.NODE: (18, 0)}  #: that the workers are written for
WORKERS = Path(__file__).parents[1] / "workers"
BRIDGE = WORKERS / "bridge_worker.py"  #: for functions that bring their own ``bootstrap``

_PATIENCE = 30.0  #: seconds that an interpreter may take to tell its version
_PYTHON_NAME = re.compile(r"python(3)\.(\d{1,2})")
#: Each prints, a line each, the version, the program that really runs, and the one below its virtual environment.
_QUESTIONS = {
    Family.PYTHON: (
        *("-I", "-S", "-c"),
        "import sys; e = sys.executable; print('%d.%d' % sys.version_info[:2], e, getattr(sys, '_base_executable', e), "
        "sep='\\n')",
    ),
    Family.NODE: ("-p", "[process.versions.node, process.execPath, process.execPath].join('\\n')"),
}
_FOLDERS = {
    Family.PYTHON: ("/opt/function/runtime/python3*/rtsp/python/bin", "~/.pyenv/versions/3*/bin"),
    Family.NODE: ("/opt/function/runtime/nodejs*/rtsp/nodejs/bin", "~/.nvm/versions/node/*/bin"),
}
_FILES = {Family.PYTHON: "python3.*", Family.NODE: "node"}


class Interpreter(NamedTuple):
    version: tuple[int, int]
    path: str


class Interpreters:
    """``python`` and ``node`` are paths, which then serve every version asked for; empty ones are looked for."""

    def __init__(self, *, python: str = "", node: str = "") -> None:
        self._set = {Family.PYTHON: python, Family.NODE: node}
        self._found: dict[str, Interpreter] = {}  #: by runtime
        self._searching = anyio.Lock()

    async def worker_command(self, runtime: str, memory: int = 0) -> list[str]:
        """What starts a worker for this runtime; the number of its descriptor is yet to be appended.

        ``memory``, in MB, is what the instance will have: Node.js must know how much of it its heap may take.

        Raises InvalidField, and of it NoInterpreter if another machine could run it. What was found once is not
        looked for again while it is there.
        """
        known = find_runtime(runtime)
        if known is None or known.family is None:
            raise InvalidField("runtime", runtime, CHOICE)
        if not known.family.interpreted:
            return [own_interpreter().path, "-I", str(BRIDGE), known.family.value]
        found = self._known(runtime) or await self._search(known, known.family)
        if known.family is Family.NODE:
            return [found.path, *_heap(memory), str(WORKERS / "node_worker.cjs")]
        return [found.path, "-I", str(WORKERS / "python_worker.py")]

    async def check(self, runtime: str) -> None:
        """Raises InvalidField if nothing here can run it."""
        await self.worker_command(runtime)

    def _known(self, runtime: str) -> Interpreter | None:
        found = self._found.get(runtime)
        return found if found and os.access(found.path, os.X_OK) else None

    async def _search(self, runtime: Runtime, family: Family) -> Interpreter:
        async with self._searching:
            if known := self._known(runtime.name):
                return known
            found = await to_thread.run_sync(_choose, runtime.version, family, self._set[family])
            if isinstance(found, Interpreter):
                if found.version != runtime.version:
                    served_by = _dotted(found.version)
                    log.info("runtime served by the nearest version", runtime=runtime.name, version=served_by)
                self._found[runtime.name] = found
                return found
        raise NoInterpreter(runtime.name, found)


def _heap(memory: int) -> list[str]:
    """Its default is measured by the machine. Less than all, for Node.js itself takes some 45 MB beside the heap."""
    return [f"--max-old-space-size={min(memory - 48, memory * 9 // 10)}"] if memory else []


def own_interpreter() -> Interpreter:
    """The one below the engine's own virtual environment."""
    return Interpreter(sys.version_info[:2], getattr(sys, "_base_executable", sys.executable))


def _choose(version: tuple[int, int], family: Family, fixed: str) -> Interpreter | str:
    """The nearest that runs, or what to tell someone who asked for it. Blocks."""
    if family is Family.PYTHON and version[0] != OLDEST[family][0]:
        return f"this engine's Python functions need Python {_dotted(OLDEST[family])} or newer: choose Python3.x"
    passed_over = []
    for candidate, found in _candidates(version, family, fixed):
        if found is not None and found.version >= OLDEST[family]:
            return found
        passed_over.append(f"{candidate} ({_dotted(found.version) if found else 'does not run'})")
    seen = f"found only {', '.join(passed_over)}" if passed_over else "this machine has none"
    need = f"{family.title()} {_dotted(OLDEST[family])} or newer"
    return f"it needs {need}, and {seen}: install one, or name it by the setting executor.{family}"


def _candidates(version: tuple[int, int], family: Family, fixed: str) -> Iterator[tuple[str, Interpreter | None]]:
    """Paths and what they are once asked, the likeliest first. Blocks."""
    if fixed:
        yield fixed, _ask(fixed, family, as_it_is=True)
    elif family is Family.PYTHON:
        own = own_interpreter()
        named = sorted([own, *_named_pythons(_files(family))], key=lambda one: _distance(one.version, version))
        yield from ((one.path, one if one is own else _ask(one.path, family)) for one in named)
    else:  # a file's name says nothing: all must be asked
        asked = [(path, _ask(path, family)) for path in _files(family)]
        yield from sorted(asked, key=lambda one: _distance(one[1].version if one[1] else (0, 0), version))


def _named_pythons(paths: Iterable[str]) -> Iterator[Interpreter]:
    """Those of use, by their names: asking takes a process each."""
    for path in paths:
        named = _PYTHON_NAME.fullmatch(Path(path).name)
        if named and (version := (int(named[1]), int(named[2]))) >= OLDEST[Family.PYTHON]:
            yield Interpreter(version, path)


def _distance(version: tuple[int, int], wanted: tuple[int, int]) -> tuple[int, int, bool]:
    """Of two that are equally far the newer is nearer."""
    return abs(version[0] - wanted[0]), abs(version[1] - wanted[1]), version < wanted


def _files(family: Family) -> list[str]:
    """Whatever has the name of such an interpreter, each real file once."""
    patterns = [os.path.expanduser(folder) for folder in _FOLDERS[family]]
    folders = [folder for pattern in patterns for folder in sorted(Path("/").glob(pattern.removeprefix("/")))]
    folders += [Path(folder) for folder in os.get_exec_path()]
    files = (file for folder in folders for file in sorted(folder.glob(_FILES[family])) if os.access(file, os.X_OK))
    return list({os.path.realpath(file): str(file) for file in files}.values())


def _ask(path: str, family: Family, *, as_it_is: bool = False) -> Interpreter | None:
    """What it says of itself; None if it doesn't run. ``as_it_is`` keeps a virtual environment."""
    try:
        told = subprocess.run(
            [path, *_QUESTIONS[family]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_PATIENCE,
            check=True,
            text=True,
        )
        version, real, base = told.stdout.splitlines()
        major, minor, *_ = version.split(".")
        return Interpreter((int(major), int(minor)), real if as_it_is else base)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None


def _dotted(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"
