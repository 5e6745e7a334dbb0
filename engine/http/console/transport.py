"""Connections over which the console takes a secret key."""

from __future__ import annotations

import ipaddress

from engine.asgi.forwarded import FORWARDED, Forwarded
from engine.asgi.wire import Headers, Scope
from engine.auth.verifier import address_of
from engine.http.guard import is_local_host

#: Headers by which a proxy that is not trusted shows itself.
_PROXIED = (b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto", b"forwarded", b"via", b"x-real-ip")


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
