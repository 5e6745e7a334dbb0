"""Text that can be stored, and control characters that are escaped."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.model.text import storable, visible


@given(st.text(st.characters()))
def test_any_text_can_be_stored(text: str) -> None:
    kept = storable(text)

    assert kept.encode().decode() == kept


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=100))
def test_plain_text_stays_as_it_is(text: str) -> None:
    assert storable(text) == text


def test_a_long_text_is_cut() -> None:
    assert storable("x" * 10_000, limit=100) == "x" * 99 + "…"


# --- control characters --------------------------------------------------------------------------------------


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
