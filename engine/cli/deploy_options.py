"""Options of ``functiond deploy``, and their conversion to fields of API requests."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from engine.cli.client import Client, UsageError, path_of
from engine.cli.destination_options import DestinationOption, read_destination
from engine.cli.packaging import BuildOptions
from engine.model.limits import EVENT_AGES


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Configuration:
    """Configuration of the function. Options that are not given stay unchanged."""

    handler: str | None = None
    "Entry point, as file.function. [default: index.handler, or FILE.handler for a file]"

    runtime: str | None = None
    "Runtime, such as Python3.10. [default: that of this Python if the engine has it, else its newest; or of Node.js]"

    timeout: int | None = None
    "Maximum duration of a run in seconds. [default: 30]"

    memory: int | None = None
    "Memory of an instance in MB. [default: 128]"

    env: Annotated[tuple[str, ...], Parameter(negative="", show_default=False)] = ()
    """Environment variable NAME=VALUE, or NAME for its value in the environment of this command. Repeat for several.
    Replaces all existing variables."""

    def fields(self) -> dict[str, Any]:
        """Return the options that were given, by the names of their fields in the API."""
        named = {
            "handler": self.handler,
            "runtime": self.runtime,
            "timeout": self.timeout,
            "memory_size": self.memory,
            "user_data": json.dumps(_variables(self.env)) if self.env else None,
        }
        return {name: value for name, value in named.items() if value is not None}


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Installation:
    """Dependencies of a folder, which are installed for the interpreter of the function."""

    install: bool = True
    "Install requirements.txt or the dependencies of pyproject.toml, and package.json, into the package."

    reinstall: Annotated[bool, Parameter(negative="", show_default=False)] = False
    "Install them again, also if the cache has them."

    def options(self, runtime: str, handler: str, *, layered: bool = False) -> BuildOptions:
        """Return the options of a package. Empty texts, and ``layered``, are those of BuildOptions."""
        return BuildOptions(
            runtime=runtime, handler=handler, install=self.install, reinstall=self.reinstall, layered=layered
        )


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Asynchronous:
    """Asynchronous settings of the function. Options that are not given stay unchanged."""

    retries: int | None = None
    "Retries after a failure of the function, 0 to 3."

    max_age: int | None = None
    "Seconds after which a waiting invocation is discarded. [default: 86400 with the first settings of the function]"

    retry_rules: Path | None = None
    "JSON file with a list of retry rules, which replaces all existing rules."

    status_log: bool | None = None
    "Write each state of an invocation to the project's log stream of states."

    on_success: str | None = None
    """Receiver of outcomes of successful invocations: a function (name or URN), or KIND:FIELD=VALUE,… such as
    SMN:topic_urn=NAME, OBS:bucket=NAME,prefix=TEXT, DIS:stream_name=NAME, KAFKA:instance_id=ID,topic=NAME or
    WEBHOOK:url=URL. Empty: none."""

    on_failure: str | None = None
    "Receiver of outcomes of all other invocations, like --on-success."

    @property
    def destinations(self) -> dict[str, DestinationOption | None]:
        """The given destinations, by their fields in the API; None removes one. Raises UsageError if one is invalid."""
        given = {"on_success": self.on_success, "on_failure": self.on_failure}
        options = {field: f"--{field.replace('_', '-')}" for field in given}
        return {
            field: read_destination(options[field], text) if text else None
            for field, text in given.items()
            if text is not None
        }

    def check(self) -> None:
        """Raise UsageError if an option cannot be used, before anything is sent."""
        _ = self.destinations, self._rules()

    def check_receivers(self, client: Client, made: Collection[str]) -> None:
        """Look up the functions and topics that destinations name, before anything is stored.

        ``made`` are the names of functions that the caller stores. URNs are left to the engine. Raises ApiError or
        UsageError if a function or topic is missing.
        """
        for destination in self.destinations.values():
            if destination is None:
                continue
            if str(destination.fields.get("func_urn", "")).removeprefix("default:") not in made:
                destination.config(client)

    def apply(self, client: Client, name: str) -> Any:
        """Store the given options for the function ``name`` and return its asynchronous settings; None if it has none.

        The API replaces all settings at once, so the stored settings are read first and sent again.
        """
        path = path_of(name, "/async-invoke-config")
        settings = client.find(path)
        if self == Asynchronous():
            return settings
        settings = settings or {"max_async_event_age_in_seconds": EVENT_AGES[1]}
        given = {
            "max_async_retry_attempts": self.retries,
            "max_async_event_age_in_seconds": self.max_age,
            "enable_async_status_log": self.status_log,
            "retry_rules": self._rules(),
        }
        settings |= {field: value for field, value in given.items() if value is not None}
        destinations = dict(settings.get("destination_config") or {})
        for field, destination in self.destinations.items():
            destinations[field] = destination.config(client) if destination else None
        return client.put(path, {**settings, "destination_config": destinations})

    def _rules(self) -> list[Any] | None:
        file = self.retry_rules
        if file is None:
            return None
        try:
            rules = json.loads(file.read_bytes())
        except (OSError, ValueError) as error:
            raise UsageError(f"--retry-rules is {file}: it cannot be read as JSON: {error}") from None
        if not isinstance(rules, list):
            raise UsageError(f"--retry-rules is {file}: it must contain a list of rules")
        return rules


def terms_of(function: Mapping[str, Any], settings: Mapping[str, Any] | None) -> str:
    """Return timeout, memory, runtime, retries and maximum age of a function, as people read them."""
    queued = "no retries and no maximum age, unless the engine has other defaults"
    if settings is not None:
        retries, age = settings["max_async_retry_attempts"], settings["max_async_event_age_in_seconds"]
        queued = f"{retries} retries, maximum age {age:,} s"
    return f"{function['timeout']} s, {function['memory_size']} MB, {function['runtime']}; {queued}"


def _variables(pairs: tuple[str, ...]) -> dict[str, str]:
    variables = {}
    for pair in pairs:
        name, separator, value = pair.partition("=")
        if not separator and name not in os.environ:
            raise UsageError(f"--env is {pair}: write NAME=VALUE, or set the environment variable {pair} before")
        variables[name] = value if separator else os.environ[name]
    return variables
