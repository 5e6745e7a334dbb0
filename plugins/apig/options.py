"""Options of an APIG trigger, which is an API: requests, access control, function; and settings of the gateways."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import Meta, Struct, field

from plugins._shared.fields import HIDDEN, Optional, Text
from plugins.apig.paths import check_path, without_names

Port = Annotated[int, Meta(ge=0, le=65_535)]  #: 0: a free port
#: at least 16 characters, since short secrets can be guessed
Secret = Annotated[str, Meta(min_length=16, max_length=1024, pattern=r"^[!-~]+\Z")]
MIB = 1 << 20


class FunctionInfo(Struct, frozen=True, kw_only=True):
    """Function of an API, and the manner and timeout of its calls."""

    function_urn: Annotated[str, HIDDEN] = ""
    invocation_type: Annotated[
        Literal["sync", "async"],
        Meta(
            title="Invocation Mode",
            extra={
                "help": "Synchronous: the client waits for the function's reply. Asynchronous: the client gets 202 and "
                "the request id at once.",
                "labels": {"sync": "Synchronous", "async": "Asynchronous"},
            },
        ),
    ] = "sync"
    timeout: Annotated[int, Meta(ge=1, le=60_000, title="Backend timeout (ms)", extra={"initial": 60_000})] = 5_000
    version: Annotated[str, HIDDEN] = ""


class ApigOptions(Struct, frozen=True, kw_only=True):
    name: Annotated[Text, Meta(title="API name", extra={"help": "By default method and path.", "derived": True})]
    type: Annotated[Literal[1, 2], Meta(title="Visibility", extra={"labels": {1: "Public", 2: "Private"}})]
    path: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=512,
            examples=["/orders/{id}"],
            extra={"help": "Begins with /. Parameters stand in braces: {id} between two slashes, {rest+} at the end."},
        ),
    ]
    protocol: Annotated[Literal["HTTP", "HTTPS"], Meta(extra={"labels": {"HTTP": "HTTP", "HTTPS": "HTTPS"}})]
    req_method: Annotated[
        Literal["GET", "POST", "PUT", "DELETE", "HEAD", "PATCH", "OPTIONS", "ANY"],
        Meta(title="Method", extra={"labels": {"ANY": "ANY (every method)"}}),
    ]
    group_id: Annotated[
        Text,
        Meta(
            title="API group ID",
            extra={"help": "Hosts that begin with this id find the APIs of the group.", "initial": "default"},
        ),
    ]
    match_mode: Annotated[
        Literal["SWA", "NORMAL"],
        Meta(title="Matching", extra={"labels": {"NORMAL": "Exact match", "SWA": "Prefix match (HTTP functions)"}}),
    ]
    env_name: Annotated[
        Text,
        Meta(
            title="Environment",
            extra={"help": "Clients select it by the header X-Stage; without one, RELEASE.", "initial": "RELEASE"},
        ),
    ]
    env_id: Annotated[Text, Meta(title="Environment ID", extra={"initial": "RELEASE"})]
    auth: Annotated[
        Literal["IAM", "APP", "NONE"],
        Meta(
            title="Security authentication",
            extra={
                "labels": {
                    "IAM": "IAM: credentials of this engine",
                    "APP": "App: credentials of an app in the settings",
                    "NONE": "None: everyone may call the API",
                }
            },
        ),
    ]
    func_info: Annotated[FunctionInfo, Meta(title="Backend")] = FunctionInfo()
    function_info: Annotated[FunctionInfo | None, HIDDEN] = None  #: other spelling of the same option
    group_name: Annotated[Optional, Meta(title="API group name")] = ""
    sl_domain: Annotated[
        Optional, Meta(title="Domain", extra={"help": "The API is found under this host only. Empty: under any host."})
    ] = ""
    backend_type: Literal["FUNCTION"] = "FUNCTION"
    instance_id: Annotated[Optional, Meta(title="Gateway ID", extra={"help": "Of a dedicated gateway."})] = ""
    roma_app_id: Annotated[Optional, Meta(title="ROMA app ID")] = ""
    cors: Annotated[
        bool, Meta(title="CORS", extra={"help": "Answer preflight requests, and permit any origin to read replies."})
    ] = False

    def __post_init__(self) -> None:
        check_path(self.path)
        if self.function_info is not None:
            msgspec.structs.force_setattr(self, "func_info", self.function_info)
            msgspec.structs.force_setattr(self, "function_info", None)


def conflicts(mine: ApigOptions, other: ApigOptions, same_function: bool) -> bool:
    """Return whether two APIs of the same group and environment would answer the same requests."""
    first = (mine.instance_id, mine.group_id, mine.env_id, mine.match_mode, without_names(mine.path))
    second = (other.instance_id, other.group_id, other.env_id, other.match_mode, without_names(other.path))
    return first == second and ("ANY" in (mine.req_method, other.req_method) or mine.req_method == other.req_method)


def reply_fields(options: ApigOptions, trigger_id: str, urn: str, settings: Any) -> Mapping[str, Any]:
    backend = {
        "function_urn": urn,
        "invocation_type": options.func_info.invocation_type,
        "timeout": options.func_info.timeout,
        "version": options.func_info.version or urn.rpartition(":")[2],
    }
    api_id = trigger_id.replace("-", "")
    return {"triggerid": trigger_id, "api_id": api_id, "api_name": options.name, "func_info": backend}


class ListenerSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Listening address of a gateway."""

    host: str = "127.0.0.1"
    port: Port
    url: str = ""  #: URL for clients, for example that of a proxy; empty: host and port

    def address(self, chosen: int, *, tls: bool) -> str:
        """Return the URL of the gateway, to which an API's path is appended.

        ``chosen`` is the port on which it listens, 0 if it does not yet. Empty if neither ``url`` nor a port is known.
        """
        port = self.port or chosen
        if self.url or not port:
            return self.url.rstrip("/")
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if tls else 'http'}://{host}:{port}"


