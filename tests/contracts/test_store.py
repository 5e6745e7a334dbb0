"""Contract of plugin stores: small rows ordered by key, separate for each plugin."""

from __future__ import annotations

from engine.protocols import Storage
from tests.contracts.storage import Opened


async def test_rows_come_in_the_order_of_their_keys_between_bounds(storage: Storage) -> None:
    store = storage.store("dis")
    await store.write("records", {"b": b"2", "a": b"1", "d": b"4", "c": b"3"})

    assert await store.scan("records", after="a", until="d") == [("b", b"2"), ("c", b"3")]
    assert await store.scan("records", limit=2, newest=True) == [("d", b"4"), ("c", b"3")]
    assert await store.get("records", "a") == b"1"


async def test_one_write_puts_and_deletes(storage: Storage) -> None:
    store = storage.store("dis")
    await store.write("records", {"a": b"1", "b": b"2"})
    await store.write("records", {"c": b"3", "b": b"9"}, delete=["a", "missing"])

    assert await store.scan("records") == [("b", b"9"), ("c", b"3")]


async def test_tables_and_plugins_are_apart(storage: Storage) -> None:
    await storage.store("dis").write("records", {"a": b"1"})

    assert await storage.store("dis").scan("streams") == []
    assert await storage.store("smn").get("records", "a") is None


async def test_purging_goes_in_steps(storage: Storage) -> None:
    store = storage.store("dis")
    await store.write("records", {f"{number:02}": b"" for number in range(10)})

    gone = [await store.purge("records", "08", after="00", limit=4) for _ in range(3)]

    assert gone == [4, 3, 0]
    assert [key for key, _ in await store.scan("records")] == ["00", "08", "09"]


async def test_rows_outlive_the_engine(opened: Opened) -> None:
    async with opened() as storage:
        await storage.store("dis").write("records", {"a": b"1"})

    async with opened() as storage:
        assert await storage.store("dis").get("records", "a") == b"1"
