"""Client of a vendor's service at a configured address: settings, and requests, signed if a key is set."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote, urlencode, urlsplit

import msgspec
from msgspec import Meta, Struct

from engine import Clock, sign_request
from plugins._shared.http_client import HttpService

if TYPE_CHECKING:
    import httpx

_ENDPOINT = re.compile(r"https?://([\w.-]+|\[[0-9a-f:]+\])(:\d{1,5})?/?", re.ASCII)


class EndpointSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    endpoint: str = ""  #: URL of the remote service; empty: the engine serves it itself
    project_id: str = ""  #: project at the endpoint; empty: the function's project
    access_key: str = ""
    secret_key: str = ""
    timeout: Annotated[float, Meta(gt=0, le=300)] = 30.0  #: seconds for one request

    def __post_init__(self) -> None:
        if self.endpoint and not _ENDPOINT.fullmatch(self.endpoint):
            raise ValueError("endpoint must look like https://service.region.host or http://127.0.0.1:8000")
        if bool(self.access_key) != bool(self.secret_key):
            raise ValueError("access_key and secret_key must be set together")

    def __repr__(self) -> str:
        return f"{type(self).__name__}(endpoint={self.endpoint!r}, project_id={self.project_id!r})"


class Endpoint:
    """Client that sends requests to one address of a vendor's service."""

    def __init__(self, settings: EndpointSettings, http: HttpService, clock: Clock) -> None:
        self._settings, self._http, self._clock = settings, http, clock
        self._host = urlsplit(settings.endpoint).netloc

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
        client = await self._http.client()
        url = settings.endpoint.rstrip("/") + target
        return await client.request(method, url, content=content, headers=sent)
