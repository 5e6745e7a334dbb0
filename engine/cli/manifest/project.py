"""State of a project, read over the API of its engine. Each list is read when it is first needed."""

from __future__ import annotations

from functools import cached_property
from typing import Any, TypeVar

from engine.cli.client import ApiError, Client, UsageError, path_of
from engine.cli.functions import all_functions
from engine.cli.services import LogStream, all_groups, all_streams, all_topics, log_streams
from engine.cli.version import all_versions
from engine.model.urn import LATEST, short_name

T = TypeVar("T")
Data = dict[str, Any]
_SERVICES = ("topics", "streams", "groups", "log_streams")
#: Kinds of changes that create what later changes may name.
REFERENCED = frozenset({"function", "topic", "log group", "log stream"})


class Project:
    def __init__(self, client: Client) -> None:
        self.client = client
        self._settings: dict[str, dict[str, Data]] = {}

    @cached_property
    def functions(self) -> dict[str, Data]:
        """Functions by ``name`` or ``package:name``."""
        return {short_name(one["func_urn"]): one for one in all_functions(self.client)}

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
        found: list[str] = self.client.of_project.get("/triggertypes")
        return found

    @cached_property
    def triggers(self) -> list[Data]:
        return self.client.of_project.get_all("/triggers", "triggers")

    def triggers_of(self, function: str) -> list[Data]:
        return [one for one in self.triggers if short_name(one["func_urn"]) == function]

    @cached_property
    def topics(self) -> dict[str, Data]:
        return {one["name"]: one for one in self._served(all_topics)}

    @cached_property
    def streams(self) -> dict[str, Data]:
        return {one["stream_name"]: one for one in self._served(all_streams)}

    @cached_property
    def groups(self) -> dict[str, Data]:
        """Log groups by name, those to which the engine writes included."""
        return {one["log_group_name"]: one for one in self._served(lambda client: all_groups(client, own=True))}

    @cached_property
    def log_streams(self) -> dict[str, LogStream]:
        """Log streams by ``GROUP/NAME``."""
        return {one.name: one for group in self.groups.values() for one in log_streams(self.client, group)}

    def settings(self, function: str) -> dict[str, Data]:
        """Return the asynchronous settings of a function by version."""
        if function not in self._settings:
            found: list[Data] = []
            while True:
                path = path_of(function, "/async-invoke-configs")
                page = self.client.get(path, marker=len(found), limit=50)
                found += page["async_invoke_configs"]
                if not page["async_invoke_configs"] or len(found) >= page["count"]:
                    break
            self._settings[function] = {one["func_urn"].split(":", 7)[-1]: one for one in found}
        return self._settings[function]

    def controls(self, function: str) -> Data:
        found: Data = self.client.get(path_of(function, "/controls"))
        return found

    def versions(self, function: str) -> dict[str, Data]:
        """Return the published versions of a function by name."""
        return {one["version"]: one for one in all_versions(self.client, function) if one["version"] != LATEST}

    def aliases(self, function: str) -> dict[str, Data]:
        return {one["name"]: one for one in self.client.get(path_of(function, "/aliases"))}

    def read_again(self) -> None:
        """Forget functions, topics, streams and log groups, because changes have created some."""
        for name in ("functions", *_SERVICES):
            self.__dict__.pop(name, None)

    def _served(self, read: Any) -> list[Data]:
        """Return a list of a service; an empty list if the engine uses a remote endpoint in place of its own."""
        try:
            found: list[Data] = read(self.client)
        except ApiError as error:
            if error.status == 404:
                return []
            raise
        return found