class DedicatedSettings(ListenerSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    port: Port = 8091


class App(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Client of APIs.

    Signs requests with ``key`` and ``secret``, or sends ``app_code`` as X-Apig-AppCode. An app may have both.
    """

    key: Annotated[str, Meta(pattern=r"^[!-+\--<>-~]{1,128}\Z")] = (
        ""  #: without comma and =, which would end it in the header
    )
    secret: Secret = ""
    app_code: Secret = ""
    #: project of the APIs it may call, ``*`` for all; empty: any, but none while credentials name several projects
    project: str = ""
    apis: tuple[str, ...] = ()  #: names of the APIs it may call; empty: all

    def __post_init__(self) -> None:
        if bool(self.key) != bool(self.secret):
            raise ValueError("an app that signs needs both key and secret; X-Apig-AppCode is compared with app_code")
        if not (self.key or self.app_code):
            raise ValueError("an app needs key and secret, or app_code, or all of them")

    def __repr__(self) -> str:
        return f"App(key={self.key!r}, project={self.project!r}, apis={self.apis!r})"


class ApigSettings(ListenerSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    REPLACED: ClassVar[Mapping[str, str]] = {
        "behind_proxy": "name the addresses of your proxies in http.trusted_proxies",
    }

    port: Port = 8090
    dedicated: DedicatedSettings = field(default_factory=DedicatedSettings)
    base64: bool = True  #: events have all bodies in base64; otherwise, bodies of JSON are text
    body_limit: Annotated[int, Meta(ge=1, le=6 * MIB)] = 6 * MIB
    async_body_limit: Annotated[int, Meta(ge=1, le=6 * MIB)] = 256 << 10  #: of requests to asynchronous APIs
    apps: dict[str, App] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("key", "app_code"):
            values = [value for app in self.apps.values() if (value := getattr(app, name))]
            if len(set(values)) < len(values):
                raise ValueError(f"two of the apps have the same {name}")
