"""Names in place of URNs and ids: a manifest names functions, topics and log streams that it may itself create."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from engine.cli.client import UsageError
from engine.cli.fields import expected
from engine.cli.manifest.project import Data, Project
from engine.cli.manifest.services import own_groups
from engine.cli.manifest.tables import Manifest


class References:
    """Conversion between names and URNs. ``manifest`` names functions and topics that do not exist yet.

    With ``prune``, what exists and the manifest does not name is deleted, so references to it are refused.
    """

    def __init__(self, project: Project, manifest: Manifest | None = None, *, prune: bool = False) -> None:
        self._project = project
        self._declared = manifest or Manifest(functions={}, topics={}, streams={}, log_groups={}, secrets=frozenset())
        self._functions, self._topics, self._prune = self._declared.functions, self._declared.topics, prune

    def event_data(self, kind: str, data: Data) -> Data:
        """Return event_data with URNs and ids in place of names.

        A name of what the manifest creates later stays. Raises UsageError for another name of nothing.
        """
        if kind == "SMN":
            return self._with(data, "topic_urn", self._topic)
        if kind == "LTS":
            group, stream = data.get("log_group_id"), data.get("log_topic_id")
            found = self._project.log_streams.get(f"{group}/{stream}")
            known = self._project.groups.get(str(group))
            self._check_kept("log group", str(group), own_groups(self._project), self._declared.log_groups)
            if table := self._declared.log_groups.get(str(group)):
                self._check_kept("log stream", str(stream), [str(stream)] if found else (), table.streams)
            ids = {"log_group_id": known["log_group_id"]} if known else {}
            return data | ids | ({"log_topic_id": found.stream["log_stream_id"]} if found else {})
        if kind == "DIS":
            self._check_kept("stream", data.get("stream_name"), self._project.streams, self._declared.streams)
        return data

    def param(self, destination: str, param: Data) -> Data:
        """Return parameters of a destination with URNs in place of names."""
        if destination.upper() == "SMN":
            return self._with(param, "topic_urn", self._topic)
        if destination.upper() == "FUNCTIONGRAPH":
            return self._with(param, "func_urn", self._function)
        if destination.upper() == "DIS":
            self._check_kept("stream", param.get("stream_name"), self._project.streams, self._declared.streams)
        return param

    def named_event_data(self, kind: str, data: Data) -> Data:
        """Return event_data with names in place of URNs and ids, where the project has what they name."""
        if kind == "SMN":
            return self._with(data, "topic_urn", self._topic_name)
        if kind == "LTS":
            for one in self._project.log_streams.values():
                ids = {"log_group_id": one.group["log_group_id"], "log_topic_id": one.stream["log_stream_id"]}
                if ids.items() <= data.items():
                    names = {"log_group_id": one.group["log_group_name"], "log_topic_id": one.stream["log_stream_name"]}
                    return data | names
        return data

    def named_param(self, destination: str, param: Data) -> Data:
        if destination.upper() == "SMN":
            return self._with(param, "topic_urn", self._topic_name)
        if destination.upper() == "FUNCTIONGRAPH":
            return self._with(param, "func_urn", self._function_name)
        return param

    @staticmethod
    def _with(data: Data, field: str, convert: Any) -> Data:
        value = data.get(field)
        return {**data, field: convert(value)} if isinstance(value, str) else data

    def _check_kept(self, kind: str, name: Any, existing: Collection[str], declared: Collection[str]) -> None:
        if self._prune and name in existing and name not in declared:
            raise UsageError(f"--prune would delete the {kind} {name}: declare it, or name another")

    def _topic(self, name: str) -> str:
        self._check_kept("topic", self._topic_name(name), self._project.topics, self._topics)
        if name in self._topics and name not in self._project.topics:
            for function in self._project.functions.values():  # an earlier topic of this name may have triggers
                region, project = function["func_urn"].split(":")[2:4]
                return f"urn:smn:{region}:{project}:{name}"
        return _found("topic", name, self._project.topics, self._topics, "topic_urn")

    def _topic_name(self, urn: str) -> str:
        return next((name for name, one in self._project.topics.items() if one["topic_urn"] == urn), urn)

    def _function(self, name: str) -> str:
        self._check_kept("function", self._function_name(name), self._project.functions, self._functions)
        return _found("function", name, self._project.functions, self._functions, "func_urn")

    def _function_name(self, urn: str) -> str:
        return next((name for name, one in self._project.functions.items() if one["func_urn"] == urn), urn)


def _found(kind: str, name: str, existing: dict[str, Data], later: Collection[str], field: str) -> str:
    """Return the URN of an object by its name. Raise UsageError if it neither exists nor is declared."""
    if name in existing:
        return str(existing[name][field])
    if name.startswith(("urn:", "arn:")) or name in later:
        return name
    raise UsageError(f"no {kind} {name}: {expected(name, list(dict.fromkeys([*existing, *later])))}")
