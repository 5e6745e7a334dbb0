"""Where the gateways listen, and which apps may call what asks for one."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct, field

Port = Annotated[int, Meta(ge=0, le=65_535)]  #: 0 takes a free one
#: Short ones can be found by trying.
Secret = Annotated[str, Meta(min_length=16, max_length=1024, pattern=r"^[!-~]+\Z")]
MIB = 1 << 20


class ListenerSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    host: str = "127.0.0.1"
    port: Port
    url: str = ""  #: under which clients reach it, a proxy's for example; empty: of host and port

    @property
    def address(self) -> str:
        """What stands before the path in the URL of an API; empty if it is not known beforehand."""
        if self.url or not self.port:
            return self.url.rstrip("/")
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"


class DedicatedSettings(ListenerSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    port: Port = 8091


class App(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who signs with ``key`` and ``secret``, or shows ``app_code`` as X-Apig-AppCode; an app may do both."""

    key: Annotated[str, Meta(pattern=r"^[!-+\--<>-~]{1,128}\Z")] = ""  #: a comma or = would end it in the header
    secret: Secret = ""
    app_code: Secret = ""
    project: str = ""  #: whose APIs it may call; empty: everyone's
    apis: tuple[str, ...] = ()  #: by name; empty: all

    def __post_init__(self) -> None:
        if bool(self.key) != bool(self.secret):
            raise ValueError("an app that signs needs a key and a secret; what X-Apig-AppCode shows is its app_code")
        if not (self.key or self.app_code):
            raise ValueError("an app needs a key and a secret, or an app_code, or all of them")

    def __repr__(self) -> str:
        return f"App(key={self.key!r}, project={self.project!r}, apis={self.apis!r})"


class ApigSettings(ListenerSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    port: Port = 8090
    dedicated: DedicatedSettings = field(default_factory=DedicatedSettings)
    base64: bool = True  #: bodies of requests come as base64; if not, JSON comes as the text it is
    body_limit: Annotated[int, Meta(ge=1, le=6 * MIB)] = 6 * MIB
    behind_proxy: bool = False  #: believe X-Forwarded-For, -Port, -Proto and X-Real-IP of whoever connects
    apps: dict[str, App] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for what in ("key", "app_code"):
            given = [value for app in self.apps.values() if (value := getattr(app, what))]
            if len(set(given)) < len(given):
                raise ValueError(f"two of the apps have the same {what}")
