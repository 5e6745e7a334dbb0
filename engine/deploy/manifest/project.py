"""State of a project, read over the API of its engine, and names in place of its URNs and ids."""

from __future__ import annotations

from collections.abc import Collection
from functools import cached_property, partial
from typing import Any

from engine.deploy.client import ApiError, Client, app_of, path_of
from engine.deploy.fields import expected
from engine.deploy.manifest.changes import Change
from engine.deploy.manifest.reading import Manifest
from engine.deploy.services import LogStream, all_groups, all_streams, all_topics, log_streams, without_own
from engine.errors import UsageError
from engine.model.urn import LATEST, short_name

Data = dict[str, Any]
_SERVICES = ("topics", "streams", "groups", "log_streams")
#: Kinds of changes that create what later changes may name.
_REFERENCED = frozenset({"function", "topic", "log group", "log stream"})


class Project:
    """State of a project. Each list is read when it is first needed. A function that does not exist has empty ones."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self._settings: dict[str, dict[str, Data]] = {}

    @cached_property
    def functions(self) -> dict[str, Data]:
        """Functions by ``name`` or ``package:name``."""
        return {short_name(function["func_urn"]): function for function in self.client.get_all("", "functions")}

    def check_role(self) -> None:
        """Raise ApiError unless the credentials may see environments, of which other roles get empty ones."""
        for function in self.functions:
            self.client.send("GET", path_of(function, "/export?config=true"))
            return

    def urn(self, function: str, qualifier: str = LATEST) -> str:
        """Return the URN of a function's version, or of its alias after ``!``.

        Raises UsageError if the function does not exist any more.
        """
        if function not in self.functions:
            raise UsageError(f"the function {function} does not exist any more")
        return ":".join([*self.functions[function]["func_urn"].split(":")[:7], qualifier])

    @cached_property
    def trigger_types(self) -> list[str]:
        """Types of triggers that the engine has, also those of plugins that this installation lacks."""
        types: list[str] = self.client.of_project.get("/triggertypes")
        return types

    @cached_property
    def triggers(self) -> list[Data]:
        return self.client.of_project.get_all("/triggers", "triggers")

    def triggers_of(self, function: str) -> list[Data]:
        return [trigger for trigger in self.triggers if short_name(trigger["func_urn"]) == function]

    @cached_property
    def topics(self) -> dict[str, Data]:
        return {topic["name"]: topic for topic in self._served(all_topics)}

    @cached_property
    def streams(self) -> dict[str, Data]:
        return {stream["stream_name"]: stream for stream in self._served(all_streams)}

    @cached_property
    def groups(self) -> dict[str, Data]:
        """Log groups by name, those to which the engine writes included."""
        return {group["log_group_name"]: group for group in self._served(lambda client: all_groups(client, own=True))}

    @property
    def own_groups(self) -> dict[str, Data]:
        """Log groups by name, without those to which the engine writes."""
        return {group["log_group_name"]: group for group in without_own(self.client, self.groups.values())}

    def streams_of(self, group: str) -> list[LogStream]:
        return [stream for stream in self.log_streams.values() if stream.group["log_group_name"] == group]

    @cached_property
    def log_streams(self) -> dict[str, LogStream]:
        """Log streams by ``GROUP/NAME``."""
        return {stream.name: stream for group in self.groups.values() for stream in log_streams(self.client, group)}

    def settings(self, function: str) -> dict[str, Data]:
        """Return the asynchronous settings of a function by version."""
        if function not in self.functions:
            return {}
        if function not in self._settings:
            path = path_of(function, "/async-invoke-configs")
            configs = self.client.get_all(path, "async_invoke_configs", limit=50)
            self._settings[function] = {config["func_urn"].split(":", 7)[-1]: config for config in configs}
        return self._settings[function]

    def controls(self, function: str) -> Data:
        fields: Data = self.client.get(path_of(function, "/controls")) if function in self.functions else {}
        return fields

    def versions(self, function: str) -> dict[str, Data]:
        """Return the published versions of a function by name."""
        if function not in self.functions:
            return {}
        versions = self.client.get_all(path_of(function, "/versions"), "versions")
        return {version["version"]: version for version in versions if version["version"] != LATEST}

    def aliases(self, function: str) -> dict[str, Data]:
        listed = self.client.get(path_of(function, "/aliases")) if function in self.functions else []
        return {alias["name"]: alias for alias in listed}

    def make(self, change: Change) -> Any:
        """Make a change, and return the reply of the engine. Lists that are changed by it are read again."""
        made = change.run()
        if change.action == "create" and change.kind in _REFERENCED:
            for name in ("functions", *_SERVICES):
                self.__dict__.pop(name, None)
        return made

    def _served(self, read: Any) -> list[Data]:
        """Return a list of a service; an empty list if the engine uses a remote endpoint in place of its own."""
        try:
            listed: list[Data] = read(self.client)
        except ApiError as error:
            if error.status == 404:
                return []
            raise
        return listed


class References:
    """Conversion between names and URNs. ``manifest`` names functions and topics that do not exist yet.

    With ``prune``, what exists and the manifest does not name is deleted, so references to it are refused.
    """

    def __init__(self, project: Project, manifest: Manifest | None = None, *, prune: bool = False) -> None:
        self._project = project
        self._declared = manifest or Manifest(functions={}, topics={}, streams={}, log_groups={}, secrets=frozenset())
        self._prune = prune

    def event_data(self, kind: str, data: Data) -> Data:
        """Return event_data with URNs and ids in place of names.

        A name of what the manifest creates later stays. Raises UsageError for another name of nothing.
        """
        if kind != "LTS":
            return self.param(kind, data)
        group, stream = str(data.get("log_group_id")), str(data.get("log_topic_id"))
        log_stream, known = self._project.log_streams.get(f"{group}/{stream}"), self._project.groups.get(group)
        self._check_kept("log group", group, self._project.own_groups, self._declared.log_groups)
        if table := self._declared.log_groups.get(group):
            self._check_kept("log stream", stream, [stream] if log_stream else (), table.streams)
        ids = {"log_group_id": known["log_group_id"]} if known else {}
        return data | ids | ({"log_topic_id": log_stream.stream["log_stream_id"]} if log_stream else {})

    def param(self, destination: str, param: Data) -> Data:
        """Return parameters of a destination with URNs in place of names."""
        match destination.upper():
            case "SMN":
                return self._with(param, "topic_urn", self._topic)
            case "FUNCTIONGRAPH":
                return self._with(param, "func_urn", self._function)
            case "DIS":
                self._check_kept("stream", param.get("stream_name"), self._project.streams, self._declared.streams)
        return param

    def named_event_data(self, kind: str, data: Data) -> Data:
        """Return event_data with names in place of URNs and ids, where the project has what they name."""
        if kind != "LTS":
            return self.named_param(kind, data)
        for stream in self._project.log_streams.values():
            ids = {"log_group_id": stream.group["log_group_id"], "log_topic_id": stream.stream["log_stream_id"]}
            if ids.items() <= data.items():
                names = {
                    "log_group_id": stream.group["log_group_name"],
                    "log_topic_id": stream.stream["log_stream_name"],
                }
                return data | names
        return data

    def named_param(self, destination: str, param: Data) -> Data:
        match destination.upper():
            case "SMN":
                return self._with(param, "topic_urn", partial(_name_of, self._project.topics, "topic_urn"))
            case "FUNCTIONGRAPH":
                return self._with(param, "func_urn", partial(_name_of, self._project.functions, "func_urn"))
        return param

    @staticmethod
    def _with(data: Data, field: str, convert: Any) -> Data:
        value = data.get(field)
        return {**data, field: convert(value)} if isinstance(value, str) else data

    def _check_kept(self, kind: str, name: Any, existing: Collection[str], declared: Collection[str]) -> None:
        if self._prune and name in existing and name not in declared:
            raise UsageError(f"--prune would delete the {kind} {name}: declare it, or name another")

    def _topic(self, name: str) -> str:
        topics, declared = self._project.topics, self._declared.topics
        self._check_kept("topic", _name_of(topics, "topic_urn", name), topics, declared)
        if name in declared and name not in topics:
            for function in self._project.functions.values():  # an earlier topic of this name may have triggers
                region, project = function["func_urn"].split(":")[2:4]
                return f"urn:smn:{region}:{project}:{name}"
        return _urn_of("topic", name, topics, declared, "topic_urn")

    def _function(self, name: str) -> str:
        functions, declared, app = self._project.functions, self._declared.functions, self._declared.app
        name = name.removeprefix("default:")
        own = [name for name, function in functions.items() if app_of(function) == app]
        self._check_kept("function", _name_of(functions, "func_urn", name), own, declared)
        return _urn_of("function", name, functions, declared, "func_urn")


def _name_of(existing: dict[str, Data], field: str, urn: str) -> str:
    """Return the name of the object with this URN in ``field``. Another text stays as it is."""
    return next((name for name, data in existing.items() if data[field] == urn), urn)


def _urn_of(kind: str, name: str, existing: dict[str, Data], later: Collection[str], field: str) -> str:
    """Return the URN of an object by its name. Raise UsageError if it neither exists nor is declared."""
    if name in existing:
        return str(existing[name][field])
    if name.startswith(("urn:", "arn:")) or name in later:
        return name
    raise UsageError(f"no {kind} {name}: {expected(name, list(dict.fromkeys([*existing, *later])))}")
