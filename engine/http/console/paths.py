"""URL paths of the console."""

from __future__ import annotations

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


def is_page(path: str) -> bool:
    return path.startswith(HOME)
