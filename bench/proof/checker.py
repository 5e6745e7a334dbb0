"""Check of a data directory after a crash: recovery by the engine's own code, then each promise and each invariant."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import sqlite3
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from bench.proof import promises as p
from engine.code.store import CodeStore
from engine.model import Function
from engine.model.identity import Identity
from engine.storage import StorageOptions, open_storage
from engine.storage.data_directory import locked
from engine.storage.sqlite.checksums import changed_rows
from engine.storage.sqlite.rows import POISONED
from plugins.dis.source import ShardCheckpoint
from plugins.dis.streams import Row, log_of
from plugins.lts.lines import Row as LineRow

P = TypeVar("P", bound=p.Promise)
_TOKEN = re.compile(rb"token-[0-9-]+-x*")
#: Rows and bytes of waiting and ended invocations, counted from the rows. The table ``tally`` must have the same.
REAL_TALLY = """
SELECT function_id, count(*), sum(size) FROM invocation WHERE state < 3 GROUP BY function_id
UNION ALL
SELECT 0, count(*), coalesce(sum(size + coalesce(length(r.body) + length(r.log), 0)), 0)
    + (SELECT coalesce(sum(length(log)), 0) FROM attempt) AS bytes
FROM invocation LEFT JOIN result r USING (key) WHERE state >= 3 HAVING count(*) > 0 OR bytes > 0
"""
TALLY = "SELECT function_id, rows, size FROM tally WHERE function_id >= 0 AND (rows <> 0 OR size <> 0)"
#: Rows that must not exist.
WRONG = {
    "invocations without a payload": "SELECT key FROM invocation WHERE key NOT IN (SELECT key FROM payload)",
    "payloads without an invocation": "SELECT key FROM payload WHERE key NOT IN (SELECT key FROM invocation)",
    "results without an invocation": "SELECT key FROM result WHERE key NOT IN (SELECT key FROM invocation)",
    "deliveries without an invocation": "SELECT key FROM owed WHERE key NOT IN (SELECT key FROM invocation)",
    "payloads of another size": "SELECT key FROM invocation i JOIN payload p USING (key) WHERE length(p.body) <> size",
    "versions without a function": (
        "SELECT function_id FROM function_version WHERE function_id NOT IN (SELECT function_id FROM function)"
    ),
    "functions without a version": (
        "SELECT function_id FROM function WHERE function_id NOT IN (SELECT function_id FROM function_version)"
    ),
    "cursors without a trigger": (
        "SELECT trigger_id FROM cursor WHERE trigger_id NOT IN (SELECT id FROM resource WHERE kind = 'trigger')"
    ),
}


def recover(directory: Path) -> str:
    """Open a data directory as the start of an engine does, recover its work, and close it.

    Return the violation if the engine would not start, or an empty text.
    """
    try:
        asyncio.run(_recover(directory))
    except Exception as error:  # any error at all would keep an engine from starting
        return f"the directory cannot be recovered: {error!r}"
    return ""


async def _recover(directory: Path) -> None:
    with locked(directory):
        codes = CodeStore(directory / "code")
        async with open_storage(StorageOptions(directory=directory), packages_of=await codes.mark()) as storage:
            functions, _ = await storage.catalog.load()
            for kind in ("trigger", "alias", "dependency"):
                await storage.resources.load(kind)
            await storage.journal.recover()
            codes.belong_to(storage.identity.name)
            await codes.sweep({name for function in functions for name in function.packages})


def check(directory: Path, promises: Sequence[p.Any]) -> list[str]:
    """Return the violations in a data directory that an engine has recovered and closed."""
    try:
        with closing(sqlite3.connect(f"{(directory / 'journal.db').as_uri()}?mode=ro", uri=True)) as database:
            return list(_Check(directory, database, promises).violations())
    except (sqlite3.Error, OSError, msgspec.MsgspecError) as error:
        return [f"the directory cannot be read: {error!r}"]


class _Check:
    def __init__(self, directory: Path, database: sqlite3.Connection, promises: Sequence[p.Any]) -> None:
        self._directory, self._database = directory, database
        self._promises = promises
        self._functions = {
            (function.name, function.version): function
            for [body] in self._rows("SELECT body FROM function_version")
            for function in [msgspec.json.decode(body, type=Function)]
        }
        self._names = dict(self._rows("SELECT function_id, name FROM function"))
        [node] = next(iter(self._rows("SELECT value FROM meta WHERE name = 'node'")), [0])
        self._identity = Identity(node)

    def violations(self) -> Iterator[str]:
        checks: tuple[Callable[[], Iterator[str]], ...] = (
            self._integrity,
            self._invocations,
            self._deliveries,
            self._records,
            self._cursors,
            self._lines_and_messages,
            self._code,
        )
        for part in checks:
            yield from part()

    def _rows(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        return self._database.execute(sql, values).fetchall()

    def _of(self, kind: type[P]) -> list[P]:
        return [promise for promise in self._promises if isinstance(promise, kind)]

    # --- tables ---------------------------------------------------------------------------------------------

    def _integrity(self) -> Iterator[str]:
        for [problem] in self._rows("PRAGMA integrity_check"):
            if problem != "ok":
                yield f"integrity: {problem}"
        for table, _, key in changed_rows(self._database):
            yield f"the row {key} of {table} differs from its checksum"
        for what, sql in WRONG.items():
            if wrong := [row[0] for row in self._rows(sql)]:
                yield f"{what}: {wrong[:5]}"
        stored, real = sorted(self._rows(TALLY)), sorted(self._rows(REAL_TALLY))
        if stored != real:
            yield f"the tally is {stored}, but the rows are {real}"
        if self._rows(f"SELECT key FROM invocation WHERE state = 2 AND NOT {POISONED}"):
            yield "invocations are still running after the recovery"

    def _invocations(self) -> Iterator[str]:
        rows = self._rows("SELECT key, function_id, body FROM invocation JOIN payload USING (key)")
        stored = {key: (self._names.get(function_id, ""), bytes(body)) for key, function_id, body in rows}
        rows = self._rows("SELECT function_id, token, key FROM idempotency")
        keyed = {(self._names.get(function_id, ""), token): key for function_id, token, key in rows}
        for accepted in self._of(p.Accepted):
            key = self._identity.key_of(accepted.request_id)
            present = stored.get(key) if key is not None else None
            if present is None:
                yield f"invocation {accepted.request_id} of {accepted.function} is lost"
            elif present != (accepted.function, accepted.payload.encode()):
                yield f"invocation {accepted.request_id} of {accepted.function} has another function or payload"
            if accepted.key and keyed.get((accepted.function, accepted.key)) != key:
                yield f"the idempotency key {accepted.key!r} of {accepted.request_id} is lost"

    def _deliveries(self) -> Iterator[str]:
        """Check that the success of each invocation of ``chain`` is delivered to ``sink`` or owed."""
        sql = "SELECT key FROM invocation JOIN function USING (function_id) WHERE name = 'chain' AND state = 3"
        owed = {key for [key] in self._rows("SELECT key FROM owed")}
        received = {_origin(body) for body in self._payloads_of("sink")}
        for [key] in self._rows(sql):
            if key not in owed and self._identity.request_id(key) not in received:
                yield f"the outcome of {self._identity.request_id(key)} is neither delivered nor owed"

    def _payloads_of(self, function: str) -> list[bytes]:
        sql = "SELECT body FROM payload JOIN invocation USING (key) JOIN function USING (function_id) WHERE name = ?"
        return [bytes(body) for [body] in self._rows(sql, function)]

    # --- tables of plugins ----------------------------------------------------------------------------------

    def _stored_records(self) -> dict[tuple[int, int], str]:
        """Return all records of the stream, by partition and sequence number."""
        sql = "SELECT value FROM plugin_row WHERE plugin = 'dis' AND name = 'streams'"
        streams = [json.loads(value)["stream_id"] for [value] in self._rows(sql)]
        records = {}
        for stream in streams:
            logs = {log_of(stream, number): number for number in range(8)}
            for key, value in self._rows("SELECT key, value FROM plugin_row WHERE plugin = 'dis' AND name = 'records'"):
                log, _, sequence = key.rpartition("/")
                if log in logs:
                    records[logs[log], int(sequence)] = msgspec.msgpack.decode(value, type=Row).data.decode()
        return records

    def _records(self) -> Iterator[str]:
        stored = self._stored_records()
        for put in self._of(p.Put):
            data = stored.get((put.partition, put.sequence))
            if data != put.data:
                problem = "is lost" if data is None else "has other data"
                yield f"record {put.sequence} of partition {put.partition} {problem}"

    def _cursors(self) -> Iterator[str]:
        """Check that each partition's records up to its cursor, and no others, are in one invocation each."""
        after: dict[int, int] = {}
        for name, position in self._rows("SELECT name, position FROM cursor"):
            checkpoint = msgspec.json.decode(position, type=ShardCheckpoint)
            after[_number(name)] = int(checkpoint.after) if checkpoint.after else -1
        read: dict[int, list[int]] = {}
        for body in self._payloads_of("reader"):
            event = json.loads(body)
            numbers = [int(record["sequence_number"]) for record in event["Message"]["records"]]
            read.setdefault(_number(event["ShardID"]), []).extend(numbers)
        stored = self._stored_records()
        for partition in after.keys() | read.keys():
            last, numbers = after.get(partition, -1), sorted(read.get(partition, ()))
            expected = sorted(number for owner, number in stored if owner == partition and number <= last)
            if numbers != expected or (last >= 0 and (partition, last) not in stored):
                yield f"the cursor of partition {partition} is {last}, but the invocations have {_short(numbers)}"

    def _lines_and_messages(self) -> Iterator[str]:
        sql = "SELECT value FROM plugin_row WHERE plugin = 'lts' AND name = 'lines'"
        lines = [item for [value] in self._rows(sql) for item in msgspec.msgpack.decode(value, type=LineRow).items]
        if self._of(p.Line):
            yield from _absent("line", {line.text for line in self._of(p.Line)}, lines)
        texts: dict[str, set[str]] = {}
        for published in self._of(p.Published):
            texts.setdefault(published.function, set()).add(published.text)
        for function, expected in texts.items():
            yield from _absent("message", expected, self._payloads_of(function))

    # --- code -----------------------------------------------------------------------------------------------

    def _code(self) -> Iterator[str]:
        for function in self._functions.values():
            yield from _check_package(self._directory / "code", function)
        for uploaded in self._of(p.Uploaded):
            present = self._functions.get((uploaded.function, "latest"))
            if present is None:
                yield f"the function {uploaded.function} is lost"
                continue
            folder = self._directory / "code" / present.code.sha256
            files = [file for file in folder.rglob("*") if file.is_file() and file.parent.name != "__pycache__"]
            stored = {str(file.relative_to(folder)): file.read_text() for file in files}
            if stored != uploaded.files:
                yield f"the function {uploaded.function} has other code: {sorted(stored)}"
        names = {name for name, _ in self._functions}
        for gone in self._of(p.Deleted):
            if gone.function in names:
                yield f"the deleted function {gone.function} is back"


def _check_package(code: Path, function: Function) -> Iterator[str]:
    """Check that folder and package of a function's code exist, and that the package has its digest."""
    package, name = function.code, f"{function.name}:{function.version}"
    if not (code / package.sha256).is_dir():
        yield f"the code of {name} is lost"
    try:
        content = (code / f"{package.sha256}.package").read_bytes()
    except OSError:
        yield f"the package of {name} is lost"
        return
    if hashlib.sha512(content).hexdigest() != package.digest:
        yield f"the package of {name} has another digest"


def _absent(kind: str, expected: Collection[str], contents: Collection[bytes]) -> Iterator[str]:
    tokens = {token.decode() for content in contents for token in _TOKEN.findall(content)}
    for text in sorted(set(expected) - tokens):
        yield f"the {kind} {text[:60]} is lost"


def _origin(body: bytes) -> str:
    """Return the request id whose outcome an event of ``sink`` contains."""
    return str(json.loads(body).get("request_context", {}).get("request_id", ""))


def _number(partition: str) -> int:
    return int(partition.rpartition("-")[2])


def _short(numbers: Sequence[int]) -> str:
    return f"{len(numbers)} records up to {numbers[-1]}" if numbers else "none"
