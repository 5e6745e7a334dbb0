"""``functiond doctor``: findings about a running engine, or about this machine if no engine replies."""

from __future__ import annotations

import json
import os
import resource
import socket
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import anyio
import msgspec
from msgspec import Struct, convert
from msgspec.structs import replace

from engine import __version__
from engine.cli.options import ConfigFile
from engine.cli.output import FAILED, Output, print_json, write
from engine.cli.target import DEFAULT_TARGET, Target
from engine.config.settings import Settings, load_settings
from engine.deploy.client import ApiError, Client, NoReply, NotRunning, NotTrusted
from engine.errors import DataDirectoryLocked, FunctiondError, SettingsError
from engine.executors.local.choice import IsolationOptions, open_tenants, several_projects, user_range
from engine.isolation.bubblewrap import find_bubblewrap
from engine.isolation.machine import free_space
from engine.metrics.prometheus import configure_logging
from engine.model.urn import short_name
from engine.runtimes.interpreters import Interpreters
from engine.storage import NEXT, locked_names
from engine.storage.data_directory import KEY, locked

WAIT = 5.0  #: seconds for which an engine may take to tell its health
_CREDENTIALS = (
    "set FUNCTIOND_TOKEN, or FUNCTIOND_ACCESS_KEY and FUNCTIOND_SECRET_KEY, to those of this engine, and try again"
)
#: Next step by part of the health. The texts of other parts name theirs themselves.
_ADVICE = {
    "journal": "look at the disk of the data directory (df, dmesg): a failing or full disk stops all writes",
    "loop": "look for `event loop stalled` in the engine's log: its stack names the code, such as that of a plugin",
    "intake": "new work is refused until then; accepted work goes on",
    "clock": "correct the clock, or run: functiond clock accept",
    "plugins": "look at the engine's log",
    "nodes": "run: functiond nodes",
}
#: Fields of health and readiness that are no problems.
_STATUSES = frozenset({"status", "isolation", "http_network", "network", "users", "function_api"})
#: Module that each plugin with an extra of the same name needs.
_EXTRAS = {
    "kafka": "aiokafka",
    "rabbitmq": "aiormq",
    "dds": "pymongo",
    "obs": "aiobotocore",
    "smn": "httpx",
    "webhook": "httpx",
}
_NAMES = {"webhook": "http"}  #: extras that have other names than their plugins
_RUNTIMES = {"Python3.10": "python", "Node.js18.15": "node"}
FILES = 4096  #: open files below which few connections and instances are possible
FUTURE = 60.0  #: seconds by which a file may seem newer than now


class Finding(Struct, frozen=True, kw_only=True):
    """Something that is wrong, or worth knowing: where, what, and the next step."""

    where: str
    problem: str
    advice: str
    serious: bool = True  #: False: the engine works all the same


def doctor(*, data_dir: Path | None = None, config: ConfigFile = None, target: Target = DEFAULT_TARGET) -> int:
    """Say what is wrong with an engine, where, and what to do next.

    A running engine is asked about its health and about the triggers, destinations and deliveries of the project. If no
    engine replies, this machine and the data directory are checked. The exit code is 1 if something must be done.

    Parameters
    ----------
    data_dir
        Data directory to check if no engine replies. [default: that of the settings]
    """
    configure_logging("console", "error")  # to standard error, beside the findings
    findings = sorted(_findings(target.client(), data_dir, config), key=lambda finding: not finding.serious)
    serious = any(finding.serious for finding in findings)
    if target.json:
        print_json({"version": __version__, "url": target.url, "findings": msgspec.to_builtins(findings)})
    else:
        _print(findings, target.url, serious=serious)
    return FAILED if serious else 0


