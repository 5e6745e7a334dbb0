"""Roles of credentials, and the identity that a request gets by its credentials."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from engine.errors import AccessDenied

#: ``invoke``: invocations and their results. ``read``: lists, configuration, records, logs and metrics. ``admin``: all
#: of a project. ``operator``: the engine itself, such as its backups, and nothing in projects.
Role = Literal["invoke", "read", "admin", "operator"]
#: Roles of operations on the whole engine: an admin may use them only while credentials name no other project.
OPERATOR: tuple[Role, ...] = ("operator",)
#: Key in the ASGI scope: Principal of the authenticated request. Absent if the request needs no credentials.
PRINCIPAL = "functiond.principal"


class Principal(Struct, frozen=True, kw_only=True):
    """Identity that a request gets by its access key or token, and the secrets to compare."""

    name: str  #: shown in logs and traces; not secret
    project: str  #: empty for the role ``operator``
    prefix: str  #: start of the paths of its project
    expires: float  #: seconds since the epoch
    role: Role = "admin"
    operates: bool = False  #: may use operations on the whole engine, and sees the names of all projects' functions
    payloads: bool = False  #: of the role ``read``: may read payloads
    instance: str = ""  #: id of the instance of a function whose token the request has
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

    @property
    def names(self) -> str | None:
        """Project whose functions are named to it in health and metrics; None: those of all projects."""
        return None if self.operates else self.project

    def may(self, allowed: tuple[Role, ...]) -> bool:
        """Return whether the role may use an operation that is for the roles ``allowed``, besides admin."""
        if self.role == "admin":
            return self.operates or allowed != OPERATOR
        return self.role in allowed

    def check(self, operation: str, allowed: tuple[Role, ...], *, payloads: bool = False) -> None:
        """Raise AccessDenied unless the role may use an operation.

        ``allowed`` are the roles that may, besides admin. ``payloads``: the operation shows payloads.
        """
        if not self.may(allowed):
            others = " or ".join(allowed if allowed == OPERATOR else (*allowed, "admin"))
            beside = " while credentials name several projects" if self.role == "admin" else ""
            problem = f"the role {self.role} may not use {operation}{beside}"
            raise AccessDenied(f"{problem}; credentials with the role {others} may")
        if payloads and self.role == "read" and not self.payloads:
            raise AccessDenied(f"the role {self.role} may use {operation} only with payloads = true in its credentials")
