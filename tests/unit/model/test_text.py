from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from engine.model.text import storable


@given(st.text(st.characters()))
def test_whatever_is_said_can_be_kept(text: str) -> None:
    kept = storable(text)

    assert kept.encode().decode() == kept


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=100))
def test_plain_text_stays_as_it_is(text: str) -> None:
    assert storable(text) == text


def test_a_long_text_is_cut() -> None:
    assert storable("x" * 10_000, limit=100) == "x" * 99 + "…"
