"""Embedded streams of DIS whose rows are on a damaged page of the journal."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from plugins.dis import plugin as dis
from tests.support.damage import rows_of
from tests.support.pages import Page, PageFile
from tests.support.streams import Dis
from tests.support.triggering import api_client, house

RECORDS = [f"{number:03} {'x' * 200}" for number in range(150)]


def damaged(folder: Path, content: bytes) -> tuple[Page, bytes]:
    """Damage the second page with rows that contain some bytes. Return the page, and the bytes that were on it."""
    with closing(sqlite3.connect(folder / "journal.db")) as database:
        database.execute("VACUUM")  # removes moved rows from pages
    file, whole = PageFile(folder / "journal.db"), (folder / "journal.db").read_bytes()
    pages = {page: whole[(page.number - 1) * 4096 : page.number * 4096] for page in file.pages("plugin_row")}
    _, page, *_ = (page for page, before in pages.items() if page.is_leaf and content in before)
    file.smash(page)
    return page, pages[page]


async def test_readers_go_on_behind_a_damaged_page_of_records(tmp_path: Path) -> None:
    async with house(tmp_path, [dis]) as place, api_client(place) as client:
        await Dis(client).create()
        await Dis(client).put(*RECORDS)
    _, content = damaged(tmp_path, b"x" * 200)
    lost = [record for record in RECORDS if record.encode() in content]
    assert lost

    async with house(tmp_path, [dis]) as place, api_client(place) as client:
        assert await Dis(client).texts() == [record for record in RECORDS if record not in lost]
        assert await Dis(client).texts("AT_SEQUENCE_NUMBER", starting__sequence__number=140) == RECORDS[140:]
        [put] = await Dis(client).put("next")
        assert put["sequence_number"] == str(len(RECORDS))


async def test_records_of_a_stream_on_a_damaged_page_are_not_deleted(tmp_path: Path) -> None:
    names = [f"stream-{number:03}" for number in range(60)]
    async with house(tmp_path, [dis]) as place, api_client(place) as client:
        for name in names:
            await Dis(client).create(name)
            await Dis(client).put("kept", name=name)
    page, content = damaged(tmp_path, b"stream-0")

    async with house(tmp_path, [dis]) as place, api_client(place) as client:
        found = [name for name in names if (await Dis(client).ask("GET", f"streams/{name}")).status_code == 200]
        missing = [name for name in names if name not in found]
        assert 0 < len(missing) < len(names)
        assert all(name.encode() in content for name in missing)
        reply = await Dis(client).ask("POST", "streams", {"stream_name": missing[0], "partition_count": 1})
        assert reply.status_code == 503
    sql = "SELECT count(*) FROM plugin_row WHERE name = 'records'"
    with (tmp_path / "journal.db").open("r+b") as file:
        file.seek((page.number - 1) * 4096)
        file.write(content)
    assert rows_of(tmp_path, sql) == [(len(names),)]
    async with house(tmp_path, [dis]) as place, api_client(place) as client:
        assert await Dis(client).texts(name=missing[0]) == ["kept"]
