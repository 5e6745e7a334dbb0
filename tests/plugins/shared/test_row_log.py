"""Row logs: row numbers, failed writes and deleted logs."""

from __future__ import annotations

import pytest
from msgspec import Struct
from structlog.testing import capture_logs

from engine.errors import NotStored, StoredDataUnreadable
from plugins._shared.rows import RowLogs, decoded_rows
from tests.doubles import MemoryStore
from tests.doubles.writes import MemoryWrites


class Row(Struct, frozen=True, array_like=True):
    at: int
    text: str

    @property
    def size(self) -> int:
        return len(self.text)


async def opened(store: MemoryStore) -> RowLogs[Row]:
    logs = RowLogs(store, "rows", Row, lambda: 0.0)
    await logs.load("a")
    return logs


async def test_numbers_are_not_used_again_though_the_disk_refused_the_last_one_and_the_rest_has_gone() -> None:
    writes = MemoryWrites()
    store = MemoryStore(writes)
    logs = await opened(store)
    await logs.append([("a", Row(at=0, text="1")), ("a", Row(at=0, text="2"))])
    writes.fail("the disk is full")
    with pytest.raises(NotStored):
        await logs.append([("a", Row(at=0, text="refused"))])
    writes.heal()
    await logs.cut("a", logs.span("a")[1])

    later = await opened(store)

    assert await later.append([("a", Row(at=0, text="3"))]) == [2]
    assert await later.read("a", 2, 99) == ([(2, Row(at=0, text="3"))], 3)


async def test_rows_that_cannot_be_decoded_are_left_out_and_readers_go_on_behind_them() -> None:
    store = MemoryStore()
    moments = iter([1.0, 2.0, 3.0, 4.0, 5.0])
    logs = RowLogs(store, "rows", Row, lambda: next(moments))
    await logs.load("a")
    for number in range(5):
        await logs.append([("a", Row(at=0, text=str(number)))])
    keys = [key for key, _ in await store.scan("rows")]
    for number in (0, 2, 4):
        await store.write("rows", {keys[number]: b"\xc1"})

    with capture_logs() as lines:
        later = RowLogs(store, "rows", Row, lambda: 6.0)
        loaded = await later.load("a")
        assert loaded is not None
        assert [row.text for row in loaded] == ["1", "3"]
        assert later.span("a") == (0, 5)
        rows, position = await later.read("a", 0, 99)
        assert ([(number, row.text) for number, row in rows], position) == ([(1, "1"), (3, "3")], 5)
        assert await later.read("a", 4, 99) == ([], 5)
        assert [await later.seek("a", moment) for moment in (0, 2000, 2001, 4001)] == [0, 0, 2, 4]
        assert await later.append([("a", Row(at=0, text="5"))]) == [5]
    assert [line["row"] for line in lines] == [keys[4], keys[0], keys[2]]


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
