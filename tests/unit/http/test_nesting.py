"""Nesting depth of JSON text, with any string contents and any block boundaries."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.http.api.decoding import BLOCK, is_deeper

texts = st.text(st.sampled_from('[]{}"\\n é'), max_size=6)
values = st.recursive(
    st.none() | st.integers() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
)


class Counted(bytes):
    """Bytes that count how many bytes are sliced from them."""

    taken = 0

    def __getitem__(self, key: Any) -> Any:
        part = super().__getitem__(key)
        self.taken += len(part)
        return part


def depth(value: Any) -> int:
    if isinstance(value, dict | list):
        return 1 + max(map(depth, value.values() if isinstance(value, dict) else value), default=0)
    return 0


def deepest(text: bytes) -> int:
    """Return the smallest depth that ``is_deeper`` accepts."""
    return next(levels for levels in range(len(text) + 1) if not is_deeper(text, levels))


@given(values, st.booleans(), st.sampled_from([None, 1]))
def test_only_lists_and_objects_are_levels(value: Any, ascii_only: bool, indent: int | None) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode()

    assert deepest(text) == depth(value)


@given(values, st.data())
def test_a_text_is_as_deep_wherever_a_block_ends(value: Any, data: st.DataObject) -> None:
    text = json.dumps(value).encode()
    before = b" " * (BLOCK - data.draw(st.integers(0, min(len(text), BLOCK))))

    assert deepest(before + text) == depth(value)


@pytest.mark.parametrize("unit", [b'\\"', b"\\\\", b'\\\\\\"', b"[", b'\\"[', b"\\u005b]"])
@pytest.mark.parametrize("shift", range(4))
def test_a_string_may_be_longer_than_a_block(unit: bytes, shift: int) -> None:
    text = b'[["' + b"x" * shift + unit * (2 * BLOCK // len(unit) + 1) + b'",[[]]],"[[[[[["]'

    assert depth(json.loads(text)) == deepest(text) == 4


@pytest.mark.parametrize("unit", [b"[" * 98 + b"]" * 98, b"[]", b'"[",{}', b'"\\"[\\\\"', b'""', b"1"])
def test_a_text_is_gone_through_once(unit: bytes) -> None:
    text = Counted(b"[" + b",".join([unit] * ((4 << 20) // len(unit))) + b"]")

    assert not is_deeper(text, 100)
    assert text.taken <= len(text) + len(text) // BLOCK


def test_a_text_that_is_too_deep_is_not_gone_through() -> None:
    text = Counted(b"[" * (4 << 20))

    assert is_deeper(text, 100)
    assert text.taken <= BLOCK
