"""Checksums of payloads and results: bytes that changed on disk are found when they are read."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from engine.storage.sqlite.checksums import payload_problem, payload_sum, result_is_damaged, result_sum
from tests.support.damage import change, rows_of, storing
from tests.support.pages import PageFile
from tests.support.storages import NOW, ROOM, made, ready_of, record_of, settled, stored, success


def flip(folder: Path, old: bytes, new: bytes) -> None:
    PageFile(folder / "journal.db").replace(old, new)


async def test_a_payload_with_a_flipped_byte_is_read_as_damaged(tmp_path: Path) -> None:
    async with storing(tmp_path) as storage:
        sound = await stored(storage, payload=b'{"amount": 5000000}')
        await stored(storage, payload=b'{"amount": 1000000}')
        await stored(storage, payload=b'{"amount": 2000000}', at=NOW, delayed=True)
    for number in (b"1", b"2"):
        flip(tmp_path, number + b"000000", b"9000000")

    async with storing(tmp_path) as storage:
        first, second = await ready_of(storage)
        [due], _ = await storage.window.promote(NOW, 10, ROOM)

        assert (first.payload, first.damage) == (sound.payload, "")
        assert second.payload == bytes(19)
        assert ["checksum" in each.damage for each in (second, due)] == [True, True]


async def test_a_payload_under_the_key_of_another_row_is_read_as_damaged(tmp_path: Path) -> None:
    async with storing(tmp_path) as storage:
        one, two = await stored(storage, payload=b"[1]"), await stored(storage, payload=b"[2]")
    with closing(sqlite3.connect(tmp_path / "journal.db")) as database, database:
        database.execute("CREATE TEMP TABLE kept AS SELECT * FROM payload")
        for key, other in ((one.key, two.key), (two.key, one.key)):
            database.execute(
                "UPDATE payload SET (body, sum) = (SELECT body, sum FROM kept WHERE key = ?) WHERE key = ?",
                (other, key),
            )

    async with storing(tmp_path) as storage:
        assert ["checksum" in each.damage for each in await ready_of(storage)] == [True, True]


async def test_a_missing_payload_is_read_as_damaged(tmp_path: Path) -> None:
    async with storing(tmp_path) as storage:
        await stored(storage)
    change(tmp_path, "DELETE FROM payload")

    async with storing(tmp_path) as storage:
        [invocation] = await ready_of(storage)

        assert "missing" in invocation.damage


async def test_rows_without_checksums_are_read_as_before(tmp_path: Path) -> None:
    async with storing(tmp_path) as storage:
        waiting = await stored(storage, payload=b"[1]")
        invocation = await stored(storage, 2, payload=b"[2]")
        await settled(storage, invocation, success(invocation, result=b"ended"))
    change(tmp_path, "UPDATE payload SET sum = NULL", "UPDATE result SET sum = NULL")

    async with storing(tmp_path) as storage:
        [invocation_read] = await ready_of(storage)
        record = await record_of(storage, invocation)

        assert (invocation_read.payload, invocation_read.damage) == (waiting.payload, "")
        assert (record.payload, record.result, record.damaged) == (b"[2]", b"ended", frozenset())


async def test_every_way_to_store_an_invocation_stores_its_checksum(tmp_path: Path) -> None:
    async with storing(tmp_path) as storage:
        invocations = [made(storage, payload=b"[%d]" % number) for number in range(4)]
        await storage.journal.append(invocations[0])
        await storage.journal.append(invocations[1], idempotency_key="one")
        await storage.cursors.append([(invocations[2], ""), (invocations[3], "two")])
        for each in invocations:
            await settled(storage, each, success(each, result=b"fine", log=b"said"))
    payloads = rows_of(tmp_path, "SELECT key, body, sum FROM payload ORDER BY key")
    results = rows_of(tmp_path, "SELECT key, body, log, sum FROM result ORDER BY key")

    assert payloads == [(i.key, i.payload, payload_sum(i.key, i.payload)) for i in invocations]
    assert results == [(i.key, b"fine", b"said", result_sum(i.key, b"fine", b"said")) for i in invocations]


@pytest.mark.parametrize(
    ("old", "new", "left", "damaged"),
    [
        (b"it is so", b"it is no", (b"[100]", b"", b""), "result"),
        (b"line one", b"line two", (b"[100]", b"", b""), "result"),
        (b"[100]", b"[900]", (b"", b"it is so", b"line one"), "payload"),
    ],
)
async def test_what_is_damaged_is_left_out_of_its_record(
    tmp_path: Path, old: bytes, new: bytes, left: tuple[bytes, ...], damaged: str
) -> None:
    async with storing(tmp_path) as storage:
        invocation = await stored(storage, payload=b"[100]")
        await settled(storage, invocation, success(invocation, result=b"it is so", log=b"line one"))
    flip(tmp_path, old, new)

    async with storing(tmp_path) as storage:
        record = await record_of(storage, invocation)

        assert (record.payload, record.result, record.log) == left
        assert record.damaged == {damaged}


def test_a_byte_moved_between_result_and_log_is_found() -> None:
    stored_sum = result_sum(7, b"ab", b"cd")

    assert not result_is_damaged(7, b"ab", b"cd", stored_sum)
    assert result_is_damaged(7, b"abc", b"d", stored_sum)
    assert result_is_damaged(7, "ab", b"cd", stored_sum)


def test_a_payload_of_another_size_is_found_without_a_checksum() -> None:
    assert payload_problem(1, 2, b"{}", None) == ""
    assert "size" in payload_problem(1, 3, b"{}", None)
