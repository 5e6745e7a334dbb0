"""Log group and log stream of a function in the vendor's log service (LTS), with ids and names."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated, Any

from msgspec import Struct

from engine.model import Function
from engine.model.limits import words


class LogTarget(Struct, frozen=True, kw_only=True):
    group_id: Annotated[str, words("Id of the group")]
    group_name: Annotated[str, words("Log group")]
    stream_id: Annotated[str, words("Id of the stream")]
    stream_name: Annotated[str, words("Log stream")]


def log_target_of(function: Function) -> LogTarget:
    """Return log group and log stream from the function's ``log_config``.

    Missing fields are taken from the log group and stream of the function's project.
    """
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
    """Return log group and log stream for the states of a project's asynchronous invocations."""
    return _target(project, "functiond-async-status", ("group", "stream"))


def status_log_target_of(project: str, details: Mapping[str, Any]) -> LogTarget:
    """Return log group and log stream for the states of one version, whose asynchronous settings have ``details``.

    They are those of the project, unless the settings name both a group and a stream by their ids.
    """
    group_id, stream_id = (str(details.get(name) or "") for name in ("log_group_id", "log_stream_id"))
    if not group_id or not stream_id:
        return status_log_target(project)
    return LogTarget(
        group_id=group_id,
        group_name=str(details.get("log_group_name") or group_id),
        stream_id=stream_id,
        stream_name=str(details.get("log_stream_name") or stream_id),
    )


def _target(project: str, name: str, parts: tuple[str, str]) -> LogTarget:
    """Return a log group and stream with ids derived from project and ``parts``, so that they never change."""
    group, stream = (str(uuid.uuid5(uuid.NAMESPACE_URL, f"{project}/{part}")) for part in parts)
    return LogTarget(group_id=group, group_name=name, stream_id=stream, stream_name=f"{name}-{project}")
