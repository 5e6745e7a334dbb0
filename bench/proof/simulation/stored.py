"""Storage of a simulated process on a real database, whose files survive the process as a crash leaves them."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from bench.proof.simulation.comparison import differences
from bench.proof.simulation.connections import Disk, Writing, inline
from bench.proof.simulation.paired import Capture, Pair
from bench.proof.simulation.storage import FAILURE
from bench.proof.simulation.witness import Witness
from bench.proof.simulation.world import World
from engine.errors import DataDirectoryUnusable
from engine.model import State
from engine.protocols import Storage
from engine.storage import StorageOptions, open_storage
from engine.storage.sqlite.batch import Batch
from tests.doubles.storage import MemoryStorage

#: Shares of the crashes after which a payload is damaged, and after which a damaged log must be refused.
DAMAGED_PAYLOAD, DAMAGED_LOG = 0.2, 0.2
#: Commits that must follow a damaged frame of the log.
LATER_COMMITS = 3


class DiskWrites:
    """Failures of the disk (see ``storage.Writes``), and whether the writer has done everything."""

    def __init__(self, disk: Disk, random: Random) -> None:
        self._disk, self._random = disk, random
        self.writer: Any = None

    @property
    def failure(self) -> str:
        return self._disk.failing or (self.writer._failure if self.writer is not None else "")

    @property
    def idle(self) -> bool:
        writer = self.writer
        return not (writer is None or writer._pending or writer._began or self.failure)

    def fail_for(self, seconds: float, *, broken: bool = False) -> None:
        """Let writes fail for ``seconds``, or until a restart if ``broken``."""
        disk = self._disk
        if self.failure or disk.armed is not None:
            return
        if not broken and self._random.random() < 0.5:
            disk.armed = partial(self._begin, seconds, broken=False, ambiguous=True)
        else:
            self._begin(seconds, broken=broken, ambiguous=broken or self._random.random() < 0.6)

    def _begin(self, seconds: float, *, broken: bool, ambiguous: bool) -> None:
        self._disk.failing, self._disk.fsync, self._disk.ambiguous = FAILURE, broken, ambiguous
        if not broken:
            asyncio.get_running_loop().call_later(seconds, self._recover)

    def _recover(self) -> None:
        self._disk.failing = ""


class StoredStorage:
    """Storage of one process. ``world.folder`` is the data directory, and after ``end`` that of the next process."""

    def __init__(self, world: World, witness: Witness, random: Random, *, retention: float) -> None:
        self._world, self._witness, self._random, self._retention = world, witness, random, retention
        self.disk = Disk(world.folder, random)
        self.writes = DiskWrites(self.disk, random)
        self._real: Any = None
        self._pair: Pair | None = None
        self._closed = False

    @property
    def broken(self) -> bool:
        return self._real is not None and bool(self._real.broken)

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[StoredStorage]:
        options = StorageOptions(directory=self.disk.folder, idempotency_retention=self._retention)
        async with open_storage(options) as real:
            self._use(real)
            yield self
        self._closed = True

    def _use(self, real: Any) -> None:
        capture = Capture()
        simulated = MemoryStorage(idempotency_retention=self._retention, tables=self._world.tables, writes=capture)
        simulated.identity = real.identity
        pair = self._pair = Pair(self._world.tables, self._witness, simulated, capture)
        self._real, self.writes.writer = real, real.writer
        self.disk.on_commit, self.disk.loop = pair.committed, self._world.loop
        pair.watch(real.writer)
        self.identity, self.cluster = real.identity, real.cluster
        self.status_log, self.calls = real.status_log, real.calls
        self.journal, self.window = pair.part("journal", real.journal), pair.part("window", real.window)
        self.records, self.outbox = pair.part("records", real.records), pair.part("outbox", real.outbox)
        self.catalog, self.resources = pair.part("catalog", real.catalog), pair.part("resources", real.resources)
        self.cursors = pair.part("cursors", real.cursors)

    def store(self, plugin: str) -> Any:
        assert self._pair is not None
        return self._pair.store(plugin, self._real.store(plugin))

    def statistics(self) -> Any:
        return self._real.statistics()

    async def damaged(self) -> str:
        return str(await self._real.damaged())

    # --- after the end of the process -----------------------------------------------------------------------

    def end(self) -> None:
        """Take the files as they are, let a doubtful commit appear, compare all rows, and damage some data."""
        disk, random, world = self.disk, self._random, self._world
        kept = disk.keep()
        if disk.doubtful is not None and not self._closed and random.random() < 0.7:
            self._appear(kept, disk.doubtful)
        for problem in differences(kept, world):
            self._witness.violation(problem)
        if random.random() < DAMAGED_LOG:
            self._refuse_log(kept)
        if random.random() < DAMAGED_PAYLOAD:
            self._damage_payload(kept)
        shutil.rmtree(disk.folder)
        world.folder = kept

    def _appear(self, kept: Path, doubtful: Batch) -> None:
        """Store a batch whose COMMIT has failed, as the write-ahead log may have it nevertheless."""
        assert self._pair is not None
        disk = Disk(kept, self._random)
        disk.on_commit = self._pair.committed
        for request in doubtful:
            request.error = None
        self._witness.count["doubtful commits that appeared"] += 1
        factory: Any = partial(Writing, disk=disk)
        with closing(sqlite3.connect(kept / "journal.db", isolation_level=None, factory=factory)) as database:
            database.create_function("encrypted", 4, lambda *row: row[-1])  # the world has no secrets
            database.executemany("", doubtful)

    def _damage_payload(self, kept: Path) -> None:
        rows = self._world.tables.rows
        waiting = [key for key, row in rows.items() if row.state is State.WAIT and key not in self._world.damaged]
        if not waiting:
            return
        key = self._random.choice(waiting)
        payload = bytearray(rows[key].invocation.payload)
        payload[5] ^= 1  # a digit of its number
        with closing(sqlite3.connect(kept / "journal.db")) as database, database:
            database.execute("UPDATE payload SET body = ? WHERE key = ?", (bytes(payload), key))
        self._world.damaged.add(key)
        self._witness.count["damaged payloads"] += 1

    def _refuse_log(self, kept: Path) -> None:
        """Damage a frame of the log that later commits follow, in a copy, which the engine must then refuse."""
        copy = kept.with_name("refused")
        shutil.copytree(kept, copy)
        try:
            if not _damage_log(copy / "journal.db-wal", self._random):
                return
            self._witness.count["damaged logs"] += 1
            asyncio.run(_open(copy))
            self._witness.violation("a damaged write-ahead log was opened, and commits in it are lost")
        except DataDirectoryUnusable:
            return
        finally:
            shutil.rmtree(copy)


def _damage_log(log: Path, random: Random) -> bool:
    """Change one byte in a page of the log's first transactions. Return False if the log is too short."""
    content = bytearray(log.read_bytes()) if log.exists() else bytearray()
    if len(content) < 32:
        return False
    [page], salts = struct.unpack_from(">I", content, 8), content[16:24]
    starts = [at for at in range(32, len(content) - page - 23, page + 24) if content[at + 8 : at + 16] == salts]
    ends = [number for number, at in enumerate(starts) if struct.unpack_from(">I", content, at + 4)[0]]
    if len(ends) <= LATER_COMMITS:
        return False
    number = random.randint(0, ends[-LATER_COMMITS - 1])
    content[starts[number] + 24 + random.randrange(page)] ^= 0xFF
    log.write_bytes(content)
    return True


async def _open(folder: Path) -> None:
    async with open_storage(StorageOptions(directory=folder)):
        pass


def create(world: World) -> None:
    """Create the database with the functions, settings and triggers of the world."""
    world.folder.mkdir(parents=True)
    with inline(Disk(world.folder, Random(0))):
        asyncio.run(_create(world))


async def _create(world: World) -> None:
    tables = world.tables
    async with open_storage(StorageOptions(directory=world.folder)) as storage:
        await _fill(storage, tables)


async def _fill(storage: Storage, tables: Any) -> None:
    await storage.catalog.put_functions(list(tables.functions.values()), list(tables.resources.values()))
    for (function_id, version), settings in tables.settings.items():
        await storage.catalog.put_settings(function_id, version, settings)
