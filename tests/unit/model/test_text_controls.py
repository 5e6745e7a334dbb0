"""Control characters in text from outside."""

from __future__ import annotations

import pytest

from engine.model.text import visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31m", r"\x1b[31m"),
        ("\x07\x08\x00\x7f", r"\x07\x08\x00\x7f"),
        ("a\rb\r\n", r"a\rb\r\n"),
        ("\x80\x9b\x9d\x9f", r"\x80\x9b\x9d\x9f"),
        ("\u061c\u200e\u200f\u202a\u202e\u2066\u2069", r"\u061c\u200e\u200f\u202a\u202e\u2066\u2069"),
        ("a\u2028b\u2029", r"a\u2028b\u2029"),
        ("\U000e0041", r"\U000e0041"),
        ("\ud83d", r"\ud83d"),
        ("\tb", r"\tb"),
    ],
)
def test_characters_that_command_a_terminal_are_escaped(text: str, shown: str) -> None:
    assert visible(text) == shown


@pytest.mark.parametrize("text", ["", "plain", "Grüße, 世界", "👩\u200d🚀", "नि\u200cर", "\ue0b0", r"\x1b"])
def test_other_text_stays(text: str) -> None:
    assert visible(text) == text


def test_characters_may_be_kept() -> None:
    assert visible("a\n\tb\r", keep="\n\t") == "a\n\tb\\r"
