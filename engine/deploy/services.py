"""Topics (SMN), data streams (DIS) and log groups (LTS) of a project, over the APIs of these services."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote

from engine.deploy.client import Client
from engine.deploy.fields import expected
from engine.errors import UsageError
from engine.logs.target import project_log_target, status_log_target

T = TypeVar("T")
TOPICS, STREAMS, GROUPS = "/notifications/topics", "/streams", "/groups"
PAGE = 100  #: topics or streams of one reply


class LogStream(NamedTuple):
    group: dict[str, Any]
    stream: dict[str, Any]

    @property
    def name(self) -> str:
        return f"{self.group['log_group_name']}/{self.stream['log_stream_name']}"

    @property
    def path(self) -> str:
        return f"{GROUPS}/{self.group['log_group_id']}/streams/{self.stream['log_stream_id']}"


# --- topics ---------------------------------------------------------------------------------------------------


def all_topics(client: Client) -> list[dict[str, Any]]:
    """Return the topics of the project, sorted by name."""
    topics = client.service().get_all(TOPICS, "topics", start="offset", total="topic_count", limit=PAGE)
    return sorted(topics, key=lambda topic: str(topic["name"]))


def find_topic(client: Client, name: str) -> dict[str, Any]:
    """Return a topic by its name or URN. Raise UsageError if the project has no such topic."""
    topics = {topic["name"]: topic for topic in all_topics(client)}
    return _by_name(
        "topic", name, topics, next((topic for topic in topics.values() if topic["topic_urn"] == name), None)
    )


def topic_path(topic: dict[str, Any], rest: str = "") -> str:
    return f"{TOPICS}/{quote(topic['topic_urn'], safe=':')}{rest}"


# --- data streams ---------------------------------------------------------------------------------------------


def all_streams(client: Client) -> list[dict[str, Any]]:
    """Return the data streams of the project, sorted by name."""
    service, streams = client.service(), list[dict[str, Any]]()
    while True:
        last = streams[-1]["stream_name"] if streams else ""
        page = service.get(STREAMS, limit=PAGE, start_stream_name=last)
        streams += page["stream_info_list"]
        if not page["has_more_streams"]:
            return streams


def stream_path(name: str) -> str:
    return f"{STREAMS}/{quote(name, safe='')}"


def change_stream(client: Client, name: str, changes: dict[str, Any]) -> None:
    """Change ``partition_count``, ``data_duration`` and ``data_type`` of a data stream, as far as they are given."""
    rest = dict(changes)
    if count := rest.pop("partition_count", None):
        client.service().put(stream_path(name), {"stream_name": name, "target_partition_count": count})
    if rest:
        client.service("v3").put(stream_path(name), rest)


# --- log groups -----------------------------------------------------------------------------------------------


def all_groups(client: Client, *, own: bool = False) -> list[dict[str, Any]]:
    """Return the log groups of the project, sorted by name; with ``own``, also the two to which the engine writes."""
    groups: list[dict[str, Any]] = client.service().get(GROUPS)["log_groups"]
    return sorted(groups if own else without_own(client, groups), key=lambda group: str(group["log_group_name"]))


def without_own(client: Client, groups: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return log groups without those to which the engine writes."""
    engines = {target(client.project).group_id for target in (project_log_target, status_log_target)}
    return [group for group in groups if group["log_group_id"] not in engines]


def log_streams(client: Client, group: dict[str, Any]) -> list[LogStream]:
    """Return the log streams of a group."""
    streams = client.service().get(f"{GROUPS}/{group['log_group_id']}/streams")["log_streams"]
    return [LogStream(group, stream) for stream in sorted(streams, key=lambda stream: str(stream["log_stream_name"]))]


def find_group(client: Client, name: str) -> dict[str, Any]:
    """Return a log group by its name. Raise UsageError if the project has no such group."""
    return _by_name("log group", name, {group["log_group_name"]: group for group in all_groups(client)})


def find_log_stream(client: Client, name: str) -> LogStream:
    """Return a log stream by ``GROUP/STREAM``. Raise UsageError if the project has no such stream."""
    group, _, stream = name.partition("/")
    streams = {stream.stream["log_stream_name"]: stream for stream in log_streams(client, find_group(client, group))}
    return _by_name("log stream", stream, streams, place=f" in the group {group}")


def _by_name(kind: str, name: str, existing: Mapping[str, T], other: T | None = None, *, place: str = "") -> T:
    """Return what has a name, else ``other``. Raise UsageError if there is neither."""
    named = existing.get(name, other)
    if named is None:
        raise UsageError(f"no {kind} {name}{place}: {expected(name, list(existing))}")
    return named