def _findings(client: Client, data_dir: Path | None, config: Path | None) -> Iterator[Finding]:
    try:
        yield from of_engine(client)
        return
    except NotTrusted as error:
        yield Finding(where="certificate", problem=str(error), advice="see also functiond serve --tls-cert")
        return
    except NoReply as error:
        advice = (
            "something holds its event loop, or the machine is overloaded: look for `event loop stalled` in its log, "
            "and restart the engine if it goes on"
        )
        yield Finding(where="engine", problem=str(error), advice=advice)
        return
    except NotRunning as error:
        yield Finding(where="engine", problem=str(error), advice="correct the findings below first, if there are any")
    try:
        overrides = {"storage.data_dir": str(data_dir) if data_dir else None}
        settings = load_settings(file=config, environ=os.environ, overrides=overrides)
    except SettingsError as error:
        yield Finding(
            where="settings", problem=str(error), advice="correct it; `functiond settings` lists all settings"
        )
        settings = Settings()
    yield from of_machine(settings)


def _print(findings: Sequence[Finding], url: str, *, serious: bool) -> None:
    for finding in findings:
        mark = "" if finding.serious else "note: "
        write(f"{mark}{finding.where}: {finding.problem}" + (f"\n  {finding.advice}" if finding.advice else ""))
    if not serious:
        Output().print(f"[bold green]nothing is wrong[/] with functiond {__version__} at", end="\n")
        Output().paste(url)


# --- a running engine -----------------------------------------------------------------------------------------


def of_engine(client: Client) -> Iterator[Finding]:
    """Yield what is wrong with a running engine and the client's project.

    Raises the errors of ``Client.probe`` if it cannot be asked.
    """
    health, ready = client.probe("/healthz", WAIT), client.probe("/readyz", WAIT)
    states = _fields(health.body), _fields(ready.body)
    if not all(states):
        advice = "name the address of an engine by --url"
        yield Finding(where="engine", problem="another program replies at this address", advice=advice)
        return
    yield from _health(*states)
    try:
        yield from _triggers(client.of_project)
        yield from _destinations(client.of_project)
        yield from _deliveries(client.of_project)
        yield from _expired(client.of_project)
    except ApiError as error:
        advice = _CREDENTIALS if error.status == 401 else "use credentials of this project with the role read or admin"
        yield Finding(where="project", problem=f"cannot be looked at: {error}", advice=advice)


def _fields(body: bytes) -> dict[str, Any]:
    """Return the fields of health or readiness; none if the reply is that of another program."""
    try:
        fields = json.loads(body)
    except ValueError:
        fields = None
    return fields if isinstance(fields, dict) and "status" in fields else {}


def _health(health: dict[str, Any], ready: dict[str, Any]) -> Iterator[Finding]:
    parts = {**ready, **health}
    words = str(parts.get("nodes")).replace(",", "").split()
    if all(word in ("ready", "idle") or word.isdecimal() for word in words):
        del parts["nodes"]
    for part in parts.keys() - _STATUSES:
        serious = health["status"] != "degraded" or part not in health
        yield Finding(where=part, problem=str(parts[part]), advice=_ADVICE.get(part, ""), serious=serious)
    if not parts.keys() - _STATUSES:
        for status in (health["status"], ready["status"]):
            if status not in ("ok", "ready"):
                yield Finding(
                    where="engine", problem=f"is {status}, and tells why to known clients", advice=_CREDENTIALS
                )


def _triggers(client: Client) -> Iterator[Finding]:
    for item in client.get_all("/triggers", "triggers"):
        source = item["source"]
        if source["problem"] or source["state"] == "failing":
            failing = source["state"] == "failing"
            again = f"is tried again at {source['next_try']}; " if failing else ""
            yield Finding(
                where=f"trigger {item['trigger_id']} ({item['trigger_type_code']} of {short_name(item['func_urn'])})",
                problem=source["problem"],
                advice=f"{again}correct the trigger's options, its plugin's settings, or the system that it reads",
                serious=failing,
            )


