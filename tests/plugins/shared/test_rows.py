"""Rows of plugins that cannot be decoded."""

from __future__ import annotations

import pytest
from msgspec import Struct

from engine.errors import StoredDataUnreadable
from plugins._shared.rows import decoded_rows
from tests.doubles import MemoryStore


class Topic(Struct):
    name: str


@pytest.mark.parametrize("value", [b"{", b"\xff", b'{"name":1}'])
async def test_a_row_that_cannot_be_decoded_is_named_with_the_next_step(value: bytes) -> None:
    store = MemoryStore()
    await store.write("topics", {"a": b'{"name":"a"}', "b": value})

    read = decoded_rows(store, "topics", Topic)
    assert await anext(read) == ("a", Topic(name="a"))
    with pytest.raises(StoredDataUnreadable, match=r"the row b of the table topics cannot be read: .*; restore"):
        await anext(read)
