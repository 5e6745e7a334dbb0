"""Where the log service keeps what functions write: a group and a stream of it."""

from __future__ import annotations

import uuid
from functools import lru_cache

from msgspec import Struct

from engine.model import Function


class LogTarget(Struct, frozen=True, kw_only=True):
    group_id: str
    group_name: str
    stream_id: str
    stream_name: str


def log_target_of(function: Function) -> LogTarget:
    """As its configuration says, which may name a part only; the project's own where it says nothing."""
    usual, config = project_log_target(function.project), function.details.get("log_config", {})
    return LogTarget(
        group_id=str(config.get("group_id") or usual.group_id),
        group_name=str(config.get("group_name") or usual.group_name),
        stream_id=str(config.get("stream_id") or usual.stream_id),
        stream_name=str(config.get("stream_name") or usual.stream_name),
    )


@lru_cache(1024)
def project_log_target(project: str) -> LogTarget:
    return _target(project, "functiond", ("logs", "log"))


def status_log_target(project: str) -> LogTarget:
    """Of the status log of invocations; nothing is written there, since every status is kept here."""
    return _target(project, "functiond-async-status", ("group", "stream"))


def _target(project: str, name: str, parts: tuple[str, str]) -> LogTarget:
    """Its ids are made of their parts, so that they stay the same."""
    group, stream = (str(uuid.uuid5(uuid.NAMESPACE_URL, f"{project}/{part}")) for part in parts)
    return LogTarget(group_id=group, group_name=name, stream_id=stream, stream_name=f"{name}-{project}")
