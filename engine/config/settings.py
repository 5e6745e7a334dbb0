"""Settings of the engine, validated as a whole before the engine starts, except the tables of plugins.

Values are read from defaults, a TOML file, environment variables (``FUNCTIOND_SECTION__KEY``) and the command line;
each overrides the previous ones. Components receive single values, never the ``Settings`` object.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args

import msgspec
from msgspec import Meta, Struct, field

from engine.asgi.egress import Egress
from engine.asgi.forwarded import TrustedProxies
from engine.auth.agencies import Agency
from engine.auth.credentials import AccessKey, Token, check_private, first_twice, read_credentials
from engine.code.quota import QUOTA
from engine.config.nodes import NodesSettings
from engine.config.validation import describe_issue
from engine.errors import SettingsError
from engine.isolation.folders import Folder, FolderName, find_folders
from engine.logs.forward import LogsSettings
from engine.model.limits import LONGEST_RETRY
from engine.model.quotas import Quotas

Positive = Annotated[int, Meta(ge=1)]
Port = Annotated[int, Meta(ge=1, le=65535)]
Seconds = Annotated[float, Meta(ge=0)]
SharedName = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9_-]{1,64}/[A-Za-z][A-Za-z0-9_.-]{0,95}$",
        description="must be project/name, such as tools/numpy",
    ),
]
KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
#: Variables that only the command line reads; not settings of the engine.
COMMAND_VARIABLES = frozenset(
    {
        "FUNCTIOND_CONFIG",
        "FUNCTIOND_URL",
        "FUNCTIOND_PROJECT",
        "FUNCTIOND_CA_FILE",
        "FUNCTIOND_ACCESS_KEY",
        "FUNCTIOND_SECRET_KEY",
        "FUNCTIOND_SECURITY_TOKEN",
        "FUNCTIOND_TOKEN",
    }
)
#: Variables of instances. The engine ignores them, because a function may start an engine.
INSTANCE_VARIABLES = frozenset({"FUNCTIOND_ENGINE", "FUNCTIOND_INSTANCE"})


def default_slots() -> int:
    """Return the default number of slots: 8 per processor that this process may use, and 16 or more."""
    return max(16, 8 * len(os.sched_getaffinity(0)))


class Section(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class HttpSettings(Section, frozen=True, kw_only=True):
    REMOVED: ClassVar[Mapping[str, str]] = {
        "update_resets": "PUT of a configuration always resets what it omits, and PATCH keeps it: delete the setting",
    }

    host: str = "127.0.0.1"  #: for 127.0.0.1, ::1 and localhost, the engine listens on both loopback addresses
    port: Annotated[int, Meta(ge=0, le=65535)] = 8080  #: 0: any free port
    sync_timeout: Seconds = 90.0  #: synchronous callers get 504 after this many seconds
    sync_body_limit: Positive = 6 * MIB
    async_body_limit: Positive = 256 * KIB
    region: str = "local-1"
    tls_certificate: str = ""  #: PEM file with the certificate and its issuers', for all listeners; empty: no TLS
    tls_key: str = ""  #: PEM file with the private key of ``tls_certificate``; accessible to its owner only
    #: open connections of the API, and of each gateway; fewer if the limit of open files is low
    connections: Positive = 8192
    client_connections: Annotated[int, Meta(ge=0)] = 0  #: connections of one client address; 0: a quarter of all
    body_timeout: Annotated[float, Meta(gt=0)] = 60.0  #: seconds for a request body, and 1 more for each 64 KiB of it
    #: addresses and networks of proxies whose X-Forwarded-For, -Host, -Proto and -Port count
    trusted_proxies: tuple[str, ...] = ()
    console: bool = True  #: web pages below /console/

    def __post_init__(self) -> None:
        if bool(self.tls_certificate) != bool(self.tls_key):
            missing = "tls_key" if self.tls_certificate else "tls_certificate"
            raise ValueError(f"TLS needs a certificate and its key: set http.{missing} too, or neither")
        try:
            TrustedProxies(self.trusted_proxies)
        except ValueError as error:
            raise ValueError(f"http.trusted_proxies: {error}") from None


class AuthSettings(Section, frozen=True, kw_only=True):
    """Credentials. If any key or token is set, requests need credentials; otherwise only local clients are accepted."""

    file: str = ""  #: TOML file with more [[keys]] and [[tokens]]; accessible to its owner only
    keys: tuple[AccessKey, ...] = ()
    tokens: tuple[Token, ...] = ()
    open_metrics: bool = False  #: /metrics and the details of /healthz and /readyz need no credentials
    failures: Positive = 20  #: failed attempts in ``failure_window`` after which further refusals are delayed
    failure_window: Annotated[float, Meta(gt=0)] = 60.0  #: seconds

    @property
    def required(self) -> bool:
        return bool(self.keys or self.tokens)

    @property
    def projects(self) -> int:
        """Number of projects that the credentials name."""
        return len({credential.project for credential in (*self.keys, *self.tokens)} - {""})

    def __post_init__(self) -> None:
        if twice := first_twice(key.access for key in self.keys):
            raise ValueError(f"the access key {twice} is configured twice")
        if first_twice(token.token for token in self.tokens):
            raise ValueError("a token is configured twice")


class QueueSettings(Section, frozen=True, kw_only=True):
    priority_step: Seconds = 60.0  #: seconds of waiting that one priority level is worth
    rows: Positive = 10_000_000  #: unfinished invocations of all functions; a project gets half of what others leave
    size: Positive = 20 * GIB  #: payload bytes of all unfinished invocations
    function_rows: Positive = 2_000_000
    function_size: Positive = 8 * GIB
    sync_rows: Positive = 1_000  #: synchronous calls waiting or running
    sync_size: Positive = 256 * MIB
    idempotency_retention: Seconds = 86_400.0
    depth: Positive = 10_000  #: runs that queue each other, one the next
    host_idle_gate: bool = False  #: hold asynchronous work while the host's processors are busy


class ExecutorSettings(Section, frozen=True, kw_only=True):
    REMOVED: ClassVar[Mapping[str, str]] = {
        "http_network": 'leave executor.network out, and each project has a network of its own, or set it to "none"',
    }
    RENAMED: ClassVar[Mapping[str, Mapping[str, str]]] = {"network": {"false": "none", "true": "host"}}

    slots: Positive = default_slots()  #: concurrent invocations
    sync_slots: Annotated[int, Meta(ge=0)] = 2  #: slots reserved for synchronous callers
    #: free slots that projects leave to others that run nothing, with the same part of memory; only of several projects
    other_slots: Annotated[int, Meta(ge=0)] = 2
    memory: Annotated[int, Meta(ge=0)] = 0  #: MB for all instances; 0: 3/4 of the usable memory
    idle: Seconds = 300.0  #: seconds after which an instance without work exits
    #: seconds that a handler may clean up when its invocation is cancelled or runs too long; 0: killed at once
    term_grace: Annotated[float, Meta(ge=0, le=60)] = 2.0
    python: str = ""  #: interpreter of all Python functions; empty: installed version closest to the runtime
    node: str = ""  #: interpreter of all Node.js functions; empty: as for ``python``
    long_time_functions: tuple[str, ...] = ()  #: URNs or names that may exceed ``max_timeout``; "*" for all
    max_timeout: Positive = 900  #: seconds, for functions not in ``long_time_functions``
    log_size: Positive = MIB  #: bytes of output kept per attempt
    processes: Positive = 1024  #: maximum processes of an instance, if the kernel can limit them
    isolation: Literal["auto", "bubblewrap", "process"] = "auto"  #: auto: a bubblewrap sandbox if it works here
    tmp_size: Positive = 512  #: MB of the temporary folder of an instance, in a sandbox
    #: rights of functions at the API of the engine, in their project; none: they get no token, and have no rights
    function_role: Literal["none", "invoke", "read", "admin"] = "invoke"
    #: project: a network for each project, with a way out but without the host's loopback; none: a loopback for each
    #: instance; auto: project if this machine can have it, but host in a data directory of an earlier version
    network: Literal["auto", "project", "host", "none"] = "auto"
    #: ports of the host's loopback that functions reach in the network of their project; also as a table by project
    host_ports: tuple[Port, ...] | dict[str, tuple[Port, ...]] = ()
    #: first user id and number of user ids of functions, one for each project, if the engine is root's
    user_ids: tuple[Annotated[int, Meta(ge=1000)], Positive] = (1_900_000_000, 65_536)
    #: template of Python instances outside a sandbox; need: starts with the first instance; start: with the engine
    fork_server: Literal["off", "need", "start"] = "need"
    #: folders of the host that functions may ask for, by name: path; mode, ro or rw; projects, by default all
    folders: dict[FolderName, Folder] = {}
    nodes: NodesSettings = field(default_factory=NodesSettings)


class RetrySettings(Section, frozen=True, kw_only=True):
    base: Seconds = 1.0  #: seconds before the first retry
    factor: Annotated[float, Meta(ge=1)] = 2.0
    longest: Annotated[float, Meta(ge=0, le=LONGEST_RETRY)] = 300.0
    jitter: Annotated[float, Meta(ge=0, le=1)] = 0.2  #: random share of the delay
    default_retries: Annotated[int, Meta(ge=0, le=8)] = 0  #: for functions without asynchronous settings
    default_max_age: Annotated[int, Meta(ge=0)] = 0  #: seconds, for functions without such settings; 0: no limit


class StorageSettings(Section, frozen=True, kw_only=True):
    data_dir: str = "data"
    #: file with the key that encrypts secrets of functions and triggers; empty: ``key`` in the data directory
    key_file: str = ""
    backup_dir: str = ""  #: folder in which the engine makes backups; empty: ``backups`` in the data directory
    retention: Seconds = 7 * 86_400.0  #: seconds that finished invocations are kept
    retention_rows: Positive = 5_000_000
    retention_size: Positive = 10 * GIB
    logs_size: Positive = GIB  #: bytes of logs too long for records; the oldest of the project with most are removed
    free_space: Annotated[int, Meta(ge=0)] = 256 * MIB  #: bytes of free disk space below which new work is rejected
    ballast: Annotated[int, Meta(ge=0)] = 16 * MIB  #: bytes of a file that is deleted when the disk is full
    code_quota: Positive = QUOTA  #: bytes of code packages of a project
    clock_tolerance: Annotated[float, Meta(ge=0)] = 30.0  #: days that the clock may be (set) ahead; 0: any number
    drain: Seconds = 600.0  #: seconds in which accepted work may end after a damaged page has ended intake
    commit_warning: Seconds = 1.0  #: seconds after which an unfinished commit makes the engine degraded and not ready

    @property
    def path(self) -> Path:
        return Path(self.data_dir)


class HealthSettings(Section, frozen=True, kw_only=True):
    #: seconds without progress that was possible, after which /healthz answers 503
    stall: Annotated[float, Meta(gt=0)] = 30.0


class TriggerSettings(Section, frozen=True, kw_only=True):
    timer_sync_execution: bool = False  #: timers may invoke synchronously (sync_execution)


class EgressSettings(Section, frozen=True, kw_only=True):
    #: networks, addresses and host names to reach besides public addresses; empty: none with credentials, else all
    allow: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        try:
            Egress(self.allow)
        except ValueError as error:
            raise ValueError(f"egress.allow: {error}") from None


class TelemetrySettings(Section, frozen=True, kw_only=True):
    #: functions and sources with metrics of their own; all others are added up as ``other``; 0: none are counted
    functions: Annotated[int, Meta(ge=0, le=1000)] = 200
    #: URL to which spans are sent by OTLP/HTTP, such as http://127.0.0.1:4318/v1/traces; empty: none
    endpoint: str = ""
    sampling: Annotated[float, Meta(ge=0, le=1)] = 1.0  #: share of the traces that begin here and are sent
    service_name: str = ""  #: service.name of spans; empty: OTEL_SERVICE_NAME, or functiond

    def __post_init__(self) -> None:
        if self.endpoint and not self.endpoint.startswith(("http://", "https://")):
            raise ValueError(f"telemetry.endpoint is {self.endpoint!r}: must be a URL that begins with http or https")


class LogSettings(Section, frozen=True, kw_only=True):
    format: Literal["console", "json"] = "console"
    level: Literal["debug", "info", "warning", "error"] = "info"


class Settings(Section, frozen=True, kw_only=True):
    http: HttpSettings = field(default_factory=HttpSettings)
    auth: AuthSettings = field(default_factory=AuthSettings)
    queue: QueueSettings = field(default_factory=QueueSettings)
    executor: ExecutorSettings = field(default_factory=ExecutorSettings)
    retry: RetrySettings = field(default_factory=RetrySettings)
    storage: StorageSettings = field(default_factory=StorageSettings)
    health: HealthSettings = field(default_factory=HealthSettings)
    triggers: TriggerSettings = field(default_factory=TriggerSettings)
    egress: EgressSettings = field(default_factory=EgressSettings)
    telemetry: TelemetrySettings = field(default_factory=TelemetrySettings)
    log: LogSettings = field(default_factory=LogSettings)
    logs: LogsSettings = field(default_factory=LogsSettings)
    agencies: dict[FolderName, Agency] = {}  #: keys for other services, by the names that functions give as ``xrole``
    limits: Quotas = Quotas()
    plugin: tuple[str, ...] = ()  #: modules that define plugins
    #: dependencies that all projects see as public and can use, as ``project/name`` of the project that owns them
    shared_dependencies: tuple[SharedName, ...] = ()
    grace: Seconds = 30.0  #: seconds that running work may take at shutdown
    plugins: dict[str, Any] = field(default_factory=dict)  # tables of plugin services, validated later

    def __post_init__(self) -> None:
        nodes = self.executor.nodes
        if self.executor.sync_slots >= (nodes.slots if nodes.listen else self.executor.slots):
            raise ValueError(f"executor.sync_slots must be smaller than executor.{'nodes.' * bool(nodes.listen)}slots")
        if not is_loopback(self.http.host) and not self.auth.required:
            raise ValueError(
                f"http.host {self.http.host} is reachable from other machines, which requires credentials: set "
                "auth.file, or use 127.0.0.1, ::1 or localhost"
            )


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def load_settings(
    *,
    file: Path | None = None,
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Settings:
    """Read settings from the file, the environment and ``overrides``, then validate them.

    ``overrides`` maps dotted names, such as ``http.port``, to values; None values are ignored. Raises SettingsError if
    the file or the credentials file cannot be read, or if a setting is unknown or invalid. Tables of plugins are not
    validated here.
    """
    table = _read_toml(file) if file else {}
    _refuse_unknown(table, Settings, "")
    for name, value in (environ or {}).items():
        if name.startswith("FUNCTIOND_") and name not in COMMAND_VARIABLES | INSTANCE_VARIABLES:
            path = name.removeprefix("FUNCTIOND_").lower().split("__")
            _put(table, path, value)
    for dotted, value in (overrides or {}).items():
        if value is not None:
            _put(table, dotted.split("."), value)
    _refuse_unknown(table, Settings, "")
    _add_credentials(table)
    try:
        settings = msgspec.convert(table, Settings, strict=False)
    except msgspec.ValidationError as error:
        raise SettingsError(_describe(error, table)) from None
    find_folders(settings.executor.folders, [file or "", settings.logs.file], elsewhere=True)  # raises
    return settings


def _describe(error: msgspec.ValidationError, table: Mapping[str, Any]) -> str:
    issue = describe_issue(error, table, Settings)
    if not issue.field:  # conflict between several fields
        return str(error)
    shown = "" if issue.field.startswith(("auth", "agencies")) else f" is {issue.value!r}"  # no secrets
    return f"{issue.field}{shown}: {issue.allowed}"


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        table = tomllib.loads(file.read_text())
        auth, others = table.get("auth"), {name: table.get(name) for name in ("plugins", "agencies")}
        if (isinstance(auth, dict) and ("keys" in auth or "tokens" in auth)) or _holds_secret(others):
            check_private(file, file.stat())
        return table
    except OSError as error:
        raise SettingsError(f"cannot read {file}: {error.strerror}") from None
    except ValueError as error:
        raise SettingsError(f"{file} is not valid TOML: {error}") from None


def _holds_secret(table: Any) -> bool:
    """Return whether the table has a setting whose name suggests a secret, such as ``password``.

    Only plugins declare which of their settings are secret, and they are not loaded at this point.
    """
    if not isinstance(table, dict):
        return False
    named = any(isinstance(table[name], str) and re.search("secret|password|token|app_code", name) for name in table)
    return named or any(_holds_secret(value) for value in table.values())


def _add_credentials(table: dict[str, Any]) -> None:
    """Append access keys and tokens from the credentials file, which the setting ``auth.file`` names, to ``table``."""
    auth = table.get("auth")
    file = auth.get("file") if isinstance(auth, dict) else None
    if isinstance(auth, dict) and isinstance(file, str) and file:
        for name, listed in read_credentials(Path(file)).items():
            given = auth.get(name, [])
            if isinstance(given, list):  # otherwise the final validation reports it
                auth[name] = [*given, *listed]


def _put(table: dict[str, Any], path: list[str], value: Any) -> None:
    kind: Any = Settings
    for part in path:
        inner = {f.name: f.type for f in msgspec.structs.fields(kind)} if _is_section(kind) else {}
        kind = inner.get(part) or next(iter(get_args(kind)[1:]), None)  # or the values of a table
    if isinstance(value, str) and any(_origin(part) is tuple for part in (kind, *get_args(kind))):
        value = [part.strip() for part in value.split(",") if part.strip()]
    for part in path[:-1]:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise SettingsError(f"{'.'.join(path)}: {part} is not a table")
    table[path[-1]] = value


def _refuse_unknown(table: Mapping[str, Any], section: type[Struct], prefix: str) -> None:
    fields = {f.name: f.type for f in msgspec.structs.fields(section)}
    for name, value in table.items():
        if advice := getattr(section, "REMOVED", {}).get(name):
            raise SettingsError(f"the setting {prefix}{name} has been removed: {advice}")
        if new := getattr(section, "RENAMED", {}).get(name, {}).get(str(value).lower()):
            raise SettingsError(f'the setting {prefix}{name} = {str(value).lower()} is now {prefix}{name} = "{new}"')
        if name not in fields:
            near = difflib.get_close_matches(name, fields, n=1) or _in_sections(section, name)
            hint = f"did you mean {prefix}{near[0]}?" if near else f"known: {', '.join(sorted(fields))}"
            raise SettingsError(f"unknown setting {prefix}{name}: {hint}")
        if _is_section(fields[name]) and isinstance(value, Mapping):
            _refuse_unknown(value, fields[name], f"{prefix}{name}.")


def _in_sections(section: type[Struct], name: str) -> list[str]:
    """Return dotted names, such as ``http.port``, of the settings ``name`` in sections directly below ``section``."""
    inner = (f for f in msgspec.structs.fields(section) if _is_section(f.type))
    return [f"{f.name}.{name}" for f in inner if name in f.type.__struct_fields__]


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Struct)


def _origin(kind: Any) -> Any:
    return getattr(kind, "__origin__", kind)
