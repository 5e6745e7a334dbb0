"""Log target of a function: its log group and log stream in the log service (LTS)."""

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
    """Return the log target from the function's ``log_config``. Missing fields are taken from the project's target."""
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
    """Return the target for the status of invocations. The log itself stays empty: the journal stores every status."""
    return _target(project, "functiond-async-status", ("group", "stream"))


def _target(project: str, name: str, parts: tuple[str, str]) -> LogTarget:
    """Return a target with ids derived from the project, so that each project always has the same ids."""
    group, stream = (str(uuid.uuid5(uuid.NAMESPACE_URL, f"{project}/{part}")) for part in parts)
    return LogTarget(group_id=group, group_name=name, stream_id=stream, stream_name=f"{name}-{project}")