def _destinations(client: Client) -> Iterator[Finding]:
    for item in client.get_all("/destinations", "destinations"):
        if item["state"] != "ok":
            yield Finding(
                where=f"destination {item['destination']} {item['param']} of {short_name(item['func_urn'])}",
                problem=f"{item['problem']} ({item['failures']} failures in a row since {item['since']})",
                advice="outcomes wait and are tried again for a day; correct the destination, or the system behind it",
            )


def _expired(client: Client) -> Iterator[Finding]:
    for entry in client.get("/function/report", type="expiredcount")["values"]:
        name, problem = short_name(entry["key"]), f"{entry['value']} events of the last day were too old to start"
        advice = f"raise its maximum age, or run them: functiond redrive --failed --status DISCARD --function {name}"
        yield Finding(where=f"function {name}", problem=f"{problem}, and discarded", advice=advice, serious=False)


def _deliveries(client: Client) -> Iterator[Finding]:
    count = client.get("/deliveries", limit=1)["count"]
    if count:
        yield Finding(
            where="deliveries",
            problem=f"{count} outcomes were given up",
            advice="see them with functiond deliveries, send them again with functiond redrive --all",
        )


# --- this machine ---------------------------------------------------------------------------------------------


def of_machine(settings: Settings) -> Iterator[Finding]:
    """Yield what would keep an engine with these settings from working on this machine. No data is changed."""
    folder = settings.storage.path.absolute()
    yield from _directory(folder, settings.storage.free_space, Path(settings.storage.key_file or folder / KEY))
    yield from _port(settings.http.host, settings.http.port)
    yield from _open_files()
    yield from _interpreters(settings)
    yield from _sandbox(settings)
    yield from _extras(settings)


def _directory(folder: Path, needed: int, key_file: Path) -> Iterator[Finding]:
    existing = next(path for path in (folder, *folder.parents) if path.exists())
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
            for name in locked_names(folder, key_file) if (folder / "journal.db").exists() else ():
                problem = f"those of {name} cannot be decrypted with {key_file}"
                yield Finding(where="secrets", problem=problem, advice=NEXT)
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
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((host, port))
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
            anyio.run(interpreters.find, runtime)
        except FunctiondError as error:
            # Many machines have functions in one language only.
            given = bool(getattr(settings.executor, name))
            yield Finding(where=f"runtime {runtime}", problem=str(error), advice="", serious=given)


def _sandbox(settings: Settings) -> Iterator[Finding]:
    options = convert(settings.executor, IsolationOptions, from_attributes=True)
    if options.isolation == "process":
        return
    with tempfile.TemporaryDirectory() as folder:
        fence = {"tmp": options.tmp_size, "network": options.network == "none"}
        bubblewrap = find_bubblewrap(Path(folder) / "tmp", fence, user_range(options))
        if isinstance(bubblewrap, str):
            advice = "install bubblewrap, or let functions run as plain processes (executor.isolation = process)"
            needed = options.isolation == "bubblewrap" or options.network in ("project", "none")
            if settings.auth.projects > 1:
                needed, advice = True, f"no engine starts: {several_projects(settings.auth.projects, bubblewrap)}"
            yield Finding(where="sandbox", problem=bubblewrap, advice=advice, serious=needed)
            return
        auto = replace(options, network="auto" if options.network == "project" else options.network)
        problem = anyio.run(open_tenants, bubblewrap, auto, "doctor").problem
    if problem:
        advice = "or accept that functions of all projects share the host's network (executor.network = host)"
        serious = options.network == "project"
        yield Finding(where="network of functions", problem=problem, advice=advice, serious=serious)


def _extras(settings: Settings) -> Iterator[Finding]:
    for plugin, module in _EXTRAS.items():
        if plugin in settings.plugins and find_spec(module) is None:
            extra = _NAMES.get(plugin, plugin)
            problem = f"the settings have a table plugins.{plugin}, and the package {module} is missing"
            yield Finding(where=f"plugin {plugin}", problem=problem, advice=f"pip install '.[{extra}]' in the clone")
