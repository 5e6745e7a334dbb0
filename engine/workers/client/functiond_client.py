"""Client of functions, with methods of the client of programs. Standard library only, Python 3.9 syntax."""

import json
import os
from http.client import HTTPException
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import ProxyHandler, Request, build_opener
from uuid import uuid4

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Client", "ClientError", "Handle", "InvocationFailed"]


class ClientError(Exception):
    """Refusal by the engine, or a broken connection."""


class InvocationFailed(ClientError):
    """Failure of the function that was called."""


class Handle:
    def __init__(self, function: str, request_id: str) -> None:
        self.function, self.request_id = function, request_id


class Client:
    """Client of the engine that runs this function, for others of its project."""

    def __init__(self, url: str = "", *, token: str = "", project: str = "", timeout: float = 100.0) -> None:
        given, get = {"Content-Type": "application/json"}, os.environ.get
        if token := token or get("FUNCTIOND_TOKEN", ""):
            given["X-Auth-Token"] = token
        root, project = url or get("FUNCTIOND_URL", ""), project or get("FUNCTIOND_PROJECT", "default")
        self._headers, self._timeout, self._base = given, timeout, f"{root}/v2/{quote(project, '')}/fgs/functions"
        self._open = build_opener(ProxyHandler({})).open

    def call(self, function: str, event: object = None) -> "Any":
        """Run a function and return its result. Raises InvocationFailed if it fails."""
        text = self._post(f"{quote(function, ':!')}/invocations", event, {})
        try:
            return json.loads(text or "null")
        except ValueError:
            return text

    def enqueue(self, function: str, event: object = None, **options: object) -> Handle:
        """Queue an invocation of a function, with ``key``, ``delay``, ``priority`` and ``ordering_key``."""
        headers = {"Idempotency-Key": str(options.pop("key", None) or uuid4())}
        given = ((name.replace("_", "-"), value) for name, value in options.items() if value is not None)
        headers.update({f"X-Functiond-{name}": str(value) for name, value in given})
        text = self._post(f"{quote(function, ':!')}/invocations-async", event, headers)
        return Handle(function, json.loads(text)["request_id"])

    def _post(self, path: str, event: object, headers: "dict[str, str]") -> str:
        body = b"" if event is None else json.dumps(event).encode()
        try:
            with self._open(
                Request(f"{self._base}/{path}", body, {**self._headers, **headers}), None, self._timeout
            ) as reply:
                text, failed = reply.read().decode(), reply.headers.get("x-is-func-err") == "true"
        except (OSError, HTTPException, ValueError) as error:  # a ValueError if functions have no access
            reason = f" {error.read().decode(errors='replace')}" if isinstance(error, HTTPError) else ""
            raise ClientError(f"{self._base}/{path}: {error}{reason}") from None
        if failed:
            raise InvocationFailed(text)
        return str(text)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *error: object) -> None: ...
