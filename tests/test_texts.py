"""Texts of the code: how docstrings open, and that none points outside the repository."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
SHARE = 0.03  #: of docstrings that may open vaguely

#: First words that leave the subject of a docstring to be guessed.
VAGUE = frozenset(
    """
    what who whose whom which that those these this it they there here by of for from in on to with as at till until
    unless once how where when whether whatever nothing nobody none one all some something likewise
    """.split()  # noqa: SIM905  (a list takes a page)
)


def _docstrings(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text:
                yield text


def _is_vague(text: str) -> bool:
    return re.split(r"[\s,.:;(]", text.lower(), maxsplit=1)[0].strip("`*'\"") in VAGUE


def _files() -> Iterator[Path]:
    for folder in ("engine", "plugins", "bench"):
        yield from (ROOT / folder).rglob("*.py")


def test_docstrings_open_with_a_noun_or_a_verb() -> None:
    texts = [(file, text) for file in _files() for text in _docstrings(file.read_text())]
    vague = [f"{file.relative_to(ROOT)}: {text.splitlines()[0]}" for file, text in texts if _is_vague(text)]

    assert len(texts) > 1000
    assert len(vague) <= SHARE * len(texts), "\n".join(vague)


def test_a_vague_opening_is_found() -> None:
    source = 'class A:\n    """What it is."""\n\n    def f(self):\n        """Return it."""\n'

    assert [_is_vague(text) for text in _docstrings(source)] == [True, False]


def test_no_text_points_outside_the_repository() -> None:
    places = [
        f"{file.relative_to(ROOT)}:{number}"
        for file in _files()
        for number, line in enumerate(file.read_text().splitlines(), 1)
        if re.search(r"\b[Ss]pec (functiongraph_api|triggers_runtime)\b", line)
    ]

    assert places == []
