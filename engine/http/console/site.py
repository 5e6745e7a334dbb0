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
from engine.http.console.pages import HEADERS, PageFamily, PageHandler, Pages, see_other
from engine.http.console.paths import ACTIONS, BY_NAME, DOCS, FILES, HOME, PAGES, SIGN_IN, SIGN_OUT, STATIC, is_page
from engine.http.console.session.sessions import FIELD, FormTokens
from engine.http.console.session.sign_in import SignIn

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


class Console:
    """Pages and actions. The token of each form is checked before its action, except when somebody signs in."""

    def __init__(self, pages: Pages, tokens: FormTokens, sign_in: SignIn, families: Iterable[PageFamily]) -> None:
        self._pages, self._tokens, self._sign_in = pages, tokens, sign_in
        self._shown: dict[str, Handler] = {
            DOCS.rstrip("/"): _docs,
            HOME.rstrip("/"): _home,
            "/": _home,
            **{STATIC + name: partial(_file, name) for name in FILES},
            SIGN_IN: sign_in.show,
        }
        # Readers without a session may send these two.
        self._actions: dict[str, Handler] = {SIGN_IN: sign_in.sign_in, SIGN_OUT: sign_in.sign_out}
        for name, handler in (one for family in families for one in family.handlers()):
            if BY_NAME[name].method == "GET":
                self._shown[BY_NAME[name].path] = handler
            else:
                self._actions[BY_NAME[name].path] = partial(self._act, handler)
        self._targets = [compile_path(path)[0] for path in self._actions if path not in self._shown]
        self._paths = [compile_path(path)[0] for path in self._shown]
        self._shown[f"{HOME}{{rest:path}}"] = self._other_page

    def served(self) -> list[ServedOperation]:
        known = {(each.method, each.path): each for each in (*PAGES, *ACTIONS)}
        shown = [ServedOperation(known["GET", path], show) for path, show in self._shown.items()]
        return [*shown, *(ServedOperation(known["POST", path], act) for path, act in self._actions.items())]

    async def _act(self, handler: PageHandler, call: Call) -> Reply:
        form = await read_form(call)
        self._tokens.check(call, form.text(FIELD))
        return await handler(call, form)

    async def _other_page(self, call: Call) -> Reply:
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
        retry = tuple(header for header in reply.headers if header[0] == b"retry-after")
        title = _TITLES.get(reply.status, "Request failed")
        return await self._pages.problem(scope, reply.status, title, str(error), retry)


async def _file(name: str, call: Call) -> Reply:
    return Reply(body=_read(name), headers=HEADERS, content_type=FILES[name])


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
