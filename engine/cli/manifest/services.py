"""Changes to topics, data streams, log groups and log streams."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import msgspec

from engine.cli.client import Client, UsageError
from engine.cli.manifest.changes import Change, Field, created
from engine.cli.manifest.project import Data, Project
from engine.cli.manifest.tables import GroupTable, Manifest, StreamTable
from engine.cli.services import GROUPS, STREAMS, TOPICS, LogStream, change_stream, stream_path, topic_path
from engine.logs.target import project_log_target, status_log_target


def service_changes(manifest: Manifest, project: Project) -> Iterator[Change]:
    """Yield the changes that create or update what the manifest names."""
    for name, topic in manifest.topics.items():
        yield from _topic_changes(name, msgspec.to_builtins(topic), project)
    for name, stream in manifest.streams.items():
        yield from _stream_changes(name, stream, project)
    for name, group in manifest.log_groups.items():
        yield from _group_changes(name, group, project)


def service_deletions(manifest: Manifest, project: Project) -> Iterator[Change]:
    """Yield the changes that delete what the manifest does not name."""
    client = project.client
    for name, topic in project.topics.items():
        if name not in manifest.topics:
            yield _deletion(client, "topic", name, topic_path(topic))
    for name in project.streams:
        if name not in manifest.streams:
            yield _deletion(client, "stream", name, stream_path(name))
    for name, group in own_groups(project).items():
        if name not in manifest.log_groups:
            yield _deletion(client, "log group", name, f"{GROUPS}/{group['log_group_id']}")
            continue
        for one in streams_of(project, name):
            if one.stream["log_stream_name"] not in manifest.log_groups[name].streams:
                yield _deletion(client, "log stream", one.name, one.path)


def own_groups(project: Project) -> dict[str, Data]:
    """Return the log groups of the project, without those to which the engine writes."""
    engines = {one(project.client.project).group_id for one in (project_log_target, status_log_target)}
    return {name: one for name, one in project.groups.items() if one["log_group_id"] not in engines}


def streams_of(project: Project, group: str) -> list[LogStream]:
    return [one for one in project.log_streams.values() if one.group["log_group_name"] == group]


def _topic_changes(name: str, new: Data, project: Project) -> Iterator[Change]:
    service, old = project.client.service(), project.topics.get(name)
    if old is None:
        yield Change(
            action="create",
            kind="topic",
            name=name,
            fields=created(new),
            run=partial(service.post, TOPICS, {"name": name, **new}),
        )
    elif fields := _differing(old, new):
        yield Change(
            action="update", kind="topic", name=name, fields=fields, run=partial(service.put, topic_path(old), new)
        )


def _stream_changes(name: str, table: StreamTable, project: Project) -> Iterator[Change]:
    client, new, found = project.client, msgspec.to_builtins(table), project.streams.get(name)
    if found is None:
        yield Change(
            action="create",
            kind="stream",
            name=name,
            fields=created(new),
            run=partial(client.service().post, STREAMS, {"stream_name": name, **new}),
        )
        return
    old = {**found, "data_duration": found["retention_period"]}
    fields = _differing(old, new)
    if "stream_type" in fields:
        raise UsageError(
            f"streams.{name}.stream_type is {new['stream_type']!r}: it cannot be changed from {old['stream_type']}: "
            "delete the stream first"
        )
    if fields:
        changes = {one: new[one] for one in fields}
        run = partial(change_stream, client, name, changes)
        yield Change(action="update", kind="stream", name=name, fields=fields, run=run)


def _group_changes(name: str, table: GroupTable, project: Project) -> Iterator[Change]:
    service, new = project.client.service(), {"ttl_in_days": table.ttl_in_days}
    old = own_groups(project).get(name)
    if old is None:
        body = {"log_group_name": name, **new}
        yield Change(
            action="create", kind="log group", name=name, fields=created(new), run=partial(service.post, GROUPS, body)
        )
    elif fields := _differing(old, new):
        run = partial(service.post, f"{GROUPS}/{old['log_group_id']}", new)
        yield Change(action="update", kind="log group", name=name, fields=fields, run=run)
    for stream, one in table.streams.items():
        yield from _log_stream_changes(f"{name}/{stream}", msgspec.to_builtins(one), project)


def _log_stream_changes(name: str, new: Data, project: Project) -> Iterator[Change]:
    service, old = project.client.service(), project.log_streams.get(name)
    group, _, stream = name.partition("/")
    if old is None:

        def run() -> object:
            path = f"{GROUPS}/{project.groups[group]['log_group_id']}/streams"
            return service.post(path, {"log_stream_name": stream, **new})

        yield Change(action="create", kind="log stream", name=name, fields=created(new), run=run)
    elif fields := _differing(old.stream, new):
        path = old.path.replace("/streams/", "/streams-ttl/")
        yield Change(action="update", kind="log stream", name=name, fields=fields, run=partial(service.put, path, new))


def _differing(old: Data, new: Data) -> dict[str, Field]:
    return {name: Field(old=old.get(name), new=value) for name, value in new.items() if old.get(name) != value}


def _deletion(client: Client, kind: str, name: str, path: str) -> Change:
    return Change(action="delete", kind=kind, name=name, run=partial(client.service().send, "DELETE", path))
