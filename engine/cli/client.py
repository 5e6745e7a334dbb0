"""HTTP client by which commands use the API of a running engine, one request at a time."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from msgspec import Struct

from engine import __version__
from engine.auth.signing import sign
from engine.errors import FunctiondError

ROLE_HINT = ": set FUNCTIOND_ACCESS_KEY and FUNCTIOND_SECRET_KEY to a key with that role"
REMOTE_HINT = ": the engine serves topics and streams itself unless plugins.<name>.endpoint names a remote service"
AGENT = f"functiond/{__version__}"  #: lists of invocations omit fields if the client does not name itself
CONNECT = 5.0  #: seconds to connect; the reply has no time limit


class UsageError(FunctiondError):
    """Options or arguments of a command that cannot be used. The command exits with code USAGE."""


class NotRunning(FunctiondError):
    def __init__(self, url: str, start: str, problem: str) -> None:
        super().__init__(f"cannot reach an engine at {url} ({problem}): start one with `{start} serve`, or set --url")


class NoReply(FunctiondError):
    def __init__(self, url: str, seconds: float) -> None:
        super().__init__(f"{url} took the connection, and did not reply within {seconds:g} s")


class NotTrusted(FunctiondError):
    def __init__(self, url: str, problem: str) -> None:
        super().__init__(
            f"the certificate of {url} is not trusted ({problem}): name a file with the certificate of its issuer by "
            "--ca-file, and use a host in --url that the certificate names"
        )


class ApiError(FunctiondError):
    """Error reply of the engine. ``code`` is an error code of the API, such as FSS.1051.

    If the reply contains no such code, ``code`` is ``HTTP`` and the status.
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        self.status, self.code = status, code
        super().__init__(f"{code} {message}")


class Answer(Struct, frozen=True, kw_only=True):
    status: int
    headers: Mapping[str, str]  #: names in lower case
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body) if self.body else None


class Key(Struct, frozen=True, kw_only=True):
    """Access key that signs requests."""

    access: str
    secret: str
    token: str = ""  #: security token of a temporary key

    def sign(self, method: str, target: str, headers: dict[str, str], body: bytes) -> dict[str, str]:
        """Return all headers of a request: ``headers``, the security token if any, and the headers of the signature."""
        given = headers | ({"X-Security-Token": self.token} if self.token else {})
        signed = sign(method, target, given, body, access=self.access, secret=self.secret, moment=time.time())
        return given | signed

    def __repr__(self) -> str:
        return f"Key(access={self.access!r})"


