"""Changes to topics, data streams, log groups and log streams."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from msgspec import to_builtins

from engine.deploy.manifest.changes import Change, changes, deletion, differences, part_of
from engine.deploy.manifest.project import Data, Project
from engine.deploy.manifest.reading import Manifest, StreamTable
from engine.deploy.services import GROUPS, STREAMS, TOPICS, change_stream, stream_path, topic_path
from engine.errors import UsageError


def service_changes(manifest: Manifest, project: Project) -> Iterator[Change]:
    """Yield the changes that create or update what the manifest names."""
    service = project.client.service()
    for name, topic in manifest.topics.items():
        new, old = to_builtins(topic), project.topics.get(name)
        run = partial(service.post, TOPICS, {"name": name, **new})
        if old is not None:
            run = partial(service.put, topic_path(old), new)
        yield from changes("topic", name, part_of(old, new), new, run)
    for name, stream in manifest.streams.items():
        yield from _stream_changes(name, stream, project)
    for name, group in manifest.log_groups.items():
        new, old = {"ttl_in_days": group.ttl_in_days}, project.own_groups.get(name)
        run = partial(service.post, GROUPS, {"log_group_name": name, **new})
        if old is not None:
            run = partial(service.post, f"{GROUPS}/{old['log_group_id']}", new)
        yield from changes("log group", name, part_of(old, new), new, run)
        for own, table in group.streams.items():
            yield from _log_stream_changes(name, own, to_builtins(table), project)


def service_deletions(manifest: Manifest, project: Project) -> Iterator[Change]:
    """Yield the changes that delete what the manifest does not name."""
    service = project.client.service()
    for name, topic in project.topics.items():
        if name not in manifest.topics:
            yield deletion(service, "topic", name, topic_path(topic))
    for name in project.streams:
        if name not in manifest.streams:
            yield deletion(service, "stream", name, stream_path(name))
    for name, group in project.own_groups.items():
        if name not in manifest.log_groups:
            yield deletion(service, "log group", name, f"{GROUPS}/{group['log_group_id']}")
            continue
        for log_stream in project.streams_of(name):
            if log_stream.stream["log_stream_name"] not in manifest.log_groups[name].streams:
                yield deletion(service, "log stream", log_stream.name, log_stream.path)


def _stream_changes(name: str, table: StreamTable, project: Project) -> Iterator[Change]:
    client, new, old = project.client, to_builtins(table), project.streams.get(name)
    run: partial[Any] = partial(client.service().post, STREAMS, {"stream_name": name, **new})
    if old is not None:
        old = part_of({**old, "data_duration": old["retention_period"]}, new) or {}
        changed = differences(old, new)
        if "stream_type" in changed:
            raise UsageError(
                f"streams.{name}.stream_type is {new['stream_type']!r}: it cannot be changed from "
                f"{old['stream_type']}: delete the stream first"
            )
        run = partial(change_stream, client, name, {field: new[field] for field in changed})
    yield from changes("stream", name, old, new, run)


def _log_stream_changes(group: str, stream: str, new: Data, project: Project) -> Iterator[Change]:
    service, name = project.client.service(), f"{group}/{stream}"

    def create() -> object:
        path = f"{GROUPS}/{project.groups[group]['log_group_id']}/streams"
        return service.post(path, {"log_stream_name": stream, **new})

    if old := project.log_streams.get(name):
        run = partial(service.put, old.path.replace("/streams/", "/streams-ttl/"), new)
        yield from changes("log stream", name, part_of(old.stream, new), new, run)
    else:
        yield from changes("log stream", name, None, new, create)
