"""Paths to which somebody returns after signing in. They always lead to a page of this console."""

from __future__ import annotations

import re
from urllib.parse import unquote, urlsplit

from engine.asgi.wire import Headers, Scope
from engine.http.console.paths import HOME, SIGN_IN, SIGN_OUT, STATIC

_LONGEST = 2000  # characters
_PATH = re.compile(re.escape(HOME) + r"(?:(?!/)[!-\[\]-~]*)?")  # printable ASCII without backslash


def local_path(path: str) -> str:
    """Return ``path`` if it is that of a page of the console, with or without a query; else an empty text."""
    if len(path) > _LONGEST or not _PATH.fullmatch(path):
        return ""
    parts = unquote(path.partition("?")[0].partition("#")[0])
    if ".." in parts.split("/") or parts.startswith((SIGN_IN, SIGN_OUT, STATIC)):
        return ""
    return path


def asked_path(scope: Scope, headers: Headers) -> str:
    """Return the path of the page that a request asks for, or from which its form was sent; empty if there is none."""
    if scope["method"] in ("GET", "HEAD"):
        query = scope["query_string"]
        return local_path((scope["raw_path"] + (b"?" + query if query else b"")).decode("latin-1"))
    try:
        sent_from = urlsplit(headers.get(b"referer", b"").decode("latin-1"))
    except ValueError:
        return ""
    return local_path(sent_from.path + (f"?{sent_from.query}" if sent_from.query else ""))
