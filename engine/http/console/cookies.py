"""Cookies of the console. Scripts never get them, and requests that other sites cause have none.

Browsers share cookies between the ports of a host. Gateways remove those of the console from requests and replies.
"""

from __future__ import annotations

from engine.asgi.wire import Headers, Scope
from engine.http.console.paths import HOME
from engine.http.console.transport import is_encrypted

_HOST = "__Host-"  #: browsers accept such a name only over HTTPS, for all paths of exactly this host


def session_cookie(scope: Scope, name: str) -> str:
    """Return the name of the cookie with the id of a session, for this connection."""
    return _HOST + name if is_encrypted(scope) else name


def read_cookie(headers: Headers, name: str) -> str:
    """Return the value of a cookie of a request; empty if it is absent.

    Cookies of other programs on the same host are ignored, whatever their form.
    """
    for pair in headers.get(b"cookie", b"").decode("latin-1").split(";"):
        found, equals, value = pair.strip().partition("=")
        if equals and found == name:
            return value
    return ""


def make_cookie(name: str, value: str, *, max_age: int) -> tuple[bytes, bytes]:
    """Return the header that sets a cookie for ``max_age`` seconds; 0 removes it."""
    path, secure = ("/", "; Secure") if name.startswith(_HOST) else (HOME, "")
    text = f"{name}={value}; Path={path}; HttpOnly; SameSite=Strict; Max-Age={max_age}{secure}"
    return b"set-cookie", text.encode("ascii")
