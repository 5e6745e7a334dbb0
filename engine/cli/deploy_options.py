"""What ``functiond deploy`` may be told about a function, and how the API says it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Any

from cyclopts import Parameter

from engine.cli.client import Client, UsageError, path_of


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Configuration:
    """What is not given stays as it is."""

    handler: str | None = None
    "file.function to call. [default: index.handler, or that of the file]"

    runtime: str | None = None
    "Such as Python3.10, the default."

    timeout: int | None = None
    "Seconds that a run may take. [default: 30]"

    memory: int | None = None
    "MB of an instance. [default: 128]"

    env: Annotated[tuple[str, ...], Parameter(negative="", show_default=False)] = ()
    "Environment variable NAME=VALUE; can be given several times, and replaces all that were there."

    def fields(self) -> dict[str, Any]:
        """As the API has them."""
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
class Asynchronous:
    """The function's asynchronous settings; what is not given stays as it is."""

    retries: int | None = None
    "Further attempts after the function failed, 0 to 3."

    max_age: int | None = None
    "Seconds after which what still waits is discarded."

    on_success: str | None = None
    "Function (name or URN) that gets the outcomes that are successes."

    on_failure: str | None = None
    "Function (name or URN) that gets the others."

    def apply(self, client: Client, name: str) -> Any:
        """The settings as they are then; putting them replaces them all."""
        path = path_of(name, "/async-invoke-config")
        settings = client.find(path)
        if self == Asynchronous():
            return settings
        settings = settings or {}
        given = {"max_async_retry_attempts": self.retries, "max_async_event_age_in_seconds": self.max_age}
        settings |= {field: value for field, value in given.items() if value is not None}
        destinations = dict(settings.get("destination_config") or {})
        for field, function in (("on_success", self.on_success), ("on_failure", self.on_failure)):
            if function is not None:
                param = json.dumps({"func_urn": _whole_urn(client, function)})
                destinations[field] = {"destination": "FunctionGraph", "param": param}
        return client.put(path, {**settings, "destination_config": destinations})


def _variables(pairs: tuple[str, ...]) -> dict[str, str]:
    for pair in pairs:
        if "=" not in pair:
            raise UsageError(f"--env {pair}: it must look like NAME=VALUE")
    return dict(pair.split("=", 1) for pair in pairs)


def _whole_urn(client: Client, function: str) -> str:
    if function.startswith("urn:"):
        return function
    urn: str = client.get(path_of(function, "/config"))["func_urn"]
    return urn
