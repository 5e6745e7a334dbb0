"""Protection against web pages that use a browser to reach the engine.

Any page can make a browser on this machine send requests to a loopback port. The browser sends the page's origin in
Origin, and the name that it connects to in Host. If a foreign name was rebound to 127.0.0.1 (DNS rebinding), Host
still holds the foreign name. Origin must always be the engine's own or that of this machine.

Pages of other ports of this machine, such as those of a development server, may send JSON. For JSON, a browser first
asks the engine with OPTIONS, and the engine permits no page. Other content types of POST are sent without asking, so
they are refused if they come from a page that is not the engine's own. Other programs than browsers send no Origin:
services that push events may use any content type. Forms of the console are also refused if Sec-Fetch-Site or Referer
tells that another page has sent them.

If no credentials are required, Host must name this machine. A rebound page has the rebound name as its Origin too, so
nothing else distinguishes it from the engine's own pages.

If credentials are required, Host may be any name: a proxy on this machine passes on the name that clients use and have
signed. An engine that requires credentials does so until it exits (``http/reload``). A rebound page cannot use the
engine. Its requests can only count as failed attempts of this address (``auth.failures``), which delay no valid ones.

- Browsers add neither signatures nor tokens to a page's requests, and no cookies that were set under another name.
- Paths that need no credentials even then are public: health and readiness of the engine, the style sheets of the
  console, and the metrics if ``auth.open_metrics`` is set.
- Plugins check each sender themselves at those of their paths that are not declared ``signed``. Senders of webhooks
  reach these paths under the proxy's name.

Many proxies replace Host by their own name for the engine. Of trusted ones (``http.trusted_proxies``),
X-Forwarded-Host and X-Forwarded-Proto tell the name and the scheme that clients use. Any page may send such headers to
its own rebound name, so they replace Host only in the check of Origin, and never make up for a foreign Host.
"""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from urllib.parse import urlsplit

from engine.asgi.forwarded import FORWARDED, Forwarded
from engine.asgi.wire import JSON, Headers, Scope
from engine.errors import AccessDenied
from engine.http.console.paths import is_page


class Guard:
    """Check of the header Origin, and of Host if the engine requires no credentials.

    ``credentials`` states whether requests need credentials.
    """

    def __init__(self, *, credentials: bool) -> None:
        self._any_host = credentials
        # Clients repeat the same names. A cache per guard keeps two engines in one process apart.
        self._is_local_host = lru_cache(256)(is_local_host)
        self._is_local_origin = lru_cache(256)(is_local_origin)

    def check(self, scope: Scope, headers: Headers) -> None:
        """Raise AccessDenied unless the headers Host and Origin are acceptable.

        Host must name this machine, unless requests need credentials; so must the Host that a trusted proxy reports.
        Origin, if present, must be a page of this machine or of the name in Host, in place of which counts the name
        that a trusted proxy reports. A page of another port of this machine must send JSON in a POST.
        """
        host, forwarded = headers.get(b"host", b""), scope.get(FORWARDED)
        if not self._any_host:
            if not self._is_local_host(host):
                raise _foreign(host)
            if forwarded and forwarded.host and not self._is_local_host(forwarded.host):
                raise _foreign(forwarded.host)
        origin = headers.get(b"origin")
        if origin is not None and not is_own_origin(origin, host, forwarded):
            if not self._is_local_origin(origin):
                advice = "a proxy in between must pass on the header Host"
                raise AccessDenied(f"web pages of {_quoted(origin)} may not use this engine ({advice})")
            if scope["method"] == "POST" and not is_json(headers.get(b"content-type", b"")):
                raise AccessDenied(
                    f"web pages of {_quoted(origin)} may send JSON only; set Content-Type to application/json"
                )

        if scope["method"] == "POST" and is_page(scope["path"]):
            _check_form(headers, host, forwarded)


def _foreign(host: bytes) -> AccessDenied:
    return AccessDenied(
        f"the Host {_quoted(host)} is not this machine; use localhost, 127.0.0.1 or [::1]; "
        "an engine behind a proxy needs credentials (auth.file)"
    )


def _check_form(headers: Headers, host: bytes, forwarded: Forwarded | None) -> None:
    """Raise AccessDenied if the headers tell that a page of another origin has sent a form of the console.

    Browsers that send no Origin tell the origin in one of these headers. Other programs send neither.
    """
    site, referer = headers.get(b"sec-fetch-site"), headers.get(b"referer")
    if site not in (None, b"same-origin", b"none"):
        raise AccessDenied("another web page has sent this form; open the console and send it from there")
    if referer is not None and b"origin" not in headers:
        origin = b"/".join(referer.split(b"/", 3)[:3])
        if not is_own_origin(origin, host, forwarded):
            raise AccessDenied(f"a web page of {_quoted(origin)} has sent this form; send it from the console")


def is_own_origin(origin: bytes, host: bytes, forwarded: Forwarded | None = None) -> bool:
    """Return whether Origin is a page of the name and port in Host.

    The name and the scheme that a trusted proxy reports replace those of its own request.
    """
    schemes = [b"http", b"https"]
    if forwarded:
        host = forwarded.host or host
        schemes = [forwarded.scheme.encode()] if forwarded.scheme else schemes
    return origin.lower() in [scheme + b"://" + host.lower() for scheme in schemes]


def is_json(content_type: bytes) -> bool:
    """Return whether a Content-Type is JSON, such as ``application/json`` or ``application/cloudevents+json``."""
    kind = content_type.partition(b";")[0].strip().lower()
    return kind == JSON or (kind.startswith(b"application/") and kind.endswith(b"+json"))


def is_local_host(value: bytes) -> bool:
    """Return whether the value of a Host header is ``localhost`` or a loopback address, with or without a port."""
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
    """Return whether the value of an Origin header is a web page of ``localhost`` or a loopback address."""
    scheme, _, host = value.partition(b"://")
    return scheme in (b"http", b"https") and is_local_host(host) and urlsplit(value).path == b""


def _quoted(value: bytes) -> str:
    return repr(value[:80].decode("latin-1"))
