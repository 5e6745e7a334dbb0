"""CORS for APIs that enable it. Preflight requests are answered by the gateway, and call no function."""

from __future__ import annotations

from collections.abc import Mapping

from plugins.apig.problems import Headers
from plugins.apig.routing import ANY, Route

ORIGIN, METHOD, HEADERS = b"origin", b"access-control-request-method", b"access-control-request-headers"
ALLOW = b"access-control-allow-origin"
METHODS = b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
MAX_AGE = b"3600"  #: seconds for which browsers may cache the answer


def preflight_method(method: str, headers: Mapping[bytes, bytes]) -> str:
    """Return the method that a preflight request names, or an empty text for other requests."""
    is_preflight = method == "OPTIONS" and ORIGIN in headers
    return headers.get(METHOD, b"").decode("latin-1") if is_preflight else ""


def preflight(route: Route, headers: Mapping[bytes, bytes]) -> Headers:
    """Return the headers that answer a preflight request."""
    method = route.options.req_method
    return (
        (ALLOW, b"*"),
        (b"access-control-allow-methods", METHODS if method == ANY else method.encode()),
        (b"access-control-allow-headers", headers.get(HEADERS, b"*")),
        (b"access-control-max-age", MAX_AGE),
    )


def allow_origins(route: Route, headers: Headers) -> Headers:
    """Return headers that also permit any origin, if the API enables CORS and the function has not set the header."""
    if not route.options.cors or any(name == ALLOW for name, _ in headers):
        return headers
    return (*headers, (ALLOW, b"*"))
