"""Operations on dependencies, as rows of the table of all operations."""

from __future__ import annotations

from engine.auth.roles import Role
from engine.http.api.dependencies import DependencyBody, DependencyList, DependencyReply
from engine.http.api.routing import BASE
from engine.protocols import Operation

_ALL = f"{BASE}/dependencies"
_ONE = f"{_ALL}/{{depend_id}}"
_VERSIONS = f"{_ONE}/version"
_VERSION = f"{_VERSIONS}/{{version}}"
_ITEMS = ("marker", "maxitems")
_FILTER = ("ispublic", "dependency_type", "runtime", "name")
_READ: tuple[Role, ...] = ("read",)

DEPENDENCY_OPERATIONS = (
    Operation(
        name="CreateDependencyVersion",
        method="POST",
        path=f"{_ALL}/version",
        body=DependencyBody,
        reply=DependencyReply,
    ),
    Operation(
        name="ListDependencies",
        method="GET",
        path=_ALL,
        reply=DependencyList,
        query=(*_ITEMS, "limit", *_FILTER),
        roles=_READ,
    ),
    Operation(
        name="ListDependencyVersion", method="GET", path=_VERSIONS, reply=DependencyList, query=_ITEMS, roles=_READ
    ),
    Operation(name="ShowDependencyVersion", method="GET", path=_VERSION, reply=DependencyReply, roles=_READ),
    Operation(name="DeleteDependencyVersion", method="DELETE", path=_VERSION, status=204),
    # Operations on dependencies as a whole, which the SDKs no longer have. Terraform's older resource uses them.
    Operation(name="CreateDependency", method="POST", path=_ALL, body=DependencyBody, reply=DependencyReply, own=True),
    Operation(name="ShowDependency", method="GET", path=_ONE, reply=DependencyReply, own=True, roles=_READ),
    Operation(name="UpdateDependency", method="PUT", path=_ONE, body=DependencyBody, reply=DependencyReply, own=True),
    Operation(name="DeleteDependency", method="DELETE", path=_ONE, status=204, own=True),
)
