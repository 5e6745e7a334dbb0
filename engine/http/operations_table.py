"""The table of operations for the README: ``python -m engine.http.operations_table`` prints it."""

from __future__ import annotations

from engine.http.operations import OPERATIONS
from engine.protocols import Operation

#: Families of the platform that this engine leaves out.
ABSENT = ("workflows", "function applications and templates", "VPC endpoints", "bridge functions")
EXPLAINED = (
    "*As without* something: answered as the platform does for an account that has no such feature;\n"
    "what is sent is kept and shown again at most."
)


def table() -> str:
    """Markdown."""
    rows = ["| Operation | Request | Success |", "|---|---|---|"]
    for one in OPERATIONS:
        path = one.path.removeprefix("/v2/{project_id}")
        rows.append(f"| {one.name}{_mark(one)} | `{one.method} {path}` | {one.status} |")
    return "\n".join(rows)


def _mark(operation: Operation) -> str:
    if operation.lacks:
        return f" (as without {operation.lacks})"
    return " (ours)" if operation.own else ""


def main() -> None:
    print(table())
    print(f"\n{EXPLAINED}\n\nNot here: {', '.join(ABSENT)}.")


if __name__ == "__main__":
    main()
