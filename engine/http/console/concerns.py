"""Concern: something that needs the attention of an operator, with the page on which it is handled."""

from __future__ import annotations

from msgspec import Struct

from engine.http.console.paths import DOCS, PROJECT


class Concern(Struct, frozen=True, kw_only=True):
    title: str
    text: str  #: details, and what to do next
    link: str
    action: str  #: text of the link
    urgent: bool = False
    operation: str = ""  #: of the API, which the form at ``link`` uses; empty: ``link`` is a page


def list_of(project: str, section: str, query: str = "") -> str:
    return f"{PROJECT.format(project_id=project)}/{section}{query}"


def manual(page: str) -> str:
    return f"{DOCS}{page}"


def sentence(text: str) -> str:
    """Return a message as a sentence: with a capital letter and a full stop."""
    return text[:1].upper() + text[1:] + ("" if not text or text.endswith((".", "!", "?", "]")) else ".")
