"""CORS for APIs that ask for it: what a browser asks first is answered here, and calls no function."""

from __future__ import annotations

from collections.abc import Mapping

from plugins.apig.problems import Headers
from plugins.apig.routing import ANY, Route

ORIGIN, METHOD, ASKED = b"origin", b"access-control-request-method", b"access-control-request-headers"
ALLOW = b"access-control-allow-origin"
METHODS = b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
MAX_AGE = b"3600"  #: seconds that a browser may remember the answer


def asked_method(method: str, headers: Mapping[bytes, bytes]) -> str:
    """For which method a browser asks leave; empty if it does not."""
    asks = method == "OPTIONS" and ORIGIN in headers
    return headers.get(METHOD, b"").decode("latin-1") if asks else ""


def preflight(route: Route, headers: Mapping[bytes, bytes]) -> Headers:
    method = route.options.req_method
    return (
        (ALLOW, b"*"),
        (b"access-control-allow-methods", METHODS if method == ANY else method.encode()),
        (b"access-control-allow-headers", headers.get(ASKED, b"*")),
        (b"access-control-max-age", MAX_AGE),
    )


def opened(route: Route, headers: Headers) -> Headers:
    """With leave for pages of any origin, unless the function has said whose may read its reply."""
    if not route.options.cors or any(name == ALLOW for name, _ in headers):
        return headers
    return (*headers, (ALLOW, b"*"))
