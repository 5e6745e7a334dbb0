"""Rendering of pages: templates, data common to all pages, security headers, and notes about finished actions.

The templates are compiled at the first request for a page, so an engine whose console is not used needs no memory for
them. Compilation runs in a thread, so other requests do not wait for it. A cookie carries a note to the next page.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from inspect import getmembers, isfunction
from typing import TYPE_CHECKING, Any, TypeVar

import anyio.to_thread
from msgspec import Struct

from engine.asgi.wire import HeaderPairs, Message, Reply, Scope
from engine.auth.roles import PRINCIPAL, Role
from engine.functions.catalog import Catalog
from engine.http.api.routing import READ, Call
from engine.http.console import words
from engine.http.console.paths import HOME, MODULES, PROJECT, SCRIPTS, SIGN_IN, SIGN_OUT, STATIC, STYLES
from engine.http.console.session.browser import asked_path, make_cookie, read_cookie
from engine.http.console.session.sessions import FIELD, SESSION, FormTokens, Sessions
from engine.http.console.visibility import value_shown
from engine.http.operations import BY_NAME
from engine.model.clock import Clock
from engine.model.urn import short_name
from engine.protocols import Operation

if TYPE_CHECKING:
    from jinja2 import Environment


COOKIE = "functiond_note"  #: carries a note to the next page
LONGEST = 400  #: characters of a note
REMOVE: HeaderPairs = (make_cookie(COOKIE, "", max_age=0),)
DEFAULT = "default"
HTML = b"text/html; charset=utf-8"
#: Only resources that the engine itself serves, nothing inline, and no embedding in other pages.
POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    b"form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = (
    (b"Content-Security-Policy", POLICY),
    (b"X-Content-Type-Options", b"nosniff"),
    (b"X-Frame-Options", b"DENY"),
    (b"Referrer-Policy", b"same-origin"),
    (b"Cross-Origin-Resource-Policy", b"same-origin"),
)
ADMIN: tuple[Role, ...] = ()  #: roles of pages that are for admin only, like the operations that they need
EVERYONE: tuple[Role, ...] = ("invoke", "read", "operator")
SECTIONS = ("functions", "invocations", "queues", "triggers", "deliveries")
#: Key in the ASGI scope: True if no foreign web page makes the request, so that its reply may show the navigation.
GUARDED = "functiond.guarded"
_BEFORE_PROJECT = PROJECT.partition("{")[0]
#: Shows a page. Or carries out what a form asks for, with the form as its second argument, and returns the reply:
#: a page with errors, or a redirection with a note.
PageHandler = Callable[..., Awaitable[Reply]]
F = TypeVar("F", bound=PageHandler)
_SERVED = "served"


def see_other(location: str, note: str = "", headers: HeaderPairs = ()) -> Reply:
    """Return the reply to a form that was carried out: the browser fetches ``location``, which shows ``note``."""
    headers = ((b"Location", location.encode("ascii")), *headers)
    if note:
        text = urlsafe_b64encode(note[:LONGEST].encode()).decode()
        headers += (make_cookie(COOKIE, text, max_age=60),)
    return Reply(status=303, headers=headers, content_type=b"")


def note_of(call: Call) -> str:
    """Return the note that the request's cookie carries; empty if there is none.

    Requests of scripts, such as those that keep a page up to date, get none: the page that follows the form shows it.
    """
    if call.headers.get(b"sec-fetch-mode", b"navigate") != b"navigate":
        return ""
    text = read_cookie(call.headers, COOKIE)
    try:
        return urlsafe_b64decode(text.encode()).decode()[:LONGEST]
    except ValueError:
        return ""


def projects_for(call: Call, catalog: Catalog) -> Sequence[str]:
    """Return the project of the request's credentials as the only one.

    If no credentials are needed, return all projects with functions, and the project of the requested page. The project
    named ``default`` is sorted first. It is the only result if no other project is found.
    """
    if call.principal is not None:
        return [call.principal.project]
    projects = {function.project for function in catalog.all()} | ({call.project} if call.project else set())
    return sorted(projects or {DEFAULT}, key=lambda project: (project != DEFAULT, project))


class Reader(Struct, frozen=True, kw_only=True):
    """Credentials of the reader of a page."""

    name: str
    role: str
    project: str
    ends_at: float  #: end of the session; 0: signed in by a header of the request


def get(name: str, path: str, roles: tuple[Role, ...] = READ, **given: str) -> Callable[[F], F]:
    """Declare that a method of a page family shows a page, for ``roles`` and admin.

    ``given`` are arguments of the method besides the call.
    """
    return _declare(PageOperation(name=name, method="GET", path=path, roles=roles, given=given))


def post(name: str, path: str, roles: tuple[Role, ...] = READ, **given: str) -> Callable[[F], F]:
    """Declare that a method of a page family carries out what a form asks for.

    A role that may open pages may send any form, because a refused one shows its page again: the operation of the API
    that it uses checks the role. ``given`` are arguments of the method besides the call and the form.
    """
    return _declare(PageOperation(name=name, method="POST", path=path, roles=roles, given=given))


def _declare(declared: PageOperation) -> Callable[[F], F]:
    def mark(method: F) -> F:
        vars(method).setdefault(_SERVED, []).append(declared)
        return method

    return mark


class PageOperation(Operation, frozen=True, kw_only=True):
    """Operation of the console, and arguments of its handler."""

    roles: tuple[Role, ...] = READ
    own: bool = True
    given: Mapping[str, Any] = {}


class PageFamily:
    """Pages about one kind of thing, and the actions of their forms: the methods that ``get`` and ``post`` mark."""

    @classmethod
    def operations(cls) -> Iterator[tuple[PageOperation, str]]:
        """Yield the operations, each with the name of the method that serves it."""
        for attribute, method in getmembers(cls, isfunction):
            for declared in vars(method).get(_SERVED, ()):
                yield declared, attribute

    def handlers(self) -> Iterator[tuple[PageOperation, PageHandler]]:
        """Yield the operations with their handlers."""
        for declared, attribute in self.operations():
            yield declared, partial(getattr(self, attribute), **declared.given)


def may_read(call: Call) -> bool:
    """Return whether the caller may open the pages besides the documentation."""
    return call.principal is None or call.principal.role in ("read", "admin")


def may(call: Call, operation: str) -> bool:
    """Return whether the caller's role may use an operation of the API. Raises KeyError if there is none such."""
    principal = call.principal
    return principal is None or principal.may(BY_NAME[operation].roles)


