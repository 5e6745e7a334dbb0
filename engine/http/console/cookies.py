"""Cookies of the console."""

from __future__ import annotations

from engine.asgi.wire import Headers
from engine.http.console.paths import HOME

#: Only pages of the console get the cookies, scripts never do, and requests that other sites cause have none.
_ATTRIBUTES = f"Path={HOME}; HttpOnly; SameSite=Strict"


def read_cookie(headers: Headers, name: str) -> str:
    """Return the value of a cookie of a request; empty if it is absent.

    Cookies of other programs on the same host are ignored, whatever their form.
    """
    for pair in headers.get(b"cookie", b"").decode("latin-1").split(";"):
        found, equals, value = pair.strip().partition("=")
        if equals and found == name:
            return value
    return ""


def make_cookie(name: str, value: str, *, max_age: int, secure: bool = False) -> tuple[bytes, bytes]:
    """Return the header that sets a cookie for ``max_age`` seconds; 0 removes it."""
    text = f"{name}={value}; {_ATTRIBUTES}; Max-Age={max_age}{'; Secure' if secure else ''}"
    return b"set-cookie", text.encode("ascii")
