"""Damaged pages under the tables of plugins: one stops only its own rows."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from engine.errors import NotStored, StoredDataUnreadable
from engine.protocols import Store
from tests.support.damage import ranges, storing
from tests.support.pages import PageFile

ROWS = 600
KEYS = [f"log/{number:019}" for number in range(ROWS)]


async def stored(folder: Path, leaves: list[int], size: int = 40) -> list[str]:
    """Store the rows of a plugin and damage some pages of theirs. Return the keys of the rows on other pages."""
    async with storing(folder) as storage:
        await storage.store("a").write("first", {"x": b"1", "z": b"3"})
        await storage.store("b").write("rows", dict.fromkeys(KEYS, b"%0*d" % (size, 1)))
        await storage.store("c").write("last", {"x": b"1", "z": b"3"})
    with closing(sqlite3.connect(folder / "journal.db")) as database:
        database.execute("VACUUM")  # removes keys of moved rows from pages
    file, content = PageFile(folder / "journal.db"), (folder / "journal.db").read_bytes()
    pages = [page for page in file.pages("plugin_row") if page.is_leaf]
    lost = set[str]()
    for leaf in leaves:
        page = pages[leaf]
        file.smash(page)
        found = re.findall(rb"log/\d{19}", content[(page.number - 1) * 4096 : page.number * 4096])
        lost.update(key.decode() for key in found)
    assert lost
    return [key for key in KEYS if key not in lost]


async def scanned(store: Store, limit: int, *, newest: bool = False) -> list[str]:
    keys, after, until = list[str](), "", ""
    while rows := await store.scan("rows", after=after, until=until, limit=limit, newest=newest, skip_damaged=True):
        keys += [key for key, _ in rows]
        after, until = ("", keys[-1]) if newest else (keys[-1], "")
        if len(rows) < limit:
            break
    return keys


@pytest.mark.parametrize("leaves", [[1], [0], [-1], [1, 3], [-3, -1]], ids=str)
@pytest.mark.parametrize("newest", [False, True], ids=["oldest first", "newest first"])
async def test_a_scan_leaves_out_only_the_rows_on_damaged_pages(
    tmp_path: Path, leaves: list[int], newest: bool
) -> None:
    left = await stored(tmp_path, leaves)
    expected = left[::-1] if newest else left

    for _ in range(2):
        async with storing(tmp_path) as storage:
            store = storage.store("b")
            for limit in (1000, 50, 1):
                assert await scanned(store, limit, newest=newest) == expected
            assert [key for key, _ in await store.scan("rows", after=left[20], until=left[30])] == left[21:30]
            with pytest.raises(StoredDataUnreadable, match="a row of the plugin b, table rows, cannot be read"):
                await store.scan("rows")
            assert ranges(storage).keys() == {"plugin_row"}
            assert len(storage.statistics().damage) <= len(leaves)
            assert storage.statistics().failure == ""


async def test_a_row_alone_is_read_unless_its_page_is_damaged(tmp_path: Path) -> None:
    left = await stored(tmp_path, [2])

    async with storing(tmp_path) as storage:
        store = storage.store("b")
        for key in KEYS[::5]:
            if key in left:
                assert await store.get("rows", key) == b"%040d" % 1
            else:
                with pytest.raises(StoredDataUnreadable, match=f"the row {key} of the plugin b, table rows"):
                    await store.get("rows", key)


async def test_other_tables_and_plugins_are_read_beside_a_damaged_page(tmp_path: Path) -> None:
    await stored(tmp_path, [2])

    async with storing(tmp_path) as storage:
        for plugin, table in (("a", "first"), ("c", "last")):
            store = storage.store(plugin)
            assert await store.scan(table) == [("x", b"1"), ("z", b"3")]
            await store.write(table, {"y": b"2"})
            assert await store.get(table, "y") == b"2"
        assert ranges(storage) == {}


async def test_rows_with_a_damaged_large_value_are_left_out(tmp_path: Path) -> None:
    async with storing(tmp_path) as storage:
        await storage.store("b").write("rows", {key: bytes(20_000) for key in KEYS[:5]})
    file = PageFile(tmp_path / "journal.db")
    with closing(sqlite3.connect(tmp_path / "journal.db")) as database:
        roots = {page for [page] in database.execute("SELECT rootpage FROM sqlite_schema WHERE rootpage > 0")}
    content = (tmp_path / "journal.db").read_bytes()
    leaves = {page.number for page in file.pages("plugin_row")}
    chains = [
        number
        for number in range(3, len(content) // 4096 + 1)
        if number not in roots | leaves and not any(content[(number - 1) * 4096 + 4 : number * 4096])
    ]
    with (tmp_path / "journal.db").open("r+b") as damaged:
        damaged.seek((chains[0] - 1) * 4096)
        damaged.write(b"\xee" * 4)  # the number of the next page of the value

    async with storing(tmp_path) as storage:
        assert len(await scanned(storage.store("b"), 100)) == 4


async def test_purging_deletes_the_rows_on_other_pages(tmp_path: Path) -> None:
    left = await stored(tmp_path, [2])

    async with storing(tmp_path) as storage:
        store = storage.store("b")
        purged = 0
        while count := await store.purge("rows", "log0", after="log/", limit=100):
            purged += count
        assert purged >= len(left) - 2 * (ROWS - len(left))  # rows beside the page stay if their page would be joined
        with pytest.raises(NotStored, match="damaged"):
            await store.write("rows", {next(key for key in KEYS if key not in left): b"new"})
        await store.write("rows", {"zzz": b"new"})
        assert await store.get("rows", "zzz") == b"new"
