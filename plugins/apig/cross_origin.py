"""CORS for APIs whose option ``cors`` is set. The gateway answers preflight requests itself, without the function.

An API for the method OPTIONS gets preflight requests like any others.
"""

from __future__ import annotations

from engine import HeaderPairs, Headers
from plugins.apig.routing import ANY, Route

ORIGIN, METHOD, HEADERS = b"origin", b"access-control-request-method", b"access-control-request-headers"
ALLOW = b"access-control-allow-origin"
METHODS = b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
MAX_AGE = b"3600"  #: seconds for which browsers may cache the answer


def preflight_method(method: str, headers: Headers) -> str:
    """Return the method of the request that a preflight request announces, or an empty text for other requests."""
    is_preflight = method == "OPTIONS" and ORIGIN in headers
    return headers.get(METHOD, b"").decode("latin-1") if is_preflight else ""


def preflight(route: Route, headers: Headers) -> HeaderPairs:
    """Return the headers of the reply to a preflight request."""
    method = route.options.req_method
    return (
        (ALLOW, b"*"),
        (b"access-control-allow-methods", METHODS if method == ANY else method.encode()),
        (b"access-control-allow-headers", headers.get(HEADERS, b"*")),
        (b"access-control-max-age", MAX_AGE),
    )


def allow_origins(route: Route, headers: HeaderPairs) -> HeaderPairs:
    """Return a reply's headers, with any origin permitted if the API's ``cors`` is set.

    A header of the function that permits origins is left unchanged.
    """
    if not route.options.cors or any(name == ALLOW for name, _ in headers):
        return headers
    return (*headers, (ALLOW, b"*"))
