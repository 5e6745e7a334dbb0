"""HTTP requests of plugins: their shared client, a vendor's service at a configured address, and URLs in messages."""

from __future__ import annotations

import ipaddress
import re
import socket
import ssl
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import SplitResult, quote, urlencode, urlsplit

import anyio
import msgspec
import structlog
from anyio.abc import TaskStatus
from msgspec import Meta

from engine import (
    Clock,
    Forbidden,
    InvalidField,
    PluginContext,
    SettingsError,
    Unavailable,
    is_public,
    not_strict,
    sign_request,
)
from plugins._shared.connections import load_library
from plugins._shared.fields import Shared

if TYPE_CHECKING:
    import httpx

log = structlog.get_logger("functiond.plugins")

ENDPOINT = re.compile(r"https?://([\w.-]+|\[[0-9a-f:]+\])(:\d{1,5})?/?", re.ASCII)
LONGEST = 2000  #: characters of a fetched URL
LIMIT = 64 << 10  #: bytes of the answer
MAX_WAIT = 10.0  #: seconds for the whole fetch


class HttpService:
    """HTTP client that is opened on first use and closed with the engine.

    Runs as a plugin's service, or as part of one.
    """

    def __init__(self, timeout: float, ca_file: str = "") -> None:
        """Trust the certificate authorities in ``ca_file`` and the default ones.

        Raises SettingsError if the file cannot be read or has no valid certificate.
        """
        if ca_file:
            try:
                ssl.create_default_context(cafile=ca_file)
            except OSError as error:
                raise SettingsError(f"ca_file {ca_file} cannot be used: {error}") from None
        self._timeout, self._ca_file = timeout, ca_file
        self._client: httpx.AsyncClient | None = None

    async def run(self, context: PluginContext, *, task_status: TaskStatus[None]) -> None:
        task_status.started()
        try:
            await anyio.sleep_forever()
        finally:
            if self._client is not None:
                client, self._client = self._client, None
                await client.aclose()

    def client(self) -> httpx.AsyncClient:
        """Return the HTTP client, after opening it if necessary. Raises SettingsError if httpx is not installed."""
        if self._client is None:
            # Requests must reach the configured address: no redirects, and no proxy or certificates from the
            # environment.
            # Callers limit their requests. A limit of all connections would let servers that hang block the others.
            limits = _httpx().Limits(max_connections=None, max_keepalive_connections=20)
            self._client = _httpx().AsyncClient(
                timeout=self._timeout, limits=limits, verify=self.trust(), follow_redirects=False, trust_env=False
            )
        return self._client

    def trust(self) -> ssl.SSLContext:
        trust: ssl.SSLContext = not_strict(_httpx().create_ssl_context(trust_env=False))
        if self._ca_file:
            trust.load_verify_locations(self._ca_file)
        return trust


def _httpx() -> Any:
    return load_library("httpx", "sending over HTTP", "http")


class EndpointSettings(Shared, frozen=True, kw_only=True, forbid_unknown_fields=True):
    endpoint: str = ""  #: URL of the remote service; empty: the engine serves it itself
    project_id: str = ""  #: project at the endpoint; empty: the function's project
    access_key: str = ""
    secret_key: str = ""
    timeout: Annotated[float, Meta(gt=0, le=300)] = 30.0  #: seconds for one request

    def __post_init__(self) -> None:
        if self.endpoint and not ENDPOINT.fullmatch(self.endpoint):
            raise ValueError("endpoint must look like https://service.region.host or http://127.0.0.1:8000")
        if bool(self.access_key) != bool(self.secret_key):
            raise ValueError("access_key and secret_key must be set together")

    def __repr__(self) -> str:
        return f"{type(self).__name__}(endpoint={self.endpoint!r}, project_id={self.project_id!r})"


