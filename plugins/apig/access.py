"""Access control of APIs: open to all, by an app's signature or code, or by credentials of the engine's own API."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import structlog

from engine import Callers, Forbidden, Headers, ReadBody, Scope, Unauthorized, delay_of
from plugins.apig.options import App
from plugins.apig.problems import Problem
from plugins.apig.routing import Route

log = structlog.get_logger("functiond.access")

CODE, SIGNATURE = b"x-apig-appcode", b"authorization"
#: Headers that authenticate the client to the gateway. Functions do not receive them.
_CREDENTIAL_HEADERS = {
    "NONE": frozenset({"x-auth-token"}),
    "APP": frozenset({"x-apig-appcode", "x-sdk-date", "x-sdk-content-sha256"}),
    "IAM": frozenset({"authorization", "x-auth-token", "x-security-token", "x-sdk-date", "x-sdk-content-sha256"}),
}


class Access:
    """Check whether a request may call its API. ``apps`` are the apps in the settings."""

    def __init__(self, apps: Mapping[str, App]) -> None:
        # Codes are hashed, so that the time of a search reveals nothing about them.
        self._by_code = {_digest(app.app_code.encode()): app for app in apps.values() if app.app_code}
        self._by_key = {app.key: app for app in apps.values() if app.key}
        self._secrets = {app.key: app.secret.encode() for app in apps.values() if app.key}

    async def check(self, route: Route, scope: Scope, headers: Headers, read: ReadBody) -> None:
        """Check that the client may call the API. ``read`` returns the body, and is called only if that is needed.

        Raises Problem if it may not, and the engine's errors if that cannot be decided now, such as Overloaded if
        too many refusals are delayed.
        """
        match route.options.auth:
            case "APP":
                await self._check_app(route, scope, headers, read)
            case "IAM":
                await _check_identity(route, scope, headers, read)

    async def _check_app(self, route: Route, scope: Scope, headers: Headers, read: ReadBody) -> None:
        try:
            app = await self._app(route.context.plugin.callers, scope, headers, read)
        except Unauthorized as error:
            message = f"Incorrect app authentication information: {error}"
            raise Problem(401, "APIG.0303", message, delay=delay_of(error)) from None
        project, projects = route.context.project, (app.project,) if app.project else ()
        if not route.context.plugin.may_use(project, projects) or (app.apis and route.options.name not in app.apis):
            caller = {"credential": app.key or "X-Apig-AppCode"}
            raise _denied(route, "The app is not authorized to access the API.", "APIG.0304", **caller)

    async def _app(self, callers: Callers, scope: Scope, headers: Headers, read: ReadBody) -> App:
        """Return the app that sent a request. Raises Unauthorized if its code or signature is missing or wrong."""
        if CODE in headers:
            with callers.attempt(scope):
                app = self._by_code.get(_digest(headers[CODE]))
                if app is None:
                    raise Unauthorized("X-Apig-AppCode is not the code of any app")
                return app
        if SIGNATURE not in headers:
            raise Unauthorized("sign the request with the key and secret of an app, or send X-Apig-AppCode")
        return self._by_key[await callers.signer(self._secrets, scope, headers, read)]


def credential_headers(route: Route, headers: Headers) -> frozenset[str]:
    """Return the names of headers that authenticate the client to the gateway. The function does not get them."""
    names = _CREDENTIAL_HEADERS[route.options.auth]
    # Beside an app's code, an authorization that is not an app's signature is meant for the function.
    is_signature = route.options.auth == "APP" and headers.get(SIGNATURE, b"").startswith(b"SDK-HMAC-")
    return names | {SIGNATURE.decode()} if is_signature else names


async def _check_identity(route: Route, scope: Scope, headers: Headers, read: ReadBody) -> None:
    try:
        project = await route.context.plugin.callers.identify(scope, headers, read)
    except Unauthorized as error:
        message = f"Incorrect IAM authentication information: {error}"
        raise Problem(401, "APIG.0301", message, delay=delay_of(error)) from None
    except Forbidden as error:
        raise Problem(403, "APIG.0302", f"The IAM user is not allowed to access the API: {error}") from None
    if project != route.context.project:
        message = "The IAM user is not allowed to access the API: it belongs to another project."
        raise _denied(route, message, "APIG.0302", project=project)


def _denied(route: Route, message: str, code: str, **caller: str) -> Problem:
    """Log that a caller whose credentials are right may not call an API. Return the error for it."""
    log.warning("access denied", **caller, api=route.options.name, problem=message)
    return Problem(403, code, message)


def _digest(text: bytes) -> bytes:
    return hashlib.sha256(text).digest()
