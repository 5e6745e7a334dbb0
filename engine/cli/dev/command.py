"""``functiond dev``: the command, its engine, and the signals that end it."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

from engine.cli.deploy import (
    INSTALLED,
    UNCHANGED,
    UNCHANGED_ASYNC,
    AsynchronousOptions,
    Configuration,
    Installation,
    check_app_options,
)
from engine.cli.dev.deployables import Deployable, DeployableApp, DeployableFunction, Options
from engine.cli.dev.session import Session
from engine.cli.output import write
from engine.cli.target import DEFAULT_TARGET, Target
from engine.config.search_path import ROOT
from engine.config.settings import is_loopback
from engine.deploy.apps import is_app
from engine.deploy.client import Client, NotRunning
from engine.deploy.packaging import default_name
from engine.errors import FunctiondError, UsageError

_PROBE = 5.0  #: seconds within which a running engine replies
_PARENT_DEATH_SIGNAL = 1  #: of prctl
_GRACE = "2"  #: seconds that running functions get at the end, unless the environment says otherwise


class CannotStart(FunctiondError):
    def __init__(self, reason: str) -> None:
        super().__init__(f"cannot start an engine: {reason}")


def dev(
    path: Path,
    /,
    *,
    name: str | None = None,
    data_dir: Path | None = None,
    configuration: Configuration = UNCHANGED,
    installation: Installation = INSTALLED,
    asynchronous: AsynchronousOptions = UNCHANGED_ASYNC,
    target: Target = DEFAULT_TARGET,
) -> int:
    """Deploy a function, and deploy it again at each change. Show its log, and send it events by keys.

    If no engine runs at the URL, a loopback address, the command starts one, which ends with it.

    Parameters
    ----------
    path
        Folder, Python or JavaScript file, zip package, or module:app.
    name
        Name of the function. [default: name of the folder or file]
    data_dir
        Folder for the data of an engine that the command starts. [default: a temporary folder]
    """
    if target.json:
        raise UsageError("dev prints no JSON: leave out --json")
    session = Session(_deployable(path, name, Options(configuration, installation, asynchronous)))
    with _signals_interrupting():
        try:
            with _engine(target, data_dir, session) as used:
                return session.run(used)
        except KeyboardInterrupt:
            return 0


def _deployable(path: Path, name: str | None, options: Options) -> Deployable:
    if is_app(str(path)):
        check_app_options(options.configuration, options.asynchronous)
        return DeployableApp(str(path), name, options)
    if not path.exists():
        raise UsageError(f"cannot read {path}: no such file or folder")
    options.asynchronous.check()
    return DeployableFunction(path, name or default_name(path), options)


@contextmanager
def _engine(target: Target, data: Path | None, session: Session) -> Iterator[Target]:
    """Yield the target with the URL of a running engine, which is started for the block if none runs.

    Raises UsageError if none runs at a URL that is not a loopback address.
    """
    client = target.client()
    if _is_running(client):
        yield target
        return
    if not is_loopback(client.host):
        raise UsageError(f"no engine replies at {target.url}: leave --url and FUNCTIOND_URL out to start one here")
    with _own_engine(data, session.warn, session.end) as url:
        write(f"No engine runs at {target.url}: started {url}, which ends with this command.")
        write(f"Open the console at {url}/console/")
        yield replace(target, url=url)


def _is_running(client: Client) -> bool:
    try:
        answer = client.probe("/healthz", _PROBE).json
    except (NotRunning, ValueError):  # nothing listens, or another program
        return False
    return isinstance(answer, dict) and "status" in answer


@contextmanager
def _signals_interrupting() -> Iterator[None]:
    """Have SIGTERM and SIGHUP interrupt the block as Ctrl-C does, also where the parent process ignores SIGINT."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    earlier = {number: signal.signal(number, signal.default_int_handler) for number in numbers}
    try:
        yield
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


# --- own engine ---------------------------------------------------------------------------------------------


@contextmanager
def _own_engine(data: Path | None, warned: Callable[[str], None], ended: Callable[[], None]) -> Iterator[str]:
    """Run an engine on a free port until the block ends, and yield its URL. Raises CannotStart.

    Its data are in ``data``, or in a temporary folder. A thread calls ``warned`` with its warnings, and ``ended`` if it
    ends before the block does.
    """
    with ExitStack() as stack:
        folder = str(data) if data else stack.enter_context(TemporaryDirectory(prefix="functiond-dev-"))
        process = _start(folder)
        stack.callback(_stop, process)
        assert process.stderr is not None
        url = _url(process.stderr)
        threading.Thread(target=_follow, args=(process.stderr, warned, ended), daemon=True).start()
        yield url


def _start(folder: str) -> subprocess.Popen[str]:
    path = os.pathsep.join(filter(None, [ROOT, os.environ.get("PYTHONPATH", "")]))
    environment = {"FUNCTIOND_GRACE": _GRACE, **os.environ, "FUNCTIOND_LOG__FORMAT": "json", "PYTHONPATH": path}
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "engine", "serve", "--port", "0", "--data-dir", folder],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=environment,
        text=True,
        errors="replace",
        start_new_session=True,  # Ctrl-C in the terminal must reach the command only, which then stops the engine
        preexec_fn=lambda: ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, signal.SIGTERM, 0, 0, 0),
    )


def _url(lines: IO[str]) -> str:
    """Return the URL of a starting engine, from its log."""
    last = "it said nothing"
    for line in lines:
        entry = _entry(line)
        if entry.get("event") == "serving":
            return entry["url"]
        last = entry.get("event", line).strip() or last
    raise CannotStart(last)


def _follow(lines: IO[str], warned: Callable[[str], None], ended: Callable[[], None]) -> None:
    with suppress(ValueError):  # closed
        for line in lines:
            entry = _entry(line)
            if entry.get("level") not in ("debug", "info"):
                warned(entry.get("event", line.strip()))
    ended()


def _entry(line: str) -> dict[str, str]:
    """Return a line of the engine's log; empty for other output, such as a traceback of the interpreter."""
    try:
        entry = json.loads(line)
    except ValueError:
        return {}
    return {name: str(value) for name, value in entry.items()} if isinstance(entry, dict) else {}


def _stop(process: subprocess.Popen[str]) -> None:
    """Stop an engine and wait for its end. Ctrl-C meanwhile ends the grace period of running functions."""
    while process.poll() is None:
        process.terminate()
        with suppress(KeyboardInterrupt):
            process.wait()
