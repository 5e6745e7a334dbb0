"""Backups, which the engine writes on its own machine."""

from __future__ import annotations

from typing import Literal

import anyio
import msgspec
import structlog
from msgspec import UNSET, Struct, UnsetType

from engine.asgi.streaming import Stream, Write
from engine.asgi.wire import Reply
from engine.errors import FunctiondError, InvalidField
from engine.http.api.errors import error_reply
from engine.http.api.routing import BASE, JSON_LINES, ApiFamily, BodyCall, Subject, operation
from engine.maintenance.backup import BackupMade, BackupProgress, Backups
from engine.maintenance.backup_folder import BackupFolder
from engine.storage import Problem

log = structlog.get_logger("functiond")

INTERVAL = 0.2  #: seconds between two lines


class BackupBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    path: str  #: of the new backup, in or relative to the engine's folder of backups
    with_key: bool = False  #: refused if true: keys are never copied over the API


class BackupLine(Struct, frozen=True, kw_only=True):
    """Line of the reply: the state of the backup. Only the last line, with the state ``done``, has all fields."""

    state: Literal["journal", "code", "check", "done"]
    copied: int
    total: int
    path: str | UnsetType = UNSET
    packages: int | UnsetType = UNSET
    missing: tuple[str, ...] | UnsetType = UNSET
    problems: tuple[Problem, ...] | UnsetType = UNSET
    steps: int | UnsetType = UNSET
    slow_steps: int | UnsetType = UNSET
    longest_step: float | UnsetType = UNSET


class BackupsApi(ApiFamily):
    subject = Subject("backup", ("path",), ("path",))

    def __init__(self, backups: Backups) -> None:
        self._backups = backups

    @operation(
        "CreateBackup",
        "POST",
        f"{BASE}/backups",
        BackupBody,
        BackupLine,
        content=JSON_LINES.decode(),
        own=True,
        roles=("operator",),
    )
    async def create(self, call: BodyCall[BackupBody]) -> Reply:
        """Make a backup, and reply with a JSON line for each step.

        If the backup fails later than here, the last line has the fields of an error reply. A client that disconnects
        ends the backup when the next line cannot be sent.
        """
        body = await call.read()
        if body.with_key:
            advice = "keys are never copied over the API: run `functiond backup --with-key` on the engine's machine"
            raise InvalidField("with_key", body.with_key, advice)
        folder = await self._backups.destination(body.path)

        async def make(write: Write) -> None:
            feed = _Feed()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(feed.write_lines, write)
                last = await self._make(folder, feed)
                tasks.cancel_scope.cancel()
            await write(last)

        return Stream(content_type=JSON_LINES, run=make)

    async def _make(self, folder: BackupFolder, feed: _Feed) -> bytes:
        log.info("backup begun", path=str(folder.path))
        try:
            made: BackupMade = await self._backups.make(folder, feed.note)
        except FunctiondError as error:
            log.error("backup failed", path=str(folder.path), problem=str(error))
            return error_reply(error).body + b"\n"
        log.info("backup made", path=made.path, bytes=made.copied, longest_step=round(made.longest_step, 4))
        for problem in made.problems[:1]:
            log.error("backup is not whole", path=made.path, problem=problem.problem, advice=problem.advice)
        return _line(made)


class _Feed:
    """Latest state of a backup, written at intervals."""

    def __init__(self) -> None:
        self._latest: BackupProgress | None = None
        self._changed = anyio.Event()

    def note(self, progress: BackupProgress) -> None:
        self._latest = progress
        self._changed.set()

    async def write_lines(self, write: Write) -> None:
        while True:
            await self._changed.wait()
            self._changed = anyio.Event()
            if self._latest is not None:
                await write(_line(self._latest))
            await anyio.sleep(INTERVAL)


def _line(progress: BackupProgress) -> bytes:
    return msgspec.json.encode(msgspec.convert(progress, BackupLine, from_attributes=True)) + b"\n"