class Endpoint:
    """Client that sends requests to one address of a vendor's service."""

    def __init__(self, settings: EndpointSettings, http: HttpService, clock: Clock) -> None:
        self._settings, self._http, self._clock = settings, http, clock
        self._host, self.project_id = urlsplit(settings.endpoint).netloc, settings.project_id

    async def request(
        self,
        method: str,
        project: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        """Send a request to ``/v2/{project}/{path}``, and return the reply. Signs it if an access key is set.

        Raises httpx's errors if there is no reply; SettingsError if httpx is not installed.
        """
        settings, content = self._settings, b"" if body is None else msgspec.json.encode(body)
        project = settings.project_id or project
        target = f"/v2/{project}/{path}"
        if query:
            target += "?" + urlencode(query, quote_via=quote)
        sent = {"Host": self._host, "Content-Type": "application/json", "X-Project-Id": project, **(headers or {})}
        if settings.access_key:
            access, secret = settings.access_key, settings.secret_key
            sent |= sign_request(method, target, sent, content, access=access, secret=secret, moment=self._clock.now())
        client = self._http.client()
        url = settings.endpoint.rstrip("/") + target
        return await client.request(method, url, content=content, headers=sent)


class Fetcher:
    """HTTP client that fetches URLs in received messages, such as the URL of a certificate, of allowed hosts only.

    Without this restriction, a message could direct requests into the private network. A host in ``hosts`` must be
    public: it needs https, and all addresses of its name must be public. A host in ``private_hosts`` may have any
    address, and plain HTTP. Hosts include their port unless it is the default one. Redirects are not followed. Answers
    are limited in size and time.
    """

    def __init__(self, http: HttpService, hosts: Collection[str], private_hosts: Collection[str] = ()) -> None:
        self._http, self._hosts, self._private_hosts = http, hosts, private_hosts

    async def get(self, url: str) -> bytes:
        """Return the body at a URL.

        Raises Forbidden if the URL is not allowed, the host replies with another status than 2xx below 500, or the body
        is too long; Unavailable if the host cannot be reached, does not reply in time, or replies with 500 or more.
        """
        parts = self._checked(url)
        try:
            with anyio.fail_after(MAX_WAIT):
                return await self._fetch(parts)
        except (OSError, TimeoutError) as error:
            raise Unavailable(f"{parts.netloc} does not answer: {error or type(error).__name__}") from error

    async def confirm(self, url: str, setting: str) -> None:
        """Confirm a topic's subscription by a GET of the URL in its message.

        Raises InvalidField where ``get`` raises Forbidden; Unavailable if the host fails temporarily. ``setting`` is
        the name of the setting that allows hosts.
        """
        try:
            await self.get(url)
        except Forbidden as refusal:
            hint = f"{refusal}: open it yourself to confirm, or add its host to {setting}"
            log.warning("subscription not confirmed", url=url[:1000], hint=hint)
            raise InvalidField("SubscribeURL", url[:200], hint) from None
        log.info("subscription confirmed", host=urlsplit(url).netloc)

    def _checked(self, url: str) -> SplitResult:
        try:
            parts = urlsplit(url)
            _ = parts.port
        except ValueError:
            raise Forbidden("invalid URL") from None
        if len(url) > LONGEST or not (url.isascii() and url.isprintable()):
            raise Forbidden("invalid URL")  # urlsplit accepts URLs that the client cannot use
        if parts.netloc in self._private_hosts and parts.scheme in ("http", "https"):
            return parts
        if parts.netloc not in self._hosts:
            raise Forbidden(f"{parts.netloc[:100]!r} is not among the hosts in the settings")
        if parts.scheme != "https":
            raise Forbidden(f"the URL of {parts.netloc} must begin with https")
        return parts

    async def _fetch(self, parts: SplitResult) -> bytes:
        client = self._http.client()
        import httpx  # installed, since a client exists

        port = parts.port or (443 if parts.scheme == "https" else 80)
        address = await self._address(parts, port)
        # The checked address is used: resolving the name again could return another one.
        url = f"{parts.scheme}://{address}:{port}{parts.path or '/'}{'?' * bool(parts.query)}{parts.query}"
        headers = {"Host": parts.netloc, "Accept-Encoding": "identity", "Connection": "close"}
        names = {"sni_hostname": parts.hostname}
        try:
            async with client.stream("GET", url, headers=headers, extensions=names) as reply:
                if reply.status_code >= 500:
                    raise Unavailable(f"{parts.netloc} answered {reply.status_code}")
                if not reply.is_success:
                    raise Forbidden(f"{parts.netloc} answered {reply.status_code}")
                content = b""
                async for block in reply.aiter_raw():
                    content += block
                    if len(content) > LIMIT:
                        raise Forbidden(f"{parts.netloc} answered with more than {LIMIT} bytes")
                return content
        except httpx.TransportError as error:
            raise OSError(str(error)) from error

    async def _address(self, parts: SplitResult, port: int) -> str:
        resolved = await anyio.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
        addresses = [ipaddress.ip_address(sockaddr[0]) for *_, sockaddr in resolved]
        if parts.netloc not in self._private_hosts and not all(is_public(address) for address in addresses):
            raise Forbidden(f"{parts.netloc} has an address in a private network")
        first = addresses[0]
        return f"[{first}]" if first.version == 6 else str(first)