def browser_of(call: Call) -> str:
    """Return what tells browsers apart: the session, or the address of the client; empty if it is unknown."""
    return str(call.scope.get(SESSION) or (call.scope.get("client") or ("",))[0])


class Pages:
    """Renderer of all pages. ``credentials``: requests need them. ``nodes``: the engine has nodes."""

    def __init__(
        self,
        catalog: Catalog,
        clock: Clock,
        version: str,
        tokens: FormTokens,
        sessions: Sessions,
        *,
        credentials: bool,
        nodes: bool = False,
    ) -> None:
        self._catalog, self._clock, self._version, self._tokens = catalog, clock, version, tokens
        self._sessions, self._credentials, self._nodes = sessions, credentials, nodes
        self._environment: Environment | None = None

    async def show(
        self, call: Call, template: str, *, live: bool | None = None, http_status: int | None = None, **data: Any
    ) -> Reply:
        """Render ``template`` with ``data``, and return the reply.

        The reply has ``http_status``; without one, 400 if any of the ``errors`` among ``data`` is set, else 200. A
        ``live`` page is fetched again by the browser at intervals, as long as it is visible; by default, pages are that
        have no ``errors``, which belong to a form. The section of the page is the first part of the template's name.
        """
        common = self._common(call, template, "errors" not in data if live is None else live)
        status = http_status or (400 if data.get("errors") else 200)
        return await self._reply(template, status, REMOVE if common["note"] else (), common | data)

    async def show_bare(self, template: str, status: int, headers: HeaderPairs = (), **data: Any) -> Reply:
        """Render ``template`` without the navigation, for readers who have not signed in.

        With ``scope`` among the data, the note that the request carries is shown.
        """
        note = note_of(_call(data.pop("scope"))) if "scope" in data else ""
        return await self._reply(template, status, (*headers, *(REMOVE if note else ())), {"note": note, **data})

    async def problem(self, scope: Scope, status: int, title: str, message: str, headers: HeaderPairs = ()) -> Reply:
        """Return the reply to a request that failed. Readers who are known keep the navigation."""
        sent = scope["method"] == "POST"
        back = asked_path(scope, dict(scope["headers"])) if sent else ""
        data = {"status": status, "title": title, "message": message, "back": back}
        if not scope.get(GUARDED) or (self._credentials and PRINCIPAL not in scope):
            return await self._reply("problem.html", status, headers, data)
        return await self._reply("problem.html", status, headers, self._common(_call(scope), "problem.html") | data)

    def _common(self, call: Call, template: str, live: bool = False) -> dict[str, Any]:
        projects, principal = projects_for(call, self._catalog), call.principal
        named = call.scope["path"].removeprefix(_BEFORE_PROJECT).partition("/")[0]
        return {
            "project": call.project or (named if named in projects else projects[0]),
            "projects": projects,
            "reader": self._reader(call),
            "section": template.partition(".")[0].partition("/")[0],
            "sections": (*SECTIONS, "nodes") if self._nodes and may(call, "ListNodes") else SECTIONS,
            "live": live,
            "may_read": may_read(call),
            "may_change": principal is None or principal.role == "admin",
            "may": lambda operation: may(call, operation),
            "visible": lambda value: value_shown(call, value),
            "form_token": self._tokens.token_for(call),
            "note": note_of(call),
        }

    def _reader(self, call: Call) -> Reader | None:
        principal, session_id = call.principal, call.scope.get(SESSION)
        if principal is None:
            return None
        ends_at = self._sessions.ends_at(session_id) if session_id else 0.0
        return Reader(name=principal.name, role=principal.role, project=principal.project, ends_at=ends_at)

    async def _reply(self, template: str, status: int, headers: HeaderPairs, data: Mapping[str, Any]) -> Reply:
        if self._environment is None:
            self._environment = await anyio.to_thread.run_sync(_compiled, self._version)
        text = self._environment.get_template(template).render(data, now=self._clock.now())
        return Reply(status=status, body=text.encode(), headers=(*HEADERS, *headers), content_type=HTML)


async def _no_body() -> Message:
    return {"type": "http.disconnect"}


def _call(scope: Scope) -> Call:
    """Return the call of a request that may have failed before it was routed."""
    return Call({**scope, "path_params": {}}, _no_body, "")


@cache  # for engines that a program starts one after the other
def _compiled(version: str) -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("engine.http.console"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.globals |= {"home": HOME, "static": STATIC, "version": version, "quantile": words.quantile}
    environment.globals |= {"styles": STYLES, "scripts": SCRIPTS, "modules": MODULES, "token_field": FIELD}
    environment.globals |= {"sign_in": SIGN_IN, "sign_out": SIGN_OUT}
    environment.filters |= {
        "number": words.number,
        "span": words.span,
        "size": words.size,
        "clock_time": words.clock_time,
        "short_name": short_name,
        "kind_name": words.kind_name,
    }
    for name in environment.list_templates():
        environment.get_template(name)
    return environment
