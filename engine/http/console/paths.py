"""Where the console's pages are."""

from __future__ import annotations

HOME = "/console/"
PROJECT = f"{HOME}projects/{{project_id}}"
STATIC = f"{HOME}static/"
#: What stands beside the pages, by its content type.
FILES = {
    "console.css": b"text/css; charset=utf-8",
    "console.js": b"text/javascript; charset=utf-8",
    "icon.svg": b"image/svg+xml",
}
#: What a browser needs before it has shown any credentials, and tells nothing of this engine.
OPEN = ("/", "/console", *(STATIC + name for name in FILES))


def is_page(path: str) -> bool:
    return path.startswith(HOME)
