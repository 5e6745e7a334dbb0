"""Markdown table of the API's operations for ``engine/docs/api.md``.

``python -m engine.http.operations_table`` prints the table.
"""

from __future__ import annotations

from engine.http.operations import OPERATIONS
from engine.protocols import Operation

#: Families of operations that this engine does not implement.
ABSENT = (
    "workflows",
    "function applications and templates besides their empty lists",
    "VPC endpoints",
    "bridge functions",
)
EXPLAINED = (
    "*As without* a feature: the reply is the platform's for an account that does not have the feature.\n"
    "Values that are sent are at most stored and returned.\n\n"
    "*Roles* may use the operation besides admin, which may use all, except those of operator while credentials name\n"
    "several projects. A role with * does not see all of the reply; see [roles](security.md#roles)."
)


def table() -> str:
    """Return the table of operations in Markdown."""
    rows = ["| Operation | Request | Success | Roles |", "|---|---|---|---|"]
    for one in OPERATIONS:
        path = one.path.removeprefix("/v2/{project_id}")
        rows.append(f"| {one.name}{_mark(one)} | `{one.method} {path}` | {one.status} | {_roles(one)} |")
    return "\n".join(rows)


def _roles(operation: Operation) -> str:
    if not operation.roles:
        return "admin"
    return ", ".join(f"{role}*" if role in operation.hidden else role for role in operation.roles)


def _mark(operation: Operation) -> str:
    if operation.lacks:
        return f" (as without {operation.lacks})"
    return " (ours)" if operation.own else ""


def main() -> None:
    print(table())
    print(f"\n{EXPLAINED}\n\nNot served: {', '.join(ABSENT)}.")


if __name__ == "__main__":
    main()
