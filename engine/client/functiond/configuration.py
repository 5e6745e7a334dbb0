"""URL, project and credentials of an engine, as given or from the environment, and the headers of each request."""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Mapping
from urllib.parse import quote, urlsplit

from msgspec import Struct

from functiond.errors import BadConfiguration
from functiond.signing import sign

URL = "http://127.0.0.1:8080"


class Configuration(Struct, frozen=True, kw_only=True):
    """Engine, project and credentials of a client, and bounds of its retries.

    The representation as text contains no secret.
    """

    url: str
    project: str
    token: str
    access_key: str
    secret_key: str
    ca_file: str
    retries: int
    timeout: float

    @property
    def functions(self) -> str:
        """Path of the functions of the project."""
        return f"/v2/{quote(self.project, safe='')}/fgs/functions"

    def headers(self, method: str, target: str, given: Mapping[str, str], body: bytes) -> dict[str, str]:
        """Return all headers of a request: ``given``, Host, and those that prove who sends it."""
        headers = {"Host": urlsplit(self.url).netloc, **given}
        if not self.access_key:
            return headers | ({"X-Auth-Token": self.token} if self.token else {})
        headers |= {"X-Security-Token": self.token} if self.token else {}
        access, secret, moment = self.access_key, self.secret_key, time.time()
        return headers | sign(method, target, headers, body, access=access, secret=secret, moment=moment)

    def tls(self) -> ssl.SSLContext | bool:
        """Return the certificates to trust: those of ``ca_file``, or True for those of the system."""
        if not self.ca_file:
            return ssl.create_default_context() if self.url.startswith("https:") else True
        try:
            return ssl.create_default_context(cafile=self.ca_file)
        except OSError as error:
            problem = error.strerror or str(error)
            raise BadConfiguration(f"ca_file is {self.ca_file!r} ({problem}): name a PEM file") from None

    def __repr__(self) -> str:
        return f"Configuration(url={self.url!r}, project={self.project!r})"


def configuration(
    *,
    url: str | None,
    token: str | None,
    access_key: str | None,
    secret_key: str | None,
    project: str | None,
    ca_file: str | None,
    retries: int,
    timeout: float,
) -> Configuration:
    """Return the configuration of a client. What is None comes from the environment (``FUNCTIOND_URL`` and so on).

    Credentials come from the environment only if none are given. Raises BadConfiguration.
    """
    if token is None and access_key is None and secret_key is None:
        access_key, secret_key = _environment("ACCESS_KEY"), _environment("SECRET_KEY")
        token = _environment("SECURITY_TOKEN" if access_key else "TOKEN")
    if bool(access_key) != bool(secret_key):
        raise BadConfiguration("access_key and secret_key must be given together")
    for name, value in (("token", token), ("access_key", access_key)):
        if value and not (value.isascii() and value.isprintable() and value == value.strip()):
            raise BadConfiguration(f"{name} has characters that no header may have: remove spaces and line ends")
    if retries < 0 or not timeout > 0:
        raise BadConfiguration(f"retries is {retries} and timeout {timeout}: give 0 or more retries, and some seconds")
    return Configuration(
        url=_checked_url(url or _environment("URL") or URL),
        project=project or _environment("PROJECT") or "default",
        token=token or "",
        access_key=access_key or "",
        secret_key=secret_key or "",
        ca_file=_environment("CA_FILE") if ca_file is None else ca_file,
        retries=retries,
        timeout=timeout,
    )


def _environment(name: str) -> str:
    return os.environ.get(f"FUNCTIOND_{name}", "")


def _checked_url(url: str) -> str:
    try:
        parts = urlsplit(url if "//" in url else f"http://{url}")
        whole = parts.hostname and parts.port != 0 and not (parts.username or parts.path.strip("/") or parts.query)
    except ValueError as error:  # such as a port above 65,535
        raise BadConfiguration(f"url is {url!r}: {error}") from None
    if parts.scheme not in ("http", "https") or not whole:
        raise BadConfiguration(f"url is {url!r}: it must look like http://127.0.0.1:8080 or https://host")
    return f"{parts.scheme}://{parts.netloc}"
