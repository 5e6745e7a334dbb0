"""Log groups and the streams in them.

The API creates groups. Each project also has a group that functions write to. The group for the states of asynchronous
invocations is created when it is first asked for. It can be changed and deleted like any other.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from urllib.parse import quote

import anyio
import msgspec
from msgspec import Struct
from msgspec.structs import replace

from engine import LogTarget, Quotas, Store, project_log_target
from plugins._shared.rows import decoded_rows, rows_of
from plugins.lts import problems as p
from plugins.lts.problems import LtsProblem

TABLE = "groups"
ASKED = "status_logs"  #: table of the projects whose group for states was created once
TAGS = 20  #: tags of a group or a stream, besides ``PROJECT_TAG``
PROJECT_TAG = "_sys_enterprise_project_id"  #: tag in which the vendor's API shows a group's enterprise project

Tags = dict[str, str]
TagChange = Callable[[Tags], Tags]


class LogStream(Struct, frozen=True, kw_only=True):
    id: str
    name: str
    created_at: float
    days: int | None = None  #: retention in days, unless it is the group's
    alias: str = ""
    tags: dict[str, str] = {}


class Group(Struct, frozen=True, kw_only=True):
    id: str
    name: str
    created_at: float
    days: int  #: retention in days
    alias: str = ""
    tags: dict[str, str] = {}
    streams: tuple[LogStream, ...] = ()

    def days_of(self, stream: LogStream) -> int:
        return self.days if stream.days is None else stream.days


def stream_name(project: str, group_id: str, stream_id: str) -> str:
    """Return the name under which a stream's lines are stored.

    The ids need not be those of existing groups and streams, since functions may write to any.
    """
    return "/".join(quote(part, safe="") for part in (project, group_id, stream_id))


class Groups:
    """Log groups of all projects. ``load`` must be called before other methods.

    ``usual_days`` is the retention of streams that the API did not create. Methods raise LtsProblem if a group or
    stream does not exist; if a name exists already; if there are too many; or if the group that functions write to is
    changed.
    """

    def __init__(self, store: Store, now: Callable[[], float], usual_days: int, limits: Quotas) -> None:
        self._store, self._now, self._usual_days, self._limits = store, now, usual_days, limits
        self._groups: dict[str, dict[str, Group]] = {}  #: keyed by project and id
        self._days: dict[str, int] = {}  #: keyed by the names of streams
        self._asked: set[str] = set()  #: projects whose group for states was created once
        self._changing = anyio.Lock()

    async def load(self) -> None:
        async for project, _ in rows_of(self._store, ASKED):
            self._asked.add(project)
        async for key, group in decoded_rows(self._store, TABLE, Group):
            self._remember(key.rpartition("/")[0], group)

    # --- reading --------------------------------------------------------------------------------------------

    def all(self, project: str) -> Sequence[Group]:
        return [self._own(project), *self._groups.get(project, {}).values()]

    def find(self, project: str, group_id: str) -> Group:
        for group in self.all(project):
            if group.id == group_id:
                return group
        raise LtsProblem(p.NO_GROUP, f"The log group does not exist: {group_id}")

    def stream(self, project: str, group_id: str, stream_id: str) -> LogStream:
        for stream in self.find(project, group_id).streams:
            if stream.id == stream_id:
                return stream
        raise LtsProblem(p.NO_STREAM, f"The log stream does not exist: {stream_id}")

    def has(self, project: str, group_id: str, stream_id: str) -> bool:
        try:
            return bool(self.stream(project, group_id, stream_id))
        except LtsProblem:
            return False

    def days(self, stream: str) -> int:
        """Return the retention in days of a stream, given by the name that ``stream_name`` returns."""
        return self._days.get(stream, self._usual_days)

    # --- changing -------------------------------------------------------------------------------------------

    async def create(self, project: str, group: Group) -> Group:
        """Store a new group with a new id, and return it."""
        async with self._changing:
            existing = self.all(project)
            if group.name in {other.name for other in existing}:
                raise LtsProblem(p.GROUP_EXISTS, f"The log group name exists already: {group.name}")
            if len(existing) > self._limits.log_groups:
                problem = f"A project may have {self._limits.log_groups} log groups (setting limits.log_groups)"
                raise LtsProblem(p.TOO_MANY_GROUPS, problem)
            return await self._save(project, replace(group, id=str(uuid.uuid4()), created_at=self._now()))

    async def ensure(self, project: str, target: LogTarget, *, again: bool) -> None:
        """Create a group and a stream with the ids and names of ``target``, unless they exist.

        If ``again`` is False, a group or stream that was deleted after an earlier call is not created again. The group
        that functions write to is not changed.
        """
        async with self._changing:
            if (project in self._asked and not again) or target.group_id == self._own(project).id:
                return
            group = self._groups.get(project, {}).get(target.group_id)
            if group is None:
                group = Group(id=target.group_id, name=target.group_name, created_at=self._now(), days=self._usual_days)
            if target.stream_id not in {stream.id for stream in group.streams}:
                stream = LogStream(id=target.stream_id, name=target.stream_name, created_at=self._now())
                await self._save(project, replace(group, streams=(*group.streams, stream)))
            if project not in self._asked:
                await self._store.write(ASKED, {project: b""})
                self._asked.add(project)

    async def change_tags(self, project: str, group_id: str, change: TagChange, change_streams: TagChange) -> None:
        """Replace the tags of a group, and those of its streams, by those that the two functions return for them.

        Errors of the functions pass.
        """
        async with self._changing:
            group = self._changeable(project, group_id)
            streams = tuple(replace(stream, tags=change_streams(stream.tags)) for stream in group.streams)
            await self._save(project, replace(group, tags=change(group.tags), streams=streams))

    async def change_stream_tags(self, project: str, stream_id: str, change: TagChange) -> None:
        """Replace a stream's tags by those that ``change`` returns for them. Errors of ``change`` pass."""
        async with self._changing:
            owners = [group.id for group in self.all(project) if stream_id in {stream.id for stream in group.streams}]
            if not owners:
                raise LtsProblem(p.NO_STREAM, f"The log stream does not exist: {stream_id}")
            group = self._changeable(project, owners[0])
            stream = self.stream(project, group.id, stream_id)
            await self._save_stream(project, group, replace(stream, tags=change(stream.tags)))

    async def change(self, project: str, group_id: str, days: int) -> Group:
        async with self._changing:
            return await self._save(project, replace(self._changeable(project, group_id), days=days))

    async def delete(self, project: str, group_id: str) -> Group:
        async with self._changing:
            group = self._changeable(project, group_id)
            await self._store.write(TABLE, delete=[f"{project}/{group_id}"])
            del self._groups[project][group_id]
            self._forget(project, group, group.streams)
            return group

    async def create_stream(self, project: str, group_id: str, stream: LogStream) -> LogStream:
        """Store a new stream with a new id in a group, and return it."""
        async with self._changing:
            group = self._changeable(project, group_id)
            if stream.name in {other.name for other in group.streams}:
                raise LtsProblem(p.STREAM_EXISTS, f"The log stream name exists already: {stream.name}")
            if len(group.streams) >= self._limits.log_streams:
                problem = f"A log group may have {self._limits.log_streams} log streams (setting limits.log_streams)"
                raise LtsProblem(p.TOO_MANY_STREAMS, problem)
            stream = replace(stream, id=str(uuid.uuid4()), created_at=self._now())
            await self._save(project, replace(group, streams=(*group.streams, stream)))
            return stream

    async def change_stream(self, project: str, group_id: str, stream_id: str, days: int) -> LogStream:
        async with self._changing:
            group = self._changeable(project, group_id)
            changed = replace(self.stream(project, group_id, stream_id), days=days)
            await self._save_stream(project, group, changed)
            return changed

    async def delete_stream(self, project: str, group_id: str, stream_id: str) -> None:
        async with self._changing:
            group, deleted = self._changeable(project, group_id), self.stream(project, group_id, stream_id)
            await self._save(
                project, replace(group, streams=tuple(stream for stream in group.streams if stream != deleted))
            )
            self._forget(project, group, (deleted,))

    # --- inside ---------------------------------------------------------------------------------------------

    def _own(self, project: str) -> Group:
        target = project_log_target(project)
        stream = LogStream(id=target.stream_id, name=target.stream_name, created_at=0.0)
        return Group(
            id=target.group_id, name=target.group_name, created_at=0.0, days=self._usual_days, streams=(stream,)
        )

    def _changeable(self, project: str, group_id: str) -> Group:
        self.find(project, group_id)
        group = self._groups.get(project, {}).get(group_id)
        if group is None:
            raise LtsProblem(p.BAD_REQUEST, "The log group to which functions write cannot be changed or deleted")
        return group

    async def _save(self, project: str, group: Group) -> Group:
        await self._store.write(TABLE, {f"{project}/{group.id}": msgspec.json.encode(group)})
        self._remember(project, group)
        return group

    async def _save_stream(self, project: str, group: Group, changed: LogStream) -> None:
        streams = tuple(changed if stream.id == changed.id else stream for stream in group.streams)
        await self._save(project, replace(group, streams=streams))

    def _remember(self, project: str, group: Group) -> None:
        self._groups.setdefault(project, {})[group.id] = group
        for stream in group.streams:
            self._days[stream_name(project, group.id, stream.id)] = group.days_of(stream)

    def _forget(self, project: str, group: Group, streams: Sequence[LogStream]) -> None:
        for stream in streams:
            self._days.pop(stream_name(project, group.id, stream.id), None)
