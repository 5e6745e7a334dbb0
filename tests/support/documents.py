"""Pages of the documentation and their code blocks."""

from __future__ import annotations

import re
from pathlib import Path

from msgspec import Struct

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
DOCS = ROOT / "engine" / "docs"
PAGES = (README, *sorted(DOCS.glob("*.md")))
OTHERS = (ROOT / "engine" / "README.md", ROOT / ".github" / "CONTRIBUTING.md")

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NAME = re.compile(r"(?:#|//) ([\w/.-]+\.\w+)\b")


class Block(Struct, frozen=True, kw_only=True):
    language: str
    text: str

    @property
    def file(self) -> str:
        """File name given by a comment in the first line; empty if there is none."""
        match = _NAME.match(self.text)
        return match[1] if match else ""


def page_id(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, *languages: str) -> list[Block]:
    every = (Block(language=language, text=text) for language, text in _BLOCK.findall(page.read_text()))
    return [candidate for candidate in every if not languages or candidate.language in languages]


def block(page: Path, language: str, part: str) -> str:
    """Return the one block that holds ``part``."""
    (text,) = [candidate.text for candidate in blocks(page, language) if part in candidate.text]
    return text


def section(page: Path, title: str) -> str:
    return page.read_text().partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def prose(page: Path) -> list[str]:
    """Return the lines outside blocks."""
    return _BLOCK.sub("", page.read_text()).splitlines()


def packages(page: Path) -> list[str]:
    """Return the packages that a page installs into functions, with those that serve web applications."""
    text = page.read_text()
    named = re.findall(r"^(?:echo|printf '%s\\n') (.+) > \S*requirements.txt$", text, re.MULTILINE)
    return " ".join(named).split() + (["a2wsgi", "uvicorn"] if "--http" in text else [])


def anchors(page: Path) -> set[str]:
    """Return the anchors of the headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", _BLOCK.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
