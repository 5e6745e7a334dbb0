"""Settings of the gateways: listening addresses, and apps that may call APIs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

from msgspec import Meta, Struct, field

Port = Annotated[int, Meta(ge=0, le=65_535)]  #: 0: a free port
#: at least 16 characters, since short secrets can be guessed
Secret = Annotated[str, Meta(min_length=16, max_length=1024, pattern=r"^[!-~]+\Z")]
MIB = 1 << 20


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
    project: str = ""  #: project of the APIs it may call; empty: any
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
    apps: dict[str, App] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("key", "app_code"):
            values = [value for app in self.apps.values() if (value := getattr(app, name))]
            if len(set(values)) < len(values):
                raise ValueError(f"two of the apps have the same {name}")
