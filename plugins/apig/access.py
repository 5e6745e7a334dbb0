"""Who may call an API: anyone, an app by its code, or who holds credentials of the engine."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from engine import Unauthorized
from plugins.apig.edge import Scope
from plugins.apig.problems import Problem
from plugins.apig.routing import Route
from plugins.apig.settings import App

CODE = b"x-apig-appcode"
#: What proves the caller to the gateway is not for the function to see.
_PROOFS = {
    "NONE": frozenset[str](),
    "APP": frozenset({CODE.decode()}),
    "IAM": frozenset({"authorization", "x-auth-token", "x-security-token", "x-sdk-date", "x-sdk-content-sha256"}),
}


class Access:
    def __init__(self, apps: Mapping[str, App]) -> None:
        # By their hashes, so that a search's time says nothing about them.
        self._apps = {_digest(app.secret.encode()): app for app in apps.values()}

    async def check(self, route: Route, scope: Scope, headers: Mapping[bytes, bytes], body: bytes) -> None:
        """Raises Problem, and what the engine raises if it cannot tell now."""
        match route.options.auth:
            case "APP":
                self._check_app(route, headers.get(CODE))
            case "IAM":
                await _check_identity(route, scope, headers, body)

    def _check_app(self, route: Route, code: bytes | None) -> None:
        app = self._apps.get(_digest(code)) if code else None
        if app is None:
            told = "X-Apig-AppCode is that of no app" if code else "X-Apig-AppCode is needed"
            raise Problem(401, "APIG.0303", f"Incorrect app authentication information: {told}")
        if app.project not in ("", route.context.project) or (app.apis and route.options.name not in app.apis):
            raise Problem(403, "APIG.0304", "The app is not authorized to access the API.")


def proofs(route: Route) -> frozenset[str]:
    """Names of headers that the function does not get."""
    return _PROOFS[route.options.auth]


async def _check_identity(route: Route, scope: Scope, headers: Mapping[bytes, bytes], body: bytes) -> None:
    try:
        project = await route.context.plugin.callers.identify(scope, headers, body)
    except Unauthorized as error:
        raise Problem(401, "APIG.0301", f"Incorrect IAM authentication information: {error}") from None
    if project != route.context.project:
        raise Problem(403, "APIG.0302", "The IAM user is not allowed to access the API: it is of another project.")


def _digest(text: bytes) -> bytes:
    return hashlib.sha256(text).digest()
