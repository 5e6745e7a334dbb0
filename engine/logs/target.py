"""Log group and log stream of the log service (LTS) for the log of a function."""

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
    """Return the log target in the function's configuration, completed by that of its project."""
    default, config = project_log_target(function.project), function.details.get("log_config", {})
    return LogTarget(
        group_id=str(config.get("group_id") or default.group_id),
        group_name=str(config.get("group_name") or default.group_name),
        stream_id=str(config.get("stream_id") or default.stream_id),
        stream_name=str(config.get("stream_name") or default.stream_name),
    )


@lru_cache(1024)
def project_log_target(project: str) -> LogTarget:
    return _target(project, "functiond", ("logs", "log"))


def status_log_target(project: str) -> LogTarget:
    """Return the target of the status log of invocations. The log stays empty: the journal stores every status."""
    return _target(project, "functiond-async-status", ("group", "stream"))


def _target(project: str, name: str, parts: tuple[str, str]) -> LogTarget:
    """Return a target whose ids are derived from the project, so that they stay the same."""
    group, stream = (str(uuid.uuid5(uuid.NAMESPACE_URL, f"{project}/{part}")) for part in parts)
    return LogTarget(group_id=group, group_name=name, stream_id=stream, stream_name=f"{name}-{project}")
