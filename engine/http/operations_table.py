"""The table of operations for the README: ``python -m engine.http.operations_table`` prints it."""

from __future__ import annotations

from engine.http.operations import OPERATIONS

#: Families of the platform that this engine leaves out.
ABSENT = ("workflows", "function applications and templates", "VPC endpoints", "bridge functions")


def table() -> str:
    """Markdown."""
    rows = ["| Operation | Request | Success |", "|---|---|---|"]
    for one in OPERATIONS:
        path = one.path.removeprefix("/v2/{project_id}")
        rows.append(f"| {one.name}{' (ours)' if one.own else ''} | `{one.method} {path}` | {one.status} |")
    return "\n".join(rows)


def main() -> None:
    print(table())
    print(f"\nNot here: {', '.join(ABSENT)}.")


if __name__ == "__main__":
    main()
