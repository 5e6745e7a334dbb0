"""Documentation pages of the console: the Markdown files of ``engine/docs`` as HTML.

A page is rendered in a thread at its first request, then cached. Links between the files become links between the
pages.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from itertools import pairwise
from typing import TYPE_CHECKING

import anyio.to_thread
from msgspec import Struct

from engine.asgi.wire import Reply
from engine.errors import NotFound
from engine.http.api.routing import Call
from engine.http.console.pages import EVERYONE, HEADERS, PageFamily, Pages, get
from engine.http.console.paths import DOCS

if TYPE_CHECKING:
    from markdown_it.token import Token

INDEX = "index"
ARCHITECTURE = "architecture"  #: the page of ``engine/README.md``, which lies outside the folder
_OUTSIDE = {"../README.md": ARCHITECTURE}
_LINK = re.compile(r"([\w./-]+\.md)(#.*)?", re.ASCII)


class _Document(Struct, frozen=True, kw_only=True):
    title: str
    body: str  #: HTML


class DocsPage(PageFamily):
    """Handlers of the documentation: one for the index page, one for all others."""

    def __init__(self, pages: Pages) -> None:
        self._pages = pages

    @get("ConsoleDocs", DOCS, EVERYONE)
    async def show_index(self, call: Call) -> Reply:
        return await self._show(call, INDEX)

    @get("ConsoleDocsIndex", DOCS.rstrip("/"), EVERYONE)
    async def lead(self, call: Call) -> Reply:
        """Redirect to the index, whose path ends with a slash."""
        return Reply(status=307, headers=(*HEADERS, (b"Location", DOCS.encode())))

    @get("ConsoleDocsPage", f"{DOCS}{{page}}", EVERYONE)
    async def show(self, call: Call) -> Reply:
        name = call.part("page")
        if name in _images():
            body = await anyio.to_thread.run_sync(_images()[name].read_bytes)
            return Reply(body=body, headers=HEADERS, content_type=b"image/png")
        return await self._show(call, name)

    async def _show(self, call: Call, name: str) -> Reply:
        if name not in _files():
            raise NotFound(f"no such page: {call.path[:200]}; see the index {DOCS}")
        document = await anyio.to_thread.run_sync(_document, name)
        return await self._pages.show(call, "docs.html", live=False, document=document, index=name == INDEX, docs=DOCS)


@cache
def _files() -> Mapping[str, Traversable]:
    """Return the Markdown files by page name, which is the file name without ``.md``.

    The README of the engine has the page name in ``ARCHITECTURE``.
    """
    package = files("engine")
    pages = {file.name.removesuffix(".md"): file for file in (package / "docs").iterdir() if file.name.endswith(".md")}
    return {**pages, ARCHITECTURE: package / "README.md"}


@cache
def _images() -> Mapping[str, Traversable]:
    """Return the images of the pages by file name."""
    return {path.name: path for path in (files("engine") / "docs").iterdir() if path.name.endswith(".png")}


@cache
def _document(name: str) -> _Document:
    """Render the Markdown file of a page as HTML. Raises KeyError if no page has this name."""
    from markdown_it import MarkdownIt

    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    text = re.sub(r"\A<!--.*?-->\s*", "", _files()[name].read_text(encoding="utf-8"), flags=re.DOTALL)
    tokens = markdown.parse(text)
    title = name
    for token, following in pairwise(tokens):
        if token.type == "heading_open":
            token.attrSet("id", anchor(following.content))
            title = following.content if token.tag == "h1" else title
        for child in token.children or ():
            _redirect(child)
    return _Document(title=title, body=_scrolling(markdown.renderer.render(tokens, markdown.options, {})))


def _scrolling(body: str) -> str:
    """Let readers without a mouse scroll what may be wider than the page: code, and tables."""
    body = body.replace("<pre>", '<pre tabindex="0">').replace("</table>", "</table></div>")
    return body.replace("<table>", '<div class="wide" tabindex="0"><table>')


def anchor(heading: str) -> str:
    """Return the HTML id of a heading, which links such as ``page.md#heading`` name. Same rule as on GitHub."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _redirect(token: Token) -> None:
    """Change the address of an image, or of another documentation file, into that in the console. Ignore others."""
    if token.type == "image" and str(token.attrGet("src")) in _images():
        token.attrSet("src", f"{DOCS}{token.attrGet('src')}")
    href = str(token.attrGet("href") or "")
    if token.type == "link_open" and (match := _LINK.fullmatch(href)):
        page = _OUTSIDE.get(match[1], match[1].removesuffix(".md"))
        token.attrSet("href", f"{DOCS}{'' if page == INDEX else page}{match[2] or ''}")
