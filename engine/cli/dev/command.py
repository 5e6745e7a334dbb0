"""``functiond dev``: the command, its engine, and the signals that end it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

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
from engine.cli.dev.own_engine import own_engine
from engine.cli.dev.session import Session
from engine.cli.output import write
from engine.cli.target import DEFAULT_TARGET, Target
from engine.config.settings import is_loopback
from engine.deploy.apps import is_app
from engine.deploy.client import Client, NotRunning
from engine.deploy.packaging import default_name
from engine.errors import UsageError

_PROBE = 5.0  #: seconds within which a running engine replies


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
        check_app_options(name, options.configuration, options.asynchronous)
        return DeployableApp(str(path), options)
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
    with own_engine(data, session.warn, session.end) as url:
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
