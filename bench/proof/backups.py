"""Crash states of a backup and of a restore: at any moment, what has its final name is whole, on any disk.

A process that is recorded stores invocations, makes a backup meanwhile, and restores it. Each state that a crash may
leave is opened like the data directory of an engine.
"""

from __future__ import annotations

import asyncio
import base64
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random

from bench.proof import promises as p
from bench.proof.checker import check, recover
from bench.proof.disk import Disk, Kind, write_image
from bench.proof.lives import Violation, temporary
from bench.proof.recording import Recorder
from engine.code.store import CodeSource, CodeStore
from engine.maintenance.backup import Backups
from engine.maintenance.restore import restore
from engine.model import Function, Invocation
from engine.model.clock import SystemClock
from engine.protocols import Storage
from engine.storage import StorageOptions, open_storage
from engine.storage.data_directory import locked

#: Invocations before the backup, beside it, and after it.
BEFORE, BESIDE, AFTER = 20, 20, 5
SIZE = 2000  #: bytes of a payload, so that the backup is made in several steps
STATES = 60  #: crash states that are checked
MAX_SECONDS = 120


def check_backups(seed: int, states: int = STATES) -> Iterator[list[Violation]]:
    """Record a backup and a restore, and yield the violations of each crash state."""
    with temporary() as folder:
        root = folder / "root"
        root.mkdir()
        recorder = Recorder(folder, root)
        program = [sys.executable, "-m", "bench.proof.backups", str(root), str(folder / "promises")]
        environment = {**os.environ, **recorder.environment}
        done = subprocess.run(program, env=environment, capture_output=True, text=True, timeout=MAX_SECONDS)
        if done.returncode:
            yield [Violation(where=f"backup, seed {seed}", problem=done.stderr[-2000:])]
            return
        accepted, made, restored = _read(folder / "promises")
        random, disk = Random(seed), Disk()
        operations = list(recorder.operations())
        points = _points(
            random, [operation.position for operation in operations if operation.type in "RGF"], accepted, states
        )
        points += [made, restored, operations[-1].position]
        upcoming = 0
        for point in sorted(points):
            while upcoming < len(operations) and operations[upcoming].position <= point:
                disk.apply(operations[upcoming])
                upcoming += 1
            kind, chosen = random.choice(list(Kind)), random.randrange(1 << 32)
            image = folder / "image"
            write_image(disk.image(kind, Random(chosen)), image)
            where = f"backup, seed {seed}, state {point} {kind} {chosen}"
            problems = _problems(image, point, accepted, made, restored)
            yield [Violation(where=where, problem=problem) for problem in problems]
            shutil.rmtree(image)


def _points(random: Random, changes: list[int], accepted: list[p.Accepted], states: int) -> list[int]:
    """Choose positions right after syncs and renames, and after promises."""
    chosen = random.sample(changes, min(len(changes), states * 2 // 3))
    return chosen + [promise.position for promise in random.sample(accepted, min(len(accepted), states // 3))]


def _problems(image: Path, point: int, accepted: list[p.Accepted], made: int, restored: int) -> Iterator[str]:
    stored = [promise for promise in accepted if promise.position <= point]
    copied = accepted[:BEFORE]
    for name, promises, due in (
        ("data", stored, bool(stored)),
        ("backup", copied, point >= made),
        ("restored", copied, point >= restored),
    ):
        folder = image / name
        exists = folder.exists() if name == "backup" else (folder / "journal.db").exists()
        if name == "data" and not due:
            continue
        if not exists:
            if due:
                yield f"{name}/ is lost"
            continue
        problem = recover(folder)
        for violation in [problem] if problem else check(folder, promises):
            yield f"{name}/: {violation}"


# --- in the recorded process --------------------------------------------------------------------------------


async def _work(root: Path, file: Path) -> None:
    data, accepted = root / "data", list[p.Accepted]()
    with locked(data):
        async with open_storage(StorageOptions(directory=data)) as storage:
            await _deploy(storage, CodeStore(data / "code"))
            await _accept(storage, accepted, BEFORE)
            backups = Backups(data, storage.copy_to, below=None, keep_free=0, clock=SystemClock(), version="proof")
            folder = await backups.destination(str(root / "backup"))
            beside = asyncio.ensure_future(_accept(storage, accepted, BESIDE))
            await backups.make(folder, lambda progress: None)
            made = _position()
            await beside
            await _accept(storage, accepted, AFTER)
    restore(root / "backup", root / "restored")
    _save(file, accepted, made, _position())


async def _deploy(storage: Storage, codes: CodeStore) -> None:
    codes.belong_to(storage.identity.name)
    source = base64.b64encode(b"def handler(event, context):\n    return event\n").decode()
    code = await codes.add(CodeSource(kind="inline", file=source), handler="index.handler", runtime="Python3.10")
    function = Function(
        function_id=1,
        project="proof",
        package="default",
        name="echo",
        runtime="Python3.10",
        handler="index.handler",
        timeout=3,
        memory_size=128,
        code=code,
    )
    await storage.catalog.put_functions([function])
    await storage.journal.recover()


async def _accept(storage: Storage, accepted: list[p.Accepted], count: int) -> None:
    for number in range(len(accepted), len(accepted) + count):
        key = storage.identity.next_key(SystemClock().now())
        payload = f'"{number:0{SIZE}}"'
        request_id = storage.identity.request_id(key)
        await storage.journal.append(
            Invocation(key=key, request_id=request_id, function_id=1, payload=payload.encode())
        )
        accepted.append(p.Accepted(position=_position(), request_id=request_id, function="echo", payload=payload))


def _position() -> int:
    return Path(os.environ["PROOF_LOG"]).stat().st_size


def _save(file: Path, accepted: list[p.Accepted], made: int, restored: int) -> None:
    file.write_text(f"{made} {restored}")
    p.save(accepted, file.with_suffix(".json"))


def _read(file: Path) -> tuple[list[p.Accepted], int, int]:
    made, restored = map(int, file.read_text().split())
    accepted = [promise for promise in p.read(file.with_suffix(".json")) if isinstance(promise, p.Accepted)]
    return accepted, made, restored


if __name__ == "__main__":
    asyncio.run(_work(Path(sys.argv[1]), Path(sys.argv[2])))
