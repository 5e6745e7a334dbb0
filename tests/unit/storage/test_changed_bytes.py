"""Check of stored data: single bits that changed in any table or index are found.

``python -m tests.unit.storage.test_changed_bytes 400`` prints the shares of found changes, of 400 in each table.
"""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

import pytest

from engine.storage import StorageOptions
from engine.storage.sqlite.checks import find_problems
from engine.storage.sqlite.database import open_storage
from tests.support.damage import change
from tests.support.storages import CANCELLED, ended, failure, made, retried, started, stored

PAGE = 4096
ROWS = 40
FLIPS = 2  #: of each table and index
MOST = 3 * PAGE  #: bytes of a large value, which has overflow pages
TARGET = '{"url": "http://127.0.0.1/"}'


async def filled(folder: Path) -> None:
    """Store rows in all tables, as an engine does."""
    random = Random(1)
    async with open_storage(StorageOptions(directory=folder)) as storage:
        for number in range(ROWS):
            trace = f"00-{random.randbytes(16).hex()}-01" if number % 2 else ""
            fields: dict[str, Any] = {"payload": random.randbytes(200 + number * 20), "trace": trace, "source": "API"}
            await stored(storage, **fields)
            await stored(storage, delayed=True, **fields)
            await stored(storage, ordering_key=f"key-{number % 50}", trigger_id=random.randbytes(16).hex(), **fields)
            invocation = await ended(storage, **fields)
            await storage.journal.append(
                made(storage, 2, cause=invocation.key, **fields), idempotency_key=f"key-{number}"
            )
            again = await started(storage, **fields)
            log = random.randbytes(random.choice((100, MOST)))
            outcome = failure(again, log=log, instance=random.randbytes(16).hex())
            await retried(storage, again, outcome)
            await started(storage, **fields)
            await storage.journal.end_all([(await stored(storage, **fields)).key], CANCELLED)
        await storage.journal._writer.call(lambda db: fill_others(db, random))


def fill_others(db: sqlite3.Connection, random: Random) -> None:
    for number in range(ROWS):
        text, large = random.randbytes(20).hex(), random.randbytes(random.choice((40, 400, MOST)))
        rows: dict[str, tuple[object, ...]] = {
            "meta (name, value)": (text, number),
            "owed (key, function_id, condition, destination, param, due)": (number, 1, "success", "W", TARGET, 1.5),
            "function (function_id, project, package, name)": (number, "project1", "default", text),
            "function_version (function_id, version, body)": (number, "latest", large),
            "async_settings (function_id, version, body)": (number, "latest", large),
            "resource (kind, owner, id, body)": ("trigger", f"function:{number}", text, large),
            "cursor (trigger_id, name, position)": (text, "0", large),
            "plugin_row (plugin, name, key, value)": ("lts", "lines", text, large),
            "status_target (target_id, function_id, version, enabled, body)": (number, 1, "latest", 1, text),
            "status_log (target_id, state, at, code, message, key)": (number, 3, number / 7, 0, text, number),
        }
        for table, row in rows.items():
            db.execute(f"INSERT INTO {table} VALUES ({','.join('?' * len(row))})", row)
    db.execute("UPDATE owed SET tries = tries + 1, error = 'refused' WHERE owed_id % 2")


def places(file: Path) -> dict[str, list[int]]:
    """Return the positions of all bytes that a table or index uses. Others never matter to a read."""
    by_table: dict[str, list[int]] = {}
    content = file.read_bytes()

    def number_at(position: int) -> int:
        return int.from_bytes(content[position : position + 2], "big")

    with closing(sqlite3.connect(f"{file.as_uri()}?immutable=1", uri=True)) as database:
        for name, number, kind, unused in database.execute("SELECT name, pageno, pagetype, unused FROM dbstat"):
            at, begin = (number - 1) * PAGE, 100 if number == 1 else 0
            if kind == "overflow":
                used = {*range(PAGE - unused)}
            else:
                free, cells, first = (number_at(at + begin + offset) for offset in (1, 3, 5))
                header = 8 if content[at + begin] > 8 else 12
                used = {*range(begin, begin + header + 2 * cells), *range(first, PAGE)}
                while free:
                    used -= {*range(free + 4, free + number_at(at + free + 2))}
                    free = number_at(at + free)
            by_table.setdefault(name, []).extend(at + offset for offset in sorted(used))
    return by_table


def flip(file: Path, position: int) -> None:
    """Change one bit of a file. A second call gives it its value back."""
    with file.open("r+b") as opened:
        opened.seek(position)
        [byte] = opened.read(1)
        opened.seek(position)
        opened.write(bytes([byte ^ 1 << position % 8]))


def shares(folder: Path, flips: int) -> Iterator[tuple[str, int, list[int]]]:
    """Yield each table or index, its number of used bytes, and the positions of changed bits that were not found."""
    random, file = Random(7), folder / "journal.db"
    for name, used in places(file).items():
        missed = []
        for position in random.choices(used, k=flips):
            flip(file, position)
            missed += [] if any(find_problems(folder)) else [position]
            flip(file, position)
        yield name, len(used), missed


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("filled")
    asyncio.run(filled(folder))
    return folder


def test_a_changed_bit_of_any_table_or_index_is_found(folder: Path) -> None:
    assert not [*find_problems(folder)]
    missed = {name: positions for name, _, positions in shares(folder, FLIPS)}

    assert missed.keys() >= {"invocation", "payload", "result", "attempt", "delayed", "plugin_row", "status_log"}
    for name, positions in missed.items():
        # Comments of the schema and numbers of ids that were in use are not checked.
        assert not positions or name in ("sqlite_schema", "sqlite_sequence"), (name, positions)


def test_a_value_of_another_type_is_a_problem_and_no_error(folder: Path, tmp_path: Path) -> None:
    shutil.copy(folder / "journal.db", tmp_path)
    change(tmp_path, "UPDATE invocation SET function_id = 'text' WHERE key IN (SELECT min(key) FROM invocation)")

    assert "its tallies cannot be checked" in " ".join(problem.problem for problem in find_problems(tmp_path))


def main(flips: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        asyncio.run(filled(Path(name)))
        bytes_of, found = 0, 0.0
        for table, size, missed in shares(Path(name), flips):
            print(f"{table:24} {size:10,} bytes {flips - len(missed):5} of {flips}", missed[:5], flush=True)
            bytes_of, found = bytes_of + size, found + size * (1 - len(missed) / flips)
        print(f"all, by bytes: {found / bytes_of:.2%}")


if __name__ == "__main__":
    main(int(sys.argv[1]))
