"""Web console as resources (paths with handlers) of the HTTP server: pages, actions, static files, error pages."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from urllib.parse import quote

from starlette.routing import compile_path

from engine.asgi.wire import Reply, Scope
from engine.errors import FunctiondError, NotFound, Unauthorized
from engine.http.api.errors import error_reply
from engine.http.api.routing import Call, Handler, ServedOperation
from engine.http.console.docs import DocsPage
from engine.http.console.form_tokens import FIELD, FormTokens
from engine.http.console.forms import read_form
from engine.http.console.notes import see_other
from engine.http.console.pages import HEADERS, Action, PageFamily, Pages
from engine.http.console.paths import ACTIONS, DOCS, FILES, HOME, PAGES, STATIC, is_page
from engine.http.console.sign_in import SignIn

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
        self._pages, self._sign_in = pages, sign_in
        docs = DocsPage(pages)
        self._shown: dict[str, Handler] = {
            DOCS: docs.show_index,
            f"{DOCS}{{page}}": docs.show,
            DOCS.rstrip("/"): _docs,
            HOME.rstrip("/"): _home,
            "/": _home,
            **{STATIC + name: _File(name).show for name in FILES},
            **sign_in.pages(),
        }
        self._actions: dict[str, Handler] = dict(sign_in.posts())
        for family in families:
            self._shown |= family.pages()
            self._actions |= {path: _FormHandler(act, tokens) for path, act in family.actions().items()}
        self._targets = [compile_path(path)[0] for path in self._actions if path not in self._shown]
        self._paths = [compile_path(path)[0] for path in self._shown]
        self._shown[f"{HOME}{{rest:path}}"] = self._other_page

    def served(self) -> list[ServedOperation]:
        known = {(each.method, each.path): each for each in (*PAGES, *ACTIONS)}
        shown = [ServedOperation(known["GET", path], show) for path, show in self._shown.items()]
        return [*shown, *(ServedOperation(known["POST", path], act) for path, act in self._actions.items())]

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


class _FormHandler:
    def __init__(self, act: Action, tokens: FormTokens) -> None:
        self._act, self._tokens = act, tokens

    async def __call__(self, call: Call) -> Reply:
        form = await read_form(call)
        self._tokens.check(call, form.text(FIELD))
        return await self._act(call, form)


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
