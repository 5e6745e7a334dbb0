"""Client by which commands and deployments use the API of a running engine, one request at a time."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from http.client import HTTPResponse
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from functiond import errors
from functiond.configuration import Configuration, checked_url
from functiond.steps import JSON, LONGEST_LIMIT, Reply, Request, error_of
from functiond.transport import Transport, pieces_of, read

from engine import __version__
from engine.errors import FunctiondError, UsageError

ROLE_HINT = ": set FUNCTIOND_ACCESS_KEY and FUNCTIOND_SECRET_KEY to a key with that role"
REMOTE_HINT = ": the engine serves topics and streams itself unless plugins.<name>.endpoint names a remote service"
AGENT = f"functiond/{__version__}"  #: lists of invocations omit fields if the client does not name itself


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
        self.status, self.code, self.message = status, code, message
        super().__init__(f"{code} {message}")


class Client:
    """Client of one engine for one project, on the connections of the package ``functiond``, without retries.

    ``access`` are other fields of ``Configuration``, such as ``token``. Paths are relative to the functions of the
    project (``/v2/PROJECT/fgs/functions``). ``start`` is the command that starts this program. The constructor raises
    UsageError. Methods raise NotRunning if the engine cannot be reached, NotTrusted if its certificate fails the check,
    and ApiError if it replies with an error.
    """

    def __init__(self, url: str, project: str, start: str = "functiond", **access: Any) -> None:
        self.project, self._url, self._start = project, url, start
        try:
            configuration = Configuration(url=checked_url(url), project=project, **access)
            self._transport = Transport(configuration, agent=AGENT)
        except errors.BadConfiguration as error:
            option, _, problem = str(error).partition(" ")
            raise UsageError(f"--{option.replace('_', '-')} {problem}") from None
        self.host = str(urlsplit(configuration.url).hostname)
        self._base = f"{configuration.base}/functions"

    def get(self, path: str = "", **query: object) -> Any:
        given = {name: value for name, value in query.items() if value not in (None, "")}
        return self.send("GET", path + (f"?{urlencode(given)}" if given else "")).json

    def get_all(
        self, path: str, field: str, *, start: str = "marker", total: str = "count", **query: object
    ) -> list[dict[str, Any]]:
        """Return the entries of all pages of the list at ``path``.

        Each page is a JSON object that contains its entries in ``field``, and the number of all in ``total``. ``start``
        and ``query`` are the parameters for the first entry, and for the size of a page and filters.
        """
        entries: list[dict[str, Any]] = []
        count = 1
        while len(entries) < count:
            page = self.get(path, **{start: len(entries), **(query or {"maxitems": 400})})
            entries += page[field]
            count = page[total] if page[field] else 0
        return entries

    def put(self, path: str, value: object) -> Any:
        return self.send("PUT", path, json.dumps(value).encode()).json

    def post(self, path: str, value: object) -> Any:
        return self.send("POST", path, json.dumps(value).encode()).json

    def patch(self, path: str, value: object) -> Any:
        return self.send("PATCH", path, json.dumps(value).encode()).json

    @property
    def of_project(self) -> Client:
        """Copy of this client whose paths are relative to the project (``/v2/PROJECT/fgs``)."""
        return self._with_base(self._base.removesuffix("/functions"))

    def service(self, version: str = "v2") -> Client:
        """Return a copy of this client whose paths are those of the vendor's other services (``/v2/PROJECT``)."""
        return self._with_base(f"/{version}/{quote(self.project, safe='')}")

    def _with_base(self, base: str) -> Client:
        other = copy(self)
        other._base = base
        return other

    def probe(self, path: str, seconds: float) -> Reply:
        """Return the reply to GET of a path of the engine, such as ``/healthz``, whatever its status.

        Raises NoReply if it takes longer than ``seconds``.
        """
        with self._opened(Request(method="GET", target=path, limit=seconds)) as reply:
            return read(self._transport.configuration, reply)

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
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        pieces: Iterable[bytes] | None = None,
        *,
        check: bool = True,
    ) -> Reply:
        """Send a request and return the reply, without ``check`` also one that is an error.

        ``pieces``, if given, yields ``body`` in parts, so that the caller can show the progress of an upload.
        """
        given = {"Content-Type": JSON, **(headers or {})}
        request = Request(method=method, target=self._base + path, body=body, headers=given, pieces=pieces)
        with self._opened(request) as opened:
            reply = read(self._transport.configuration, opened)
        return checked(reply) if check else reply

    def events(self, path: str) -> Iterator[tuple[bytes, bytes]]:
        """Yield the name and the data of each event at ``path`` as it arrives; without data, other lines in between."""
        name = b""
        for line in self.lines(path, accept="text/event-stream"):
            field, _, value = line.partition(b": ")
            name = value if field == b"event" else name
            yield name, value if field == b"data" else b""

    def lines(
        self, path: str, *, accept: str = "application/x-ndjson", method: str = "GET", body: bytes = b""
    ) -> Iterator[bytes]:
        """Yield each line of the reply to a request as it arrives, without its line end."""
        given = {"Content-Type": JSON, "Accept": accept}
        with self._opened(Request(method=method, target=self._base + path, body=body, headers=given)) as reply:
            if reply.status >= 300:
                checked(read(self._transport.configuration, reply))
            rest = b""
            for piece in pieces_of(reply):
                *lines, rest = (rest + piece).split(b"\n")
                yield from lines
            if rest:
                yield rest

    @contextmanager
    def _opened(self, request: Request) -> Iterator[HTTPResponse]:
        """Send a request, and yield its reply. Raise errors of the connection as those of commands."""
        try:
            with self._transport.opened(request) as reply:
                yield reply
        except (errors.Unreachable, errors.BadConfiguration) as error:
            cause = error.__cause__
            if isinstance(cause, ssl.SSLCertVerificationError):
                raise NotTrusted(self._url, cause.verify_message) from None
            if isinstance(error, errors.Unreachable):
                if isinstance(cause, TimeoutError) and error.sent and request.limit < LONGEST_LIMIT:
                    raise NoReply(self._url, request.limit) from None
                raise NotRunning(self._url, self._start, error.problem) from None
            raise
        except errors.ApiError as error:  # such as a compressed reply
            raise ApiError(error.status, error.code, error.message) from None


def path_of(name: str, rest: str = "") -> str:
    """Return the URL path of a function, given by its name or URN, followed by ``rest``.

    Methods of ``Client`` take such paths.
    """
    return f"/{quote(name, safe=':!')}{rest}"


def claim_of(app: str, *, take_over: bool) -> str:
    """Return the query of requests that create, change or delete a function for an app. An empty ``app`` is none."""
    return f"?app={quote(app)}" + ("&take_over=true" if take_over else "")


def app_of(function: Mapping[str, Any]) -> str:
    return str((function.get("functiond") or {}).get("app", ""))


def path_of_trigger(trigger: dict[str, Any]) -> str:
    """Return the path of a trigger, relative to the project."""
    return f"/triggers{path_of(trigger['func_urn'])}/{trigger['trigger_type_code']}/{trigger['trigger_id']}"


def checked(reply: Reply) -> Reply:
    """Return a reply. Raise ApiError if it is an error."""
    if reply.status < 300:
        return reply
    error = error_of(reply)
    hint = ROLE_HINT if error.status == 403 and error.message.startswith("the role ") else ""
    if error.status == 404 and error.message.startswith("no such resource") and "/fgs/" not in error.message:
        hint = REMOTE_HINT
    raise ApiError(error.status, error.code, error.message + hint)
