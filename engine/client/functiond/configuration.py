"""URL, project and credentials of an engine, and the headers by which requests prove who sends them."""

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
    """Engine, project and credentials of a client, and bounds of its retries. Raises BadConfiguration.

    The representation as text contains no secret.
    """

    url: str  #: as ``checked_url`` returns it
    project: str = "default"
    token: str = ""
    access_key: str = ""
    secret_key: str = ""
    ca_file: str = ""
    retries: int = 5
    timeout: float = 60.0

    def __post_init__(self) -> None:
        if bool(self.access_key) != bool(self.secret_key):
            raise BadConfiguration("access_key and secret_key must be given together")
        for name, value in (("token", self.token), ("access_key", self.access_key)):
            if not (value.isascii() and value.isprintable() and value == value.strip()):
                raise BadConfiguration(f"{name} has characters that no header may have: remove spaces and line ends")
        if self.retries < 0 or not self.timeout > 0:
            given = f"retries is {self.retries} and timeout {self.timeout}"
            raise BadConfiguration(f"{given}: give 0 or more retries, and some seconds")

    @property
    def base(self) -> str:
        """Path of all that the project has."""
        return f"/v2/{quote(self.project, safe='')}/fgs"

    def headers(self, method: str, target: str, given: Mapping[str, str], body: bytes) -> dict[str, str]:
        """Return all headers of a request: ``given``, Host, and those that prove who sends it."""
        headers = {"Host": urlsplit(self.url).netloc, **given}
        if not self.access_key:
            return headers | ({"X-Auth-Token": self.token} if self.token else {})
        headers |= {"X-Security-Token": self.token} if self.token else {}
        access, secret, moment = self.access_key, self.secret_key, time.time()
        return headers | sign(method, target, headers, body, access=access, secret=secret, moment=moment)

    def tls(self) -> ssl.SSLContext | None:
        """Return the certificates to trust: those of ``ca_file``, else those of the system. None: no https."""
        if not self.url.startswith("https:"):
            return None
        try:
            return not_strict(ssl.create_default_context(cafile=self.ca_file or None))
        except OSError as error:
            problem = error.strerror or str(error)
            raise BadConfiguration(f"ca_file is {self.ca_file!r} ({problem}): name a PEM file") from None

    def __repr__(self) -> str:
        return f"Configuration(url={self.url!r}, project={self.project!r})"


def not_strict(context: ssl.SSLContext) -> ssl.SSLContext:
    """Return the context of a client, which accepts authorities without Key Usage, as plain openssl makes them.

    Python refuses them from 3.13 on, by a flag of its default context.
    """
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def environment(name: str) -> str:
    """Return the value of a variable such as ``FUNCTIOND_URL``; empty if it is not set."""
    return os.environ.get(f"FUNCTIOND_{name}", "")


def checked_url(url: str) -> str:
    """Return the URL of an engine with scheme, host and port only. Raises BadConfiguration if it has other parts."""
    problem = "must look like http://127.0.0.1:8080 or https://host"
    if "@" in url:
        raise BadConfiguration("url has a login: leave it out, and set FUNCTIOND_ACCESS_KEY and FUNCTIOND_SECRET_KEY")
    try:
        parts = urlsplit(url if "//" in url else f"//{url}", scheme="http")
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError as error:  # such as a port above 65,535
        raise BadConfiguration(f"url is {url!r}: the URL {problem} ({error})") from None
    if not usable:
        raise BadConfiguration(f"url is {url!r}: the URL {problem}")
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise BadConfiguration(
            f"url is {url!r}: the URL {problem}, without a path: an engine is at the root of its host"
        )
    return f"{parts.scheme}://{parts.netloc}"