class Client:
    """Client of one engine for one project. Signs requests with ``key`` if it is given, or sends ``token``.

    Paths are relative to the functions of the project (``/v2/PROJECT/fgs/functions``). For a URL with https, the
    engine's certificate is checked with those in ``ca_file``, by default with those of the system. Methods raise
    NotRunning if the engine cannot be reached, NotTrusted if its certificate fails the check, and ApiError if it
    replies with an error.
    """

    def __init__(
        self, url: str, project: str, start: str, key: Key | None = None, *, ca_file: str = "", token: str = ""
    ) -> None:
        scheme, self.host, self._port = _address(url)
        self._tls = _trust(ca_file) if scheme == "https" else None
        self._url, self._start, self._key, self._token = url, start, key, token
        self._max_wait: float | None = None
        self.project = project
        self._base = f"/v2/{quote(project, safe='')}/fgs/functions"

    def get(self, path: str = "", **query: object) -> Any:
        given = {name: value for name, value in query.items() if value not in (None, "")}
        return self.send("GET", path + (f"?{urlencode(given)}" if given else "")).json

    def get_all(self, path: str, field: str) -> list[dict[str, Any]]:
        """Return the entries of all pages of the list at ``path``.

        Each page is a JSON object that contains its entries in ``field``.
        """
        found: list[dict[str, Any]] = []
        count = 1
        while len(found) < count:
            page = self.get(path, marker=len(found), maxitems=400)
            found += page[field]
            count = page["count"] if page[field] else 0
        return found

    def put(self, path: str, value: object) -> Any:
        return self.send("PUT", path, json.dumps(value).encode()).json

    def post(self, path: str, value: object) -> Any:
        return self.send("POST", path, json.dumps(value).encode()).json

    def patch(self, path: str, value: object) -> Any:
        return self.send("PATCH", path, json.dumps(value).encode()).json

    @property
    def of_project(self) -> Client:
        """Copy of this client whose paths are relative to the project (``/v2/PROJECT/fgs``)."""
        other = copy(self)
        other._base = self._base.removesuffix("/functions")
        return other

    def service(self, version: str = "v2") -> Client:
        """Return a copy of this client whose paths are those of the vendor's other services (``/v2/PROJECT``)."""
        other = copy(self)
        other._base = f"/{version}/{quote(self.project, safe='')}"
        return other

    def probe(self, path: str, seconds: float) -> Answer:
        """Return the reply to GET of a path of the engine, such as ``/healthz``, whatever its status.

        Raises NoReply if it takes longer than ``seconds``.
        """
        other = copy(self)
        other._base, other._max_wait = "", seconds
        with other._request("GET", path, None, None, None) as reply:
            return Answer(status=reply.status, headers={}, body=reply.read())

    def find(self, path: str, **query: object) -> Any:
        """Return the JSON value at ``path``, as ``get`` does, but None if the reply has status 404."""
        try:
            return self.get(path, **query)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def send(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        pieces: Iterable[bytes] | None = None,
    ) -> Answer:
        """Send a request and return the reply.

        ``pieces``, if given, yields ``body`` in parts, so that the caller can show the progress of an upload.
        """
        return checked(self.exchange(method, path, body, headers, pieces))

    def exchange(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        pieces: Iterable[bytes] | None = None,
    ) -> Answer:
        """Do the same as ``send``, but also return a reply that is an error."""
        with self._request(method, path, body, headers, pieces) as reply:
            names = {name.lower(): value for name, value in reply.getheaders()}
            return Answer(status=reply.status, headers=names, body=reply.read())

    def lines(self, path: str, accept: str, *, method: str = "GET", body: bytes | None = None) -> Iterator[bytes]:
        """Yield each line of the reply to a request as it arrives, without its line end."""
        with self._request(method, path, body, {"Accept": accept}, None) as reply:
            if reply.status >= 400:
                checked(Answer(status=reply.status, headers={}, body=reply.read()))
            while line := reply.readline():
                yield line.rstrip(b"\n")

    @contextmanager
    def _request(
        self,
        method: str,
        path: str,
        body: bytes | None,
        headers: Mapping[str, str] | None,
        pieces: Iterable[bytes] | None,
    ) -> Iterator[http.client.HTTPResponse]:
        connection = self._connection()
        given = {"Content-Type": "application/json", **(headers or {})}
        if self._key:
            host = f"[{self.host}]" if ":" in self.host else self.host
            given = self._key.sign(method, self._base + path, {"Host": f"{host}:{self._port}", **given}, body or b"")
        elif self._token:
            given["X-Auth-Token"] = self._token
        if body is not None:
            given["Content-Length"] = str(len(body))
        given["User-Agent"] = AGENT  # after signing, because proxies may change it
        connected = False
        try:
            connection.connect()
            connection.sock.settimeout(self._max_wait)
            connected = True
            connection.request(method, self._base + path, pieces if pieces is not None else body, given)
            yield connection.getresponse()
        except ssl.SSLCertVerificationError as error:
            raise NotTrusted(self._url, error.verify_message) from None
        except (OSError, http.client.HTTPException) as error:
            if connected and isinstance(error, TimeoutError) and self._max_wait:
                raise NoReply(self._url, self._max_wait) from None
            raise NotRunning(self._url, self._start, _problem(error)) from None
        finally:
            connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        if self._tls is None:
            return http.client.HTTPConnection(self.host, self._port, timeout=CONNECT)
        return http.client.HTTPSConnection(self.host, self._port, timeout=CONNECT, context=self._tls)


def _address(url: str) -> tuple[str, str, int]:
    """Return scheme, host and port of an engine's URL. Raises UsageError if it is invalid, or has other parts."""
    problem = "must look like http://127.0.0.1:8080 or https://host"
    try:
        parts = urlsplit(url if "//" in url else f"//{url}", scheme="http")
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise UsageError(f"--url is {url}: the URL {problem} ({error})") from None
    if parts.scheme not in ("http", "https") or not host:
        raise UsageError(f"--url is {url}: the URL {problem}")
    if "@" in parts.netloc:
        raise UsageError("--url has a login: leave it out, and set FUNCTIOND_ACCESS_KEY and FUNCTIOND_SECRET_KEY")
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise UsageError(f"--url is {url}: the URL {problem}, without a path: an engine is at the root of its host")
    return parts.scheme, host, port or (443 if parts.scheme == "https" else 80)


def _trust(ca_file: str) -> ssl.SSLContext:
    """Return a context that trusts the certificates in ``ca_file``; without it, those of the system."""
    try:
        return ssl.create_default_context(cafile=ca_file or None)
    except OSError as error:
        problem = error.strerror or str(error)
        raise UsageError(f"cannot use --ca-file {ca_file} ({problem}): name a PEM file with certificates") from None


def path_of(name: str, rest: str = "") -> str:
    """Return the URL path of a function, given by its name or URN, followed by ``rest``.

    Methods of ``Client`` take such paths.
    """
    return f"/{quote(name, safe=':!')}{rest}"


def checked(answer: Answer) -> Answer:
    """Return a reply. Raise ApiError if it is an error."""
    if answer.status < 400:
        return answer
    try:
        error = answer.json
        code, message = error.get("error_code") or error["code"], error.get("error_msg") or error["message"]
        hint = ROLE_HINT if answer.status == 403 and message.startswith("the role ") else ""
        if answer.status == 404 and message.startswith("no such resource") and "/fgs/" not in message:
            hint = REMOTE_HINT
        raise ApiError(answer.status, code, message + hint)
    except (ValueError, KeyError, TypeError, AttributeError):
        shown = answer.body[:200].decode("utf-8", "replace")
        raise ApiError(answer.status, f"HTTP {answer.status}", f"{shown} (is this a functiond engine?)") from None


def _problem(error: Exception) -> str:
    if isinstance(error, socket.gaierror):
        return "no such host"
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
