"""Web console as resources (paths with handlers) of the HTTP server: pages, static files, redirects, error pages."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from engine.asgi.wire import Reply, Scope
from engine.errors import FunctiondError, NotFound, Unauthorized
from engine.http.api.errors import error_reply
from engine.http.api.routing import Call, Handler, Resource
from engine.http.console.deliveries import DeliveriesPage
from engine.http.console.docs import DocsPage
from engine.http.console.functions import FunctionsPage
from engine.http.console.invocations import InvocationsPage
from engine.http.console.overview import OverviewPage
from engine.http.console.pages import HEADERS, Pages
from engine.http.console.paths import DOCS, FILES, HOME, PROJECT, STATIC, is_page
from engine.http.console.triggers import TriggersPage

_CHALLENGE = (b"www-authenticate", b'Basic realm="functiond", charset="UTF-8"')
_SIGN_IN = "Sign in with one of the engine's tokens as the password; any user name is accepted."
_TITLES = {400: "Invalid request", 401: "Sign in", 403: "Access denied", 404: "Not found"}


class Console:
    def __init__(
        self,
        pages: Pages,
        *,
        overview: OverviewPage,
        functions: FunctionsPage,
        invocations: InvocationsPage,
        triggers: TriggersPage,
        deliveries: DeliveriesPage,
    ) -> None:
        self._pages = pages
        docs = DocsPage(pages)
        self._shown: dict[str, Handler] = {
            HOME: overview.show,
            f"{PROJECT}/functions": functions.show,
            f"{PROJECT}/invocations": invocations.show_all,
            f"{PROJECT}/invocations/{{request_id}}": invocations.show,
            f"{PROJECT}/triggers": triggers.show,
            f"{PROJECT}/deliveries": deliveries.show,
            DOCS: docs.show_index,
            f"{DOCS}{{page}}": docs.show,
            DOCS.rstrip("/"): _docs,
            f"{HOME}{{rest:path}}": _no_page,
            HOME.rstrip("/"): _home,
            "/": _home,
            **{STATIC + name: _File(name).show for name in FILES},
        }

    def resources(self) -> list[Resource]:
        return [Resource(path=path, methods={"GET": show, "HEAD": show}) for path, show in self._shown.items()]

    async def refuse(self, scope: Scope, error: FunctiondError) -> Reply:
        """Return the reply for an error: an HTML page if the path belongs to the console, else JSON as in the API."""
        reply = error_reply(error)
        if not is_page(scope["path"]):
            return reply
        if isinstance(error, Unauthorized):
            return await self._pages.problem(401, _TITLES[401], f"{_SIGN_IN} ({error})", (_CHALLENGE,))
        retry = tuple(header for header in reply.headers if header[0] == b"retry-after")
        return await self._pages.problem(reply.status, _TITLES.get(reply.status, "Request failed"), str(error), retry)


class _File:
    def __init__(self, name: str) -> None:
        self._name = name

    async def show(self, call: Call) -> Reply:
        return Reply(body=_read(self._name), headers=HEADERS, content_type=FILES[self._name])


@cache
def _read(name: str) -> bytes:
    return (files("engine.http.console") / "static" / name).read_bytes()


async def _home(call: Call) -> Reply:
    """Redirect to the first page of the console.

    Raises NotFound if the path is ``/`` and the client does not accept HTML.
    """
    if call.path == "/" and b"text/html" not in call.headers.get(b"accept", b""):
        raise NotFound("no such resource: / (/openapi.json lists the operations)")
    return Reply(status=307, headers=(*HEADERS, (b"location", HOME.encode())))


async def _docs(call: Call) -> Reply:
    """Redirect to the index of the documentation, whose path ends with a slash."""
    return Reply(status=307, headers=(*HEADERS, (b"location", DOCS.encode())))


async def _no_page(call: Call) -> Reply:
    raise NotFound(f"no such page: {call.path[:200]} (it may have been removed)")
