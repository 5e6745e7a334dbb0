"""Fetching of URLs in received messages, such as the URL of a certificate. Only hosts in the settings are allowed.

Without this restriction, a message could direct requests into the private network. A host in ``hosts`` must be public:
it needs https, and all addresses of its name must be public. A host in ``private_hosts`` may have any address, and
plain HTTP. Redirects are not followed. Answers are limited in size and time.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Collection
from urllib.parse import SplitResult, urlsplit

import anyio
import structlog

from engine import Forbidden, InvalidField, Unavailable
from plugins._shared.http_client import HttpService

log = structlog.get_logger("functiond.plugins")

LONGEST = 2000  #: characters of a URL
LIMIT = 64 << 10  #: bytes of an answer
MAX_WAIT = 10.0  #: seconds for the whole request


class Fetcher:
    """HTTP client that fetches URLs of the allowed hosts only.

    Hosts include their port unless it is the default one.
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
        client = await self._http.client()
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
        found = await anyio.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
        addresses = [ipaddress.ip_address(sockaddr[0]) for *_, sockaddr in found]
        if parts.netloc not in self._private_hosts and not all(_is_public(address) for address in addresses):
            raise Forbidden(f"{parts.netloc} has an address in a private network")
        first = addresses[0]
        return f"[{first}]" if first.version == 6 else str(first)


def _is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    inner = getattr(address, "ipv4_mapped", None) or address
    return inner.is_global and not inner.is_multicast


async def confirm(fetcher: Fetcher, url: str, setting: str) -> None:
    """Confirm a topic's subscription by a GET of the URL in its message.

    Raises InvalidField where ``Fetcher.get`` raises Forbidden; Unavailable if the host fails temporarily.
    ``setting`` is the name of the setting that allows hosts.
    """
    try:
        await fetcher.get(url)
    except Forbidden as refusal:
        hint = f"{refusal}: open it yourself to confirm, or add its host to {setting}"
        log.warning("subscription not confirmed", url=url[:1000], hint=hint)
        raise InvalidField("SubscribeURL", url[:200], hint) from None
    log.info("subscription confirmed", host=urlsplit(url).netloc)
