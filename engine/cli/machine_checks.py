"""Checks of this machine and its data directory, for a command that finds no engine. They change no data."""

from __future__ import annotations

import os
import resource
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import anyio

from engine.cli.findings import Finding
from engine.config.settings import Settings
from engine.errors import DataDirectoryLocked, FunctiondError
from engine.isolation.bubblewrap import find_bubblewrap
from engine.maintenance.disk_guard import free_space
from engine.runtimes.interpreters import Interpreters
from engine.storage.data_directory import locked

#: Module that each plugin with an extra of the same name needs.
_EXTRAS = {
    "kafka": "aiokafka",
    "rabbitmq": "aiormq",
    "dds": "pymongo",
    "obs": "aiobotocore",
    "smn": "cryptography",
    "webhook": "httpx",
}
_NAMES = {"webhook": "http"}  #: extras that have other names than their plugins
_RUNTIMES = {"Python3.10": "python", "Node.js18.15": "node"}
FILES = 4096  #: open files below which few connections and instances are possible
FUTURE = 60.0  #: seconds by which a file may seem newer than now


def of_machine(settings: Settings) -> Iterator[Finding]:
    """Yield what would keep an engine with these settings from working on this machine."""
    folder = settings.storage.path.absolute()
    yield from _directory(folder, settings.storage.free_space)
    yield from _port(settings.http.host, settings.http.port)
    yield from _open_files()
    yield from _interpreters(settings)
    yield from _sandbox(settings)
    yield from _extras(settings)


def _directory(folder: Path, needed: int) -> Iterator[Finding]:
    existing = next(one for one in (folder, *folder.parents) if one.exists())
    where = f"data directory {folder}"
    if not existing.is_dir() or not os.access(existing, os.R_OK | os.W_OK | os.X_OK):
        user = f"user {os.getuid()}"
        problem = f"{existing} is no directory that {user} can read and write"
        yield Finding(where=where, problem=problem, advice=f"change its owner: chown -R {os.getuid()} {existing}")
        return
    if (free := free_space(existing)) < needed:
        problem = f"{free >> 20} MiB are free on its disk, and new work needs {needed >> 20} MiB"
        yield Finding(where=where, problem=problem, advice="free some space, or lower storage.free_space")
    if not folder.exists():
        return
    try:
        with locked(folder, create=False):
            yield from _stored(folder, where)
    except DataDirectoryLocked as error:
        owner = f"process {error.pid}" if error.pid else "another process"
        yield Finding(
            where=where,
            problem=f"{owner} has locked it: an engine that runs there listens elsewhere or does not answer",
            advice="name its address by --url, or look at its log; kill it only if it answers no signal",
        )
    except FunctiondError as error:
        yield Finding(where=where, problem=str(error), advice="correct this before the engine is started")


def _stored(folder: Path, where: str) -> Iterator[Finding]:
    journal = folder / "journal.db"
    if not journal.exists():
        with suppress(OSError):
            if any((folder / "code").iterdir()):
                problem = f"{journal.name} is missing beside stored packages"
                yield Finding(where=where, problem=problem, advice="restore a backup: functiond restore")
        return
    ahead = journal.stat().st_mtime - time.time()
    if ahead > FUTURE:
        problem = f"is {ahead / 3600:.1f} hours behind the last change of {journal.name}"
        yield Finding(where="clock", problem=problem, advice="correct the clock before the engine is started")


def _port(host: str, port: int) -> Iterator[Finding]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind((host, port))
        except OSError as error:
            problem = f"cannot be listened on: {error.strerror}"
            yield Finding(
                where=f"port {port} of {host}", problem=problem, advice="stop its owner, or use another --port"
            )


def _open_files() -> Iterator[Finding]:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < FILES:
        advice = "raise it (ulimit -n, LimitNOFILE of systemd)"
        yield Finding(where="open files", problem=f"at most {hard} are allowed", advice=advice, serious=False)


def _interpreters(settings: Settings) -> Iterator[Finding]:
    interpreters = Interpreters(python=settings.executor.python, node=settings.executor.node)
    for runtime, name in _RUNTIMES.items():
        try:
            anyio.run(interpreters.check, runtime)
        except FunctiondError as error:
            # Many machines have functions in one language only.
            given = bool(getattr(settings.executor, name))
            yield Finding(where=f"runtime {runtime}", problem=str(error), advice="", serious=given)


def _sandbox(settings: Settings) -> Iterator[Finding]:
    executor = settings.executor
    if executor.isolation == "process":
        return
    with tempfile.TemporaryDirectory() as folder:
        fence = {"tmp": executor.tmp_size, "network": not executor.network}
        found = find_bubblewrap(Path(folder) / "tmp", fence)
    if isinstance(found, str):
        advice = "install bubblewrap, or accept that functions run as plain processes (executor.isolation = process)"
        needed = executor.isolation == "bubblewrap" or not executor.network
        yield Finding(where="sandbox", problem=found, advice=advice, serious=needed)


def _extras(settings: Settings) -> Iterator[Finding]:
    for plugin, module in _EXTRAS.items():
        if plugin in settings.plugins and find_spec(module) is None:
            extra = _NAMES.get(plugin, plugin)
            problem = f"the settings have a table plugins.{plugin}, and the package {module} is missing"
            yield Finding(where=f"plugin {plugin}", problem=problem, advice=f"pip install '.[{extra}]' in the clone")
