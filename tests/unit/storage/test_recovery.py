"""Recovery of damaged journals: every acknowledged invocation is in the fresh journal or listed, and none twice."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

import msgspec
import pytest
from msgspec import Struct

from engine.cli.commands import run
from engine.errors import DataDirectoryUnusable
from engine.maintenance.backup_folder import Manifest
from engine.model import AsyncSettings, CodePackage, Function, State
from engine.protocols import Settlement, StoredResource
from engine.storage.data_directory import locked
from engine.storage.sqlite.checks import find_problems
from engine.storage.sqlite.damage import MARK
from engine.storage.sqlite.journal_check import check_journal
from engine.storage.sqlite.recovery import DamagedJournal, Loss, Recovered, put_in_place
from tests.acceptance.upgrade import archive
from tests.support.builders import a_function
from tests.support.damage import change, rows_of, storing
from tests.support.full_disk import full_disk
from tests.support.pages import PageFile
from tests.support.storages import NOW, SINK, made, success

HEADER, FRAME = 32, 24  #: bytes before the log, and before each page in it
PAGE = 4096
FUNCTIONS = 3
SIZES = (10, 200, 700, 6000)  #: of events and results; the largest have overflow pages
#: Kinds of pages that the quick trials damage, those whose loss is the most difficult to make good.
DIFFICULT = ["header", "sqlite_schema leaf", "map", "free", "invocation root", "invocation leaf", "payload overflow"]
DIFFICULT += ["ready root", "result leaf", "owed root", "idempotency root", "resource root", "tally root"]


class Original(Struct):
    """Data directory of a stopped engine, with what it acknowledged."""

    folder: Path
    states: dict[int, int]  #: of all invocations, by key
    deliveries: set[tuple[Any, ...]]
    pages: dict[str, list[int]]  #: by kind, such as "payload leaf"


def function(number: int) -> Function:
    return a_function(
        function_id=number,
        project="p",
        name=f"f{number}",
        code=CodePackage(sha256=f"{number}" * 64, digest="", size=1),
        description="x" * 900,
    )


async def fill(folder: Path, number: int) -> None:
    """Store invocations in all states, and what belongs to them. A quarter was pruned, and left stale rows."""
    async with storing(folder) as storage:
        for _ in range(FUNCTIONS):
            function_id = await storage.catalog.new_function_id()
            await storage.catalog.put_functions([function(function_id)])
            await storage.catalog.put_settings(function_id, "latest", AsyncSettings())
        for n in range(number // 8):
            body = b'{"n":"%060d"}' % n
            await storage.resources.put(StoredResource(kind="alias", owner="function:1", id=f"a{n}", body=body))
        for n in range(number // 80):
            rows = {f"{n:04}-{each}": b'"%0300d"' % n for each in range(20)}
            await storage.store("dis").write("records", rows)
        events = [
            made(storage, 1 + n % FUNCTIONS, at=NOW + n, payload=b"%0*d" % (SIZES[n % 4], n), delayed=n % 5 == 4)
            for n in range(number)
        ]
        keys = [f"key {n}" * (n % 2) for n in range(number)]
        await asyncio.gather(
            *(
                storage.journal.append(invocation, idempotency_key=key)
                for invocation, key in zip(events, keys, strict=True)
            )
        )
        for n, invocation in enumerate(events[: number // 2 + 20]):
            storage.journal.start(invocation, NOW)
            outcome = success(invocation, result=b"%0*d" % (SIZES[-1 - n % 4], n), log=b"log")
            if n < number // 2:
                ended = Settlement(invocation=invocation, state=State.SUCCESS, outcome=outcome, deliver_to=SINK)
                storage.journal.settle(ended)
        pending, _ = await storage.outbox.due(NOW + 1e6, number, number)
        for owed in pending[: number // 3]:
            await storage.outbox.delivered(owed)
        more = True
        while more:
            more = (await storage.records.purge(NOW + number, age=1e9, rows=number // 4, size=1 << 40)).more


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Original:
    return described(tmp_path_factory.mktemp("original"), 240)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Original:
    """Return a journal whose large tables have inner pages besides their roots."""
    return described(tmp_path_factory.mktemp("large"), 1600)


def described(folder: Path, number: int) -> Original:
    asyncio.run(fill(folder, number))
    return Original(
        folder=folder,
        states=dict(rows_of(folder, "SELECT key, state FROM invocation")),
        deliveries={*rows_of(folder, "SELECT owed_id, key FROM owed")},
        pages=kinds_of_pages(folder),
    )


def kinds_of_pages(folder: Path) -> dict[str, list[int]]:
    """Return the pages of a database by table or index and the place in its tree, as SQLite's pointer map tells."""
    content = (folder / "journal.db").read_bytes()
    owners = {1: "sqlite_schema"}
    owners |= dict(rows_of(folder, "SELECT rootpage, name FROM sqlite_schema WHERE rootpage > 0"))
    kinds, parents = {"header": [1], "map": list[int]()}, dict[int, tuple[int, int]]()
    for page in range(2, len(content) // PAGE + 1):
        of_map, entry = divmod(page - 2, PAGE // 5 + 1)
        at = (1 + of_map * (PAGE // 5 + 1)) * PAGE + 5 * entry - 5
        if entry:
            parents[page] = content[at], int.from_bytes(content[at + 1 : at + 5], "big")
        else:
            kinds["map"].append(page)
    for page, (kind, _) in parents.items():
        top = page
        while top not in owners and parents[top][1]:
            top = parents[top][1]
        is_leaf = content[(page - 1) * PAGE] in (10, 13)
        place = {1: "root", 2: "free", 5: "leaf" if is_leaf else "inner"}.get(kind, "overflow")
        kinds.setdefault(f"{owners[top]} {place}" if kind != 2 else place, []).append(page)
    return kinds


def damage(folder: Path, page: int, content: bytes) -> None:
    with (folder / "journal.db").open("r+b") as file:
        file.seek((page - 1) * PAGE)
        file.write(content)


def copied(original: Original, folder: Path) -> Path:
    return Path(shutil.copytree(original.folder, folder / "data"))


def recovered(folder: Path, request_id: str = "") -> tuple[Recovered, set[str]]:
    """Return what a recovery has done, and the ids that it listed as lost."""
    losses = list[Loss]()
    done = DamagedJournal(folder, on_loss=losses.append, request_id=request_id).recover()
    return done, {loss.id for loss in losses}


def violations(original: Original, folder: Path, lost: set[str]) -> list[str]:
    """Return the promises that a recovery has broken."""
    identity, broken = DamagedJournal(folder).identity, list[str]()
    states = dict(rows_of(folder, "SELECT key, state FROM invocation"))
    for key, state in original.states.items():
        if key not in states:
            if identity.request_id(key) not in lost:
                broken.append(f"{key} in state {state} is neither there nor listed")
        elif states[key] != (0 if state == 2 else state):
            broken.append(f"{key} has changed from state {state} to {states[key]}")
    broken += [f"{key} is there again" for key in states.keys() - original.states.keys()]
    deliveries = {*rows_of(folder, "SELECT owed_id, key FROM owed")}
    broken += [f"delivery {delivery} is made again" for delivery in deliveries - original.deliveries]
    for delivery, key in original.deliveries - deliveries:
        if f"{identity.request_id(key)}, {delivery}" not in lost:
            broken.append(f"delivery {delivery} is neither there nor listed")
    [[last]] = rows_of(folder, "SELECT seq FROM sqlite_sequence WHERE name = 'function'")
    broken += [f"function ids begin again at {last}"] * (last < FUNCTIONS)
    allowed = {"payload"} if lost else set()
    broken += [problem.problem for problem in find_problems(folder) if problem.part not in allowed]
    return broken


def request_id_of(original: Original) -> str:
    return DamagedJournal(original.folder).identity.request_id(next(iter(original.states)))


def try_page(original: Original, folder: Path, page: int, content: bytes) -> tuple[list[str], set[str]]:
    """Damage one page of a copy and recover it. Return the broken promises, and the ids that are listed as lost."""
    data = copied(original, folder)
    damage(data, page, content)
    _, lost = recovered(data, request_id_of(original) if page in original.pages["meta root"] else "")
    broken = violations(original, data, lost)
    shutil.rmtree(data)
    return broken, lost


@pytest.mark.parametrize("kind", DIFFICULT)
def test_a_bad_page_loses_no_invocation_and_brings_none_back(kind: str, original: Original, tmp_path: Path) -> None:
    page = original.pages[kind][len(original.pages[kind]) // 2]
    assert try_page(original, tmp_path, page, b"\xee" * (PAGE if kind == "header" else 32))[0] == []


@pytest.mark.long
@pytest.mark.parametrize("how", ["beginning", "zeros", "noise"])
def test_any_bad_page_loses_no_invocation_and_brings_none_back(how: str, large: Original, tmp_path: Path) -> None:
    random = Random(how)
    assert {"payload inner", "plugin_row inner", "result overflow", "sqlite_schema leaf"} <= large.pages.keys()
    broken = dict[str, list[str]]()
    for kind, pages in large.pages.items():
        content = {"beginning": b"\xee" * 132, "zeros": bytes(PAGE), "noise": random.randbytes(PAGE)}[how]
        broken[kind], lost = try_page(large, tmp_path, random.choice(pages), content)
        is_inner = kind in ("payload inner", "invocation root", "payload root", "result root", "owed root")
        broken[kind] += [f"{len(lost)} rows are lost behind an inner page"] * bool(is_inner and lost)
    assert len(broken) > 50
    assert {kind: problems for kind, problems in broken.items() if problems} == {}


async def test_a_waiting_invocation_runs_again_although_its_row_is_lost(original: Original, tmp_path: Path) -> None:
    data = copied(original, tmp_path)
    [row] = rows_of(data, "SELECT key, function_id, rank FROM invocation WHERE state = 0 ORDER BY key LIMIT 1 OFFSET 9")
    [[event]] = rows_of(data, "SELECT body FROM payload WHERE key = ?", row[0])
    file = PageFile(data / "journal.db")
    file.smash(file.leaf("invocation", row[0]))
    recovered(data)
    async with storing(data) as storage:
        page = await storage.window.ready(row[1], (float("-inf"), 0), 1000, 1 << 30)
        [again] = [invocation for invocation in page.invocations if invocation.key == row[0]]
        assert (again.payload, again.rank, again.version, again.attempt) == (event, row[2], "latest", 1)


async def test_a_running_invocation_waits_again_without_a_counted_crash(original: Original, tmp_path: Path) -> None:
    data = copied(original, tmp_path)
    running = [key for key, state in original.states.items() if state == 2]
    done, lost = recovered(data)
    assert (done.running, lost) == (len(running), set())
    rows = rows_of(data, f"SELECT state, deaths, start_deaths FROM invocation WHERE key IN ({str(running)[1:-1]})")
    assert {*rows} == {(0, 0, 0)}


def test_held_invocations_go_on_behind_a_lost_one_of_their_key(original: Original, tmp_path: Path) -> None:
    data = copied(original, tmp_path)
    first, *held = sorted(key for key, state in original.states.items() if state == 0)[:3]
    with closing(sqlite3.connect(data / "journal.db")) as database, database:
        for key in (first, *held):
            state = "function_id = 1, state = -1 + (key = ?2), ordering_key = 'k', sum = NULL"
            database.execute(f"UPDATE invocation SET {state} WHERE key = ?1", (key, first))
        database.execute("DELETE FROM invocation WHERE key = ?", (first,))
    recovered(data)
    assert [rows_of(data, "SELECT state FROM invocation WHERE key = ?", key) for key in held] == [[(1,)], [(-1,)]]


def test_a_cursor_is_listed_and_removed_with_its_lost_trigger(original: Original, tmp_path: Path) -> None:
    data = copied(original, tmp_path)
    change(data, "INSERT INTO cursor (trigger_id, name, position) VALUES ('lost', 'shard', x'00')")
    _, lost = recovered(data)
    assert (lost, rows_of(data, "SELECT * FROM cursor"), list(find_problems(data))) == ({"lost, shard"}, [], [])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files to another user")
def test_a_recovery_by_root_leaves_the_journal_to_the_user_of_the_engine(original: Original, tmp_path: Path) -> None:
    data = copied(original, tmp_path)
    os.chown(data / "journal.db", 12345, 12346)
    recovered(data)
    assert [(status.st_uid, status.st_gid) for status in [(data / "journal.db").stat()]] == [(12345, 12346)]


@pytest.mark.parametrize("part", ["header", "page", "number of the page", "two frames"])
def test_commits_behind_a_damaged_frame_of_the_log_are_kept(part: str, tmp_path: Path) -> None:
    data = tmp_path / "data"
    at = {"header": -HEADER, "page": FRAME + 100, "number of the page": 1, "two frames": 8}[part]

    async def write() -> dict[int, int]:
        async with storing(tmp_path) as storage:
            for n in range(40):
                await storage.journal.append(made(storage, 1, at=NOW + n, payload=b"%0300d" % n))
            data.mkdir()
            for name in ("journal.db", "journal.db-wal"):
                shutil.copy(tmp_path / name, data)
        return dict(rows_of(tmp_path, "SELECT key, state FROM invocation"))

    states = asyncio.run(write())
    log = bytearray((data / "journal.db-wal").read_bytes())
    frames = (len(log) - HEADER) // (FRAME + PAGE)
    position = HEADER + (FRAME + PAGE) * (frames // 2 if part != "header" else 0) + at
    length = FRAME + PAGE if part == "two frames" else 8
    log[position : position + length] = Random(1).randbytes(length)
    (data / "journal.db-wal").write_bytes(log)

    done, lost = recovered(data)
    identity = DamagedJournal(data).identity
    kept = {key for [key] in rows_of(data, "SELECT key FROM invocation")}
    assert {key for key in states if key not in kept and identity.request_id(key) not in lost} == set()
    assert len(kept) == 40 or part in ("page", "two frames")
    assert "damaged" in done.log_problem
    assert (Path(f"{done.damaged}-wal")).read_bytes() == log


@pytest.mark.parametrize("name", archive.names())
def test_a_damaged_journal_of_an_earlier_engine_is_recovered(name: str, tmp_path: Path) -> None:
    data, _ = archive.unpack(name, tmp_path)
    shutil.copytree(data, tmp_path / "whole")
    tables = ("function_version", "resource", "cursor", "plugin_row", "payload", "result", "attempt", "idempotency")
    whole = {table: rows_of(tmp_path / "whole", f"SELECT count(*) FROM {table}") for table in (*tables, "invocation")}
    ids = rows_of(tmp_path / "whole", "SELECT * FROM sqlite_sequence ORDER BY name")
    for file in ("journal.db", "journal.db-wal"):  # the header of the database, in both
        content = (data / file).read_bytes()
        (data / file).write_bytes(content.replace(b"SQLite format 3", b"SQLite format 0"))

    assert recovered(data)[1] == set()
    assert {table: rows_of(data, f"SELECT count(*) FROM {table}") for table in whole} == whole
    assert rows_of(data, "SELECT * FROM sqlite_sequence ORDER BY name") == ids
    assert list(find_problems(data)) == []

    async def open_it() -> None:
        async with storing(data) as storage:
            await storage.journal.recover()

    asyncio.run(open_it())


def test_the_number_of_a_journal_is_found_by_its_long_logs(original: Original, tmp_path: Path) -> None:
    data, request_id = copied(original, tmp_path), request_id_of(original)
    damage(data, original.pages["meta root"][0], bytes(PAGE))
    with pytest.raises(DataDirectoryUnusable, match="--request-id"):
        recovered(data)
    (data / "logs" / "01").mkdir(parents=True)
    (data / "logs" / "01" / request_id).touch()
    recovered(data)
    assert rows_of(data, "SELECT * FROM meta WHERE name = 'node'") == rows_of(
        original.folder, "SELECT * FROM meta WHERE name = 'node'"
    )


def _newer(data: Path) -> None:
    change(data, "PRAGMA user_version = 1000")


def _foreign(data: Path) -> None:
    change(data, "PRAGMA application_id = 7")


def _text(data: Path) -> None:
    (data / "journal.db").write_bytes(b"no database " * 1000)


@pytest.mark.parametrize(
    ("change", "said"), [(_newer, "newer functiond"), (_foreign, "another program"), (_text, "no tables of a journal")]
)
def test_other_databases_are_refused(
    change: Callable[[Path], None], said: str, original: Original, tmp_path: Path
) -> None:
    data = copied(original, tmp_path)
    change(data)
    before = {path: path.read_bytes() for path in data.iterdir() if path.is_file()}
    with pytest.raises(DataDirectoryUnusable, match=said):
        recovered(data)
    assert {path: path.read_bytes() for path in data.iterdir() if path.is_file()} == before


def test_a_full_disk_changes_nothing(original: Original, tmp_path: Path) -> None:
    data = copied(original, tmp_path)
    before = {path: path.read_bytes() for path in data.iterdir() if path.is_file()}
    with full_disk(), pytest.raises(DataDirectoryUnusable, match="nothing was changed"):
        recovered(data)
    assert {path: path.read_bytes() for path in data.iterdir() if path.is_file()} == before


def test_an_engine_waits_for_the_end_of_an_interrupted_recovery(original: Original, tmp_path: Path) -> None:
    data = copied(original, tmp_path)
    with (
        patch.object(Path, "rename", autospec=True, side_effect=_stop_at("journal.db")),
        pytest.raises(KeyboardInterrupt),
    ):
        recovered(data)
    assert not (data / "journal.db").exists()
    with pytest.raises(DataDirectoryUnusable, match="functiond recover"):
        check_journal(data / "journal.db", None)
    (data / MARK).write_text('{"problem": "a page is damaged"}')
    assert put_in_place(data).name.startswith("journal.db.damaged-")
    check_journal(data / "journal.db", None)  # the mark is gone
    assert dict(rows_of(data, "SELECT key, 1 FROM invocation")).keys() == original.states.keys()


def _stop_at(name: str) -> Callable[[Path, Path], object]:
    rename = Path.rename

    def renamed(path: Path, target: Path) -> object:
        if Path(target).name == name:
            raise KeyboardInterrupt
        return rename(path, target)

    return renamed


def recover_command(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str]:
    code = run(["recover", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out + captured.err


def test_the_newest_whole_backup_is_offered_first(
    original: Original, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, name = copied(original, tmp_path), DamagedJournal(original.folder).identity.name
    for day in (1, 2, 3):
        backup = tmp_path / "backups" / f"day{day}"
        backup.mkdir(parents=True)
        with closing(sqlite3.connect(original.folder / "journal.db")) as whole:
            whole.execute("VACUUM INTO ?", (str(backup / "journal.db"),))
        change(backup, "DELETE FROM function_version")  # whose packages no test has made
        manifest = Manifest(version="1", journal=name, made_at=f"2026-01-0{day}T00:00:00", packages=())
        (backup / "backup.json").write_bytes(msgspec.json.encode(manifest))
    damage(tmp_path / "backups" / "day3", 5, bytes(PAGE))
    damage(data, original.pages["invocation leaf"][1], bytes(PAGE))

    code, said = recover_command(capsys, data, "--backups", tmp_path / "backups")
    assert (code, "day2" in said, "functiond restore" in said, "--yes" in said) == (2, True, True, True)
    assert not list(data.glob("*damaged*"))
    code, said = recover_command(capsys, data, "--backups", tmp_path / "backups", "--yes")
    assert (code, "invocation (WAIT)" in said or "invocation (ended)" in said) == (1, True)
    assert "send its event again" in said or "its record is lost" in said
    assert "journal.db.damaged-" in said


def test_a_directory_in_use_and_one_without_a_journal_are_refused(
    original: Original, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = copied(original, tmp_path)
    with locked(data):
        code, said = recover_command(capsys, data, "--yes")
    assert (code, "in use by process" in said) == (2, True)
    code, said = recover_command(capsys, tmp_path, "--yes")
    assert (code, "has no journal.db" in said, [path.name for path in tmp_path.iterdir()]) == (2, True, ["data"])
    code, said = recover_command(capsys, data, "--yes", "--json")
    assert (code, json.loads(said)["losses"]) == (0, [])
    _newer(data)
    code, said = recover_command(capsys, data, "--yes")
    assert (code, "newer functiond" in said) == (2, True)  # 1 tells of lost rows


def test_rows_whose_checksum_does_not_hold_are_not_taken(original: Original, tmp_path: Path) -> None:
    data = copied(original, tmp_path)
    key = min(key for key, state in original.states.items() if state == 0)
    change(
        data,
        f"UPDATE invocation SET source = 'DIS' WHERE key = {key}",
        "UPDATE function SET name = 'another' WHERE function_id = 1",
    )
    identity = DamagedJournal(data).identity
    _, lost = recovered(data)

    assert {"1", identity.request_id(key)} <= lost
    assert rows_of(data, "SELECT source FROM invocation WHERE key = ?", key) != [("DIS",)]
    assert rows_of(data, "SELECT name FROM function WHERE function_id = 1") != [("another",)]
