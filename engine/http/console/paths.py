"""URL paths of the console."""

from __future__ import annotations

from engine.protocols import Operation

HOME = "/console/"
PROJECT = f"{HOME}projects/{{project_id}}"
DOCS = f"{HOME}docs/"
STATIC = f"{HOME}static/"
#: Static files and their content types.
FILES = {
    "console.css": b"text/css; charset=utf-8",
    "console.js": b"text/javascript; charset=utf-8",
    "icon.svg": b"image/svg+xml",
}
#: Paths that a browser requests before it has credentials; their replies reveal nothing about this engine.
OPEN = ("/", "/console", *(STATIC + name for name in FILES))
#: Pages that need credentials, with the roles that may open them.
PAGES = tuple(
    Operation(name=name, method="GET", path=path, roles=("read",), own=True)
    for name, path in (
        ("ConsoleOverview", HOME),
        ("ConsoleFunctions", f"{PROJECT}/functions"),
        ("ConsoleInvocations", f"{PROJECT}/invocations"),
        ("ConsoleInvocation", f"{PROJECT}/invocations/{{request_id}}"),
        ("ConsoleTriggers", f"{PROJECT}/triggers"),
        ("ConsoleDeliveries", f"{PROJECT}/deliveries"),
    )
) + tuple(
    Operation(name=name, method="GET", path=path, roles=("invoke", "read"), own=True)
    for name, path in (
        ("ConsoleDocs", DOCS),
        ("ConsoleDocsPage", f"{DOCS}{{page}}"),
        ("ConsoleDocsIndex", DOCS.rstrip("/")),
        ("ConsoleNoPage", f"{HOME}{{rest:path}}"),
        ("ConsoleStart", HOME.rstrip("/")),
        ("Start", "/"),
        *((f"ConsoleFile{number}", STATIC + name) for number, name in enumerate(FILES)),
    )
)


def is_page(path: str) -> bool:
    return path.startswith(HOME)
