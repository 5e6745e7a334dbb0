"""Web console as resources (paths with handlers) of the HTTP server: pages, actions, static files, error pages."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache, partial
from importlib.resources import files
from urllib.parse import quote

from starlette.routing import compile_path

from engine.asgi.wire import Reply, Scope
from engine.errors import FunctiondError, NotFound, Unauthorized
from engine.http.api.errors import error_reply
from engine.http.api.routing import Call, Handler, ServedOperation
from engine.http.console.forms import read_form
from engine.http.console.pages import EVERYONE, HEADERS, PageFamily, PageHandler, PageOperation, Pages, get, see_other
from engine.http.console.paths import FILES, HOME, OPEN, STATIC, is_page
from engine.http.console.session.sessions import FIELD, FormTokens
from engine.http.console.session.sign_in import SignIn

_OTHER = f"{HOME}{{rest:path}}"
_TITLES = {
    400: "Invalid request",
    403: "Access denied",
    404: "Not found",
    409: "Conflict",
    413: "Too large",
    429: "Too many requests",
    500: "Internal error",
    503: "Not available now",
}


class Console(PageFamily):
    """Pages and actions. The token of each form is checked before its action, except when somebody signs in."""

    def __init__(self, pages: Pages, tokens: FormTokens, sign_in: SignIn, families: Iterable[PageFamily]) -> None:
        self._pages, self._tokens, self._sign_in = pages, tokens, sign_in
        handlers = [each for family in (self, sign_in, *families) for each in family.handlers()]
        self._served = [ServedOperation(declared, self._checked(declared, handler)) for declared, handler in handlers]
        shown = {declared.path for declared, _ in handlers if declared.method == "GET"}
        self._targets = [compile_path(declared.path)[0] for declared, _ in handlers if declared.path not in shown]
        self._paths = [compile_path(path)[0] for path in shown - {_OTHER}]

    def served(self) -> list[ServedOperation]:
        return self._served

    def _checked(self, declared: PageOperation, handler: PageHandler) -> Handler:
        # Readers without a session may send the forms of open paths.
        return handler if declared.method == "GET" or declared.path in OPEN else partial(self._act, handler)

    async def _act(self, handler: PageHandler, call: Call) -> Reply:
        form = await read_form(call)
        self._tokens.check(call, form.text(FIELD))
        return await handler(call, form)

    @get("ConsoleStart", HOME.rstrip("/"), EVERYONE)
    @get("Start", "/", EVERYONE)
    async def start(self, call: Call) -> Reply:
        """Redirect to the first page of the console.

        Raises NotFound if the path is ``/`` and the client does not accept HTML.
        """
        if call.path == "/" and b"text/html" not in call.headers.get(b"accept", b""):
            raise NotFound("no such resource: / (/openapi.json lists the operations)")
        return Reply(status=307, headers=(*HEADERS, (b"Location", HOME.encode())))

    @get("ConsoleFile", f"{STATIC}{{name}}", EVERYONE)
    async def file(self, call: Call) -> Reply:
        if (name := call.part("name")) not in FILES:
            return await self.other_page(call)
        return Reply(body=_read(name), headers=HEADERS, content_type=FILES[name])

    @get("ConsoleNoPage", _OTHER, EVERYONE)
    async def other_page(self, call: Call) -> Reply:
        """Redirect to the page whose form is sent to the path: a page with errors has this path. Raises NotFound."""
        path: str = call.scope["path"]
        if any(target.match(path) for target in self._targets):
            while path := path.rpartition("/")[0]:
                if any(page.match(path) for page in self._paths):
                    return see_other(quote(path))
        raise NotFound(f"no such page: {call.path[:200]} (it may have been removed)")

    async def refuse(self, scope: Scope, error: FunctiondError) -> Reply:
        """Return the reply for an error: an HTML page if the path belongs to the console, else JSON as in the API."""
        reply = error_reply(error)
        if not is_page(scope["path"]):
            return reply
        if isinstance(error, Unauthorized):
            return await self._sign_in.ask(scope, error)
        retry = tuple(header for header in reply.headers if header[0] == b"Retry-After")
        title = _TITLES.get(reply.status, "Request failed")
        return await self._pages.problem(scope, reply.status, title, str(error), retry)


@cache
def _read(name: str) -> bytes:
    return (files("engine.http.console") / "static" / name).read_bytes()
