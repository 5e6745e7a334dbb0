"""Pages of the console, parsed like a browser without scripts. Standard library only."""

from __future__ import annotations

from collections.abc import Iterator
from html.parser import HTMLParser

from tests.acceptance.engine_process import EngineProcess, Reply

EMPTY = frozenset({"meta", "link", "img", "input"})  #: elements without an end tag


class Page(HTMLParser):
    """Parsed page. ``text`` is the visible text; ``rows`` are the rows of its tables, cell by cell."""

    def __init__(self, reply: Reply) -> None:
        super().__init__()
        self.reply = reply
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.rows: list[dict[str, str]] = []
        self._open: list[str] = []
        self._words: list[str] = []
        self._cell = ""
        self.feed(reply.body.decode())
        self.close()
        assert not self._open, f"never closed: {self._open}"

    @property
    def text(self) -> str:
        return " ".join(" ".join(self._words).split())

    @property
    def form_token(self) -> str:
        return next(field["value"] for tag, field in self.tags if tag == "input" and field.get("name") == "form_token")

    def links(self, text: str = "") -> list[str]:
        return [attributes["href"] for tag, attributes in self.tags if tag == "a" and text in attributes["href"]]

    def column(self, name: str) -> list[str]:
        return [row[name] for row in self.rows]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        self.tags.append((tag, attributes))
        if tag not in EMPTY:
            self._open.append(tag)
        if tag == "tr" and "tbody" in self._open:
            self.rows.append({})
        if self._cell and tag in ("td", "th"):
            self._cell = ""
        if "data-label" in attributes:
            self._cell = attributes["data-label"]
            self.rows[-1][self._cell] = ""

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, f"{tag} closes another one"
        if tag in ("td", "th"):
            self._cell = ""

    def handle_data(self, data: str) -> None:
        self._words.append(data)
        if self._cell:
            said = f"{self.rows[-1][self._cell]} {data}"
            self.rows[-1][self._cell] = " ".join(said.split())


def visit(engine: EngineProcess, path: str, **headers: str) -> Page:
    return Page(engine.ask("GET", path, headers={"Accept": "text/html", **headers}))


def foreign(page: Page) -> Iterator[str]:
    """Yield everything in the page that its content security policy forbids, or should forbid."""
    for tag, attributes in page.tags:
        yield from (name for name in attributes if name.startswith("on") or name == "style")
        yield from (value for name, value in attributes.items() if name in ("src", "href") and not _own(value))
        if tag == "style" or (tag == "script" and "src" not in attributes):
            yield tag


def _own(link: str) -> bool:
    return link.startswith(("/", "?", "#")) and not link.startswith("//")
