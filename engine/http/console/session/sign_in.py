"""Sign-in page of the console, its form, and signing out.

The form is sent before there is a session, so it has no token of its own; ``http/guard`` refuses forms of other pages.
A sign-in always begins a new session, and ends the one that the browser had before.
"""

from __future__ import annotations

from collections.abc import Mapping

import structlog
from msgspec import Struct

from engine.asgi.error_replies import hold_back
from engine.asgi.wire import HeaderPairs, Reply, Scope
from engine.auth.denials import request_fields
from engine.auth.roles import PRINCIPAL, Principal
from engine.errors import FunctiondError, InvalidField, TooManyFailures, Unauthorized
from engine.http.api.errors import error_reply
from engine.http.api.routing import Call, Subject
from engine.http.audit import Exchange, make_trace
from engine.http.auth import Authenticator
from engine.http.console import words
from engine.http.console.forms import WHOLE, Form, errors_of, read_fields
from engine.http.console.pages import EVERYONE, HEADERS, PageFamily, Pages, get, post, see_other
from engine.http.console.paths import DOCS, HOME, SIGN_IN, SIGN_OUT
from engine.http.console.session.browser import (
    asked_path,
    is_encrypted,
    is_private,
    local_path,
    make_cookie,
    session_cookie,
)
from engine.http.console.session.sessions import FIELD, LIFETIME, SESSION, FormTokens, Sessions
from engine.model.clock import Clock
from engine.protocols.audit import AuditTrail

LIMIT = 128 << 10  #: bytes of the form; the longest secrets fit
TOKEN, KEY = "token", "key"  #: kinds of credentials
_SESSION = Subject("session", ("name",), ("name",))
_NOT_PRIVATE = (
    "the secret key is taken only over HTTPS, or from a browser on the engine's own machine; use https:// or a token"
)

log = structlog.get_logger("functiond.access")


class _Asked(Struct, frozen=True, kw_only=True):
    """State of the sign-in page."""

    kind: str = TOKEN
    next: str = ""  #: path of the page to open afterwards; empty: the first page
    message: str = ""
    access: str = ""  #: as typed
    errors: Mapping[str, str] = {}


