"""Keeps web pages out: on a loopback address, only those who mean this machine by name may talk to the engine.

A page from anywhere can make a browser on this machine send requests to a loopback port. The browser tells, in
Origin, where the page came from, and in Host, which name it believes to talk to; a name that was rebound to
127.0.0.1 is still the foreign name there. An engine that others reach goes by any name, and asks for credentials,
which no browser adds for a page; pages are still kept out unless they come from the engine's own name.
"""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from urllib.parse import urlsplit

from engine.errors import Forbidden
from engine.http.wire import Headers


class Guard:
    """``check`` raises Forbidden for a foreign Host or Origin; a listener that is not ``loopback`` has any Host."""

    def __init__(self, *, loopback: bool = True) -> None:
        self._loopback = loopback
        # Clients repeat themselves; a cache of our own keeps two engines apart.
        self._is_local_host = lru_cache(256)(is_local_host)
        self._is_local_origin = lru_cache(256)(is_local_origin)

    def check(self, headers: Headers) -> None:
        host = headers.get(b"host", b"")
        if self._loopback and not self._is_local_host(host):
            raise Forbidden(f"the Host {_shown(host)} is not this machine: use localhost, 127.0.0.1 or [::1]")
        origin = headers.get(b"origin")
        if origin is not None and not self._is_own(origin, host):
            raise Forbidden(f"web pages of {_shown(origin)} may not use this engine")

    def _is_own(self, origin: bytes, host: bytes) -> bool:
        own = host.lower()
        return self._is_local_origin(origin) or origin.lower() in (b"http://" + own, b"https://" + own)


def is_local_host(value: bytes) -> bool:
    """Whether a Host header names this machine, with or without a port."""
    text = value.decode("latin-1").lower()
    name, _, port = text.partition("]:") if text.startswith("[") else text.partition(":")
    return (not port or (port.isascii() and port.isdigit())) and _is_loopback(name.strip("[]"), text)


def _is_loopback(name: str, text: str) -> bool:
    if name == "localhost":
        return not text.startswith("[")
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    return address.is_loopback and (address.version == 6) == text.startswith("[")


def is_local_origin(value: bytes) -> bool:
    """Whether an Origin header names a page served by this machine."""
    scheme, _, host = value.partition(b"://")
    return scheme in (b"http", b"https") and is_local_host(host) and urlsplit(value).path == b""


def _shown(value: bytes) -> str:
    return repr(value[:80].decode("latin-1"))
