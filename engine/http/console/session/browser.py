"""Requests of browsers: cookies, whether somebody can read the connection, and the page to return to.

Scripts never get the cookies, and requests that other sites cause have none. Browsers share cookies between the ports
of a host. Gateways remove those of the console from requests and replies.
"""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import unquote, urlsplit

from engine.asgi.forwarded import FORWARDED, Forwarded
from engine.asgi.wire import Headers, Scope
from engine.auth.verifier import address_of
from engine.http.console.paths import HOME, SIGN_IN, SIGN_OUT, STATIC
from engine.http.guard import is_local_host

_HOST = "__Host-"  #: browsers accept such a name only over HTTPS, for all paths of exactly this host
#: Headers by which a proxy that is not trusted shows itself.
_PROXIED = (b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto", b"forwarded", b"via", b"x-real-ip")
_LONGEST = 2000  # characters
_PATH = re.compile(re.escape(HOME) + r"(?:(?!/)[!-\[\]-~]*)?")  # printable ASCII without backslash


def session_cookie(scope: Scope, name: str) -> str:
    """Return the name of the cookie with the id of a session, for this connection."""
    return _HOST + name if is_encrypted(scope) else name


def read_cookie(headers: Headers, name: str) -> str:
    """Return the value of a cookie of a request; empty if it is absent.

    Cookies of other programs on the same host are ignored, whatever their form.
    """
    for pair in headers.get(b"cookie", b"").decode("latin-1").split(";"):
        key, equals, value = pair.strip().partition("=")
        if equals and key == name:
            return value
    return ""


def make_cookie(name: str, value: str, *, max_age: int) -> tuple[bytes, bytes]:
    """Return the header that sets a cookie for ``max_age`` seconds; 0 removes it."""
    path, secure = ("/", "; Secure") if name.startswith(_HOST) else (HOME, "")
    text = f"{name}={value}; Path={path}; HttpOnly; SameSite=Strict; Max-Age={max_age}{secure}"
    return b"Set-Cookie", text.encode("ascii")


def is_encrypted(scope: Scope) -> bool:
    """Return whether the browser's connection is HTTPS: to this engine, or to a trusted proxy that says so."""
    forwarded: Forwarded | None = scope.get(FORWARDED)
    scheme: str = forwarded.scheme if forwarded else scope["scheme"]
    return scheme == "https"


def is_private(scope: Scope, headers: Headers) -> bool:
    """Return whether nobody can read the browser's connection: it is encrypted, or does not leave this machine.

    A connection that comes from a proxy on this machine may have come to it from elsewhere. It counts only if the proxy
    is trusted and names a client on this machine.
    """
    if is_encrypted(scope):
        return True
    if FORWARDED not in scope and any(name in headers for name in _PROXIED):
        return False
    return is_local_host(headers.get(b"host", b"")) and _is_loopback(address_of(scope))


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


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
