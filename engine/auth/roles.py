"""Roles of credentials, and the identity that a request gets by its credentials."""

from __future__ import annotations

from typing import Literal, get_args

from msgspec import Struct

from engine.errors import AccessDenied

#: ``invoke``: invocations and their results. ``read``: lists, configuration, records, logs and metrics. ``admin``: all.
Role = Literal["invoke", "read", "admin"]
ROLES: tuple[Role, ...] = get_args(Role)
#: Key in the ASGI scope: Principal of the authenticated request. Absent if the request needs no credentials.
PRINCIPAL = "functiond.principal"


class Principal(Struct, frozen=True, kw_only=True):
    """Identity that a request gets by its access key or token, and the secrets to compare."""

    name: str  #: shown in logs and traces; not secret
    project: str
    prefix: str  #: start of the paths of its project
    expires: float  #: seconds since the epoch
    role: Role = "admin"
    payloads: bool = False  #: of the role ``read``: may read payloads
    secret: bytes = b""  #: of an access key; of a token its SHA-256
    token: bytes | None = None

    @property
    def sees_secrets(self) -> bool:
        """True if environment variables and credentials in configurations are shown to it."""
        return self.role == "admin"

    @property
    def sees_payloads(self) -> bool:
        """True if all payloads of the project are shown to it."""
        return self.role == "admin" or (self.role == "read" and self.payloads)

    def check(self, operation: str, allowed: tuple[Role, ...], *, payloads: bool = False) -> None:
        """Raise AccessDenied unless the role may use an operation.

        ``allowed`` are the roles that may, besides admin. ``payloads``: the operation shows payloads.
        """
        if self.role == "admin":
            return
        if self.role not in allowed:
            others = " or ".join((*allowed, "admin"))
            raise AccessDenied(f"the role {self.role} may not use {operation}; credentials with the role {others} may")
        if payloads and self.role == "read" and not self.payloads:
            raise AccessDenied(f"the role {self.role} may use {operation} only with payloads = true in its credentials")