class SignIn(PageFamily):
    """Pages and forms for signing in and out. ``authenticator`` is None if the engine requires no credentials."""

    def __init__(
        self,
        pages: Pages,
        tokens: FormTokens,
        sessions: Sessions,
        authenticator: Authenticator | None,
        cookie: str,
        audit: AuditTrail,
        clock: Clock,
    ) -> None:
        self._pages, self._tokens, self._sessions, self._authenticator = pages, tokens, sessions, authenticator
        self._cookie, self._audit, self._clock = cookie, audit, clock

    @get("ConsoleSignInPage", SIGN_IN, EVERYONE)
    async def show(self, call: Call) -> Reply:
        path = local_path(call.text("next"))
        if self._authenticator is None or call.principal is not None:
            return _to(path, call.principal)
        kind = KEY if call.text("with") == KEY else TOKEN
        return await self._page(call.scope, 200, _Asked(kind=kind, next=path))

    async def ask(self, scope: Scope, error: Unauthorized) -> Reply:
        """Return the reply to a request for another page by somebody who has not signed in.

        Browsers send no cookie with a link from another site, so the first reply to such a request only leads on.
        """
        headers = dict(scope["headers"])
        path = asked_path(scope, headers)
        if scope["method"] == "GET" and headers.get(b"sec-fetch-site") == b"cross-site":
            return await self._pages.show_bare("opening.html", 401, _challenge(error), next=path)
        message = ""
        if scope["method"] not in ("GET", "HEAD"):
            message = "You are not signed in any more. Nothing was changed. Sign in, then send the form again."
        elif b"x-auth-token" in headers or b"authorization" in headers:
            message = f"Not signed in: {error}."
        elif session_cookie(scope, self._cookie).encode() in headers.get(b"cookie", b""):
            message = "Your session has ended. Sign in again."
        return await self._page(scope, 401, _Asked(next=path, message=message), _challenge(error))

    @post("ConsoleSignIn", SIGN_IN, EVERYONE)
    async def sign_in(self, call: Call) -> Reply:
        form = await read_fields(call, LIMIT)
        path = local_path(form.text("next"))
        if self._authenticator is None:
            return _to(path, None)
        error: FunctiondError
        try:
            principal = await self._check(self._authenticator, call, form)
        except (Unauthorized, TooManyFailures, InvalidField) as refusal:
            error = refusal
        else:
            return await self._begin(call, principal, path)
        kind = KEY if form.text("kind") == KEY else TOKEN
        asked = _Asked(kind=kind, next=path, access=form.text("access"), errors=_errors(error, kind))
        reply = error_reply(error)
        return await self._page(call.scope, reply.status, asked, _relevant(reply))

    @post("ConsoleSignOut", SIGN_OUT, EVERYONE)
    async def sign_out(self, call: Call) -> Reply:
        form = await read_fields(call, LIMIT)
        session_id = call.scope.get(SESSION)
        if session_id and call.principal is not None:
            self._tokens.check(call, form.text(FIELD))
            await self._sessions.end(session_id)
            self._report(call, call.principal, "ConsoleSignOut", "signed out")
        removal = make_cookie(session_cookie(call.scope, self._cookie), "", max_age=0)
        return see_other(SIGN_IN if self._authenticator else HOME, "You are signed out.", (removal,))

    async def _check(self, authenticator: Authenticator, call: Call, form: Form) -> Principal:
        """Return the principal of the credentials in the form. A refusal is delayed like one of the API."""
        try:
            if form.text("kind") != KEY:
                return authenticator.check_token(call.scope, _required(form, "token").encode())
            if not is_private(call.scope, call.headers):
                raise Unauthorized(_NOT_PRIVATE)
            access, secret = _required(form, "access"), _required(form, "secret").encode()
            return authenticator.check_secret(call.scope, access, secret, form.text("security_token").encode())
        except Unauthorized as error:
            delay, problem = error.delay, str(error)
        await hold_back(delay)
        raise Unauthorized(problem)

    async def _begin(self, call: Call, principal: Principal, path: str) -> Reply:
        if earlier := call.scope.get(SESSION):
            await self._sessions.end(earlier)
        session_id = await self._sessions.open(principal)
        self._report(call, principal, "ConsoleSignIn", "signed in")
        lasts = int(min(LIFETIME, principal.expires - self._clock.now()))
        cookie = make_cookie(session_cookie(call.scope, self._cookie), session_id, max_age=max(1, lasts))
        return _to(path, principal, (cookie,))

    def _report(self, call: Call, principal: Principal, operation: str, event: str) -> None:
        """Log that somebody has signed in or out, and publish a trace of it."""
        log.info(event, credential=principal.name, role=principal.role, **request_fields(call.scope))
        if self._audit.has_subscribers:
            scope, path = (
                {**call.scope, PRINCIPAL: principal},
                {"project_id": principal.project, "name": principal.name},
            )
            exchange = Exchange(status=303, request_id="", request=b"", response=b"")
            self._audit.publish(make_trace(scope, operation, _SESSION, path, exchange, self._clock.now()))

    async def _page(self, scope: Scope, status: int, asked: _Asked, headers: HeaderPairs = ()) -> Reply:
        return await self._pages.show_bare(
            "sign_in.html",
            status,
            headers,
            scope=scope,
            asked=asked,
            private=is_private(scope, dict(scope["headers"])),
            encrypted=is_encrypted(scope),
        )


def _to(path: str, principal: Principal | None, headers: HeaderPairs = ()) -> Reply:
    """Return the redirection to a page, by default to the first one that the reader may open."""
    if principal is not None and principal.role in ("invoke", "operator") and path in ("", HOME):
        path = DOCS
    return see_other(path or HOME, headers=(*HEADERS, *headers))


def _errors(error: FunctiondError, kind: str) -> Mapping[str, str]:
    """Return the message of a refusal by its place on the page."""
    if isinstance(error, Unauthorized) and kind == TOKEN:
        return {"token": words.sentence(str(error))}
    return errors_of(error) if isinstance(error, InvalidField) else {WHOLE: words.sentence(str(error))}


def _required(form: Form, name: str) -> str:
    if not form.text(name):
        raise InvalidField(name, "", "Enter this to sign in.")
    return form.text(name)


def _challenge(error: Unauthorized) -> HeaderPairs:
    return _relevant(error_reply(error))


def _relevant(reply: Reply) -> HeaderPairs:
    return tuple(header for header in reply.headers if header[0] in (b"Retry-After", b"WWW-Authenticate"))
