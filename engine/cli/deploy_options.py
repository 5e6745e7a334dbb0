"""Options of ``functiond deploy`` and ``functiond dev``."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Annotated, Any

from cyclopts import Parameter

from engine.deploy.functions import Asynchronous
from engine.deploy.packaging import BuildOptions
from engine.errors import UsageError


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

    def options(self) -> BuildOptions:
        return BuildOptions(install=self.install, reinstall=self.reinstall)


#: Options that ``deploy`` and apps have in common.
AsynchronousOptions = Annotated[Asynchronous, Parameter(name="*")]


def _variables(pairs: tuple[str, ...]) -> dict[str, str]:
    variables = {}
    for pair in pairs:
        name, separator, value = pair.partition("=")
        if not separator and name not in os.environ:
            raise UsageError(f"--env is {pair}: write NAME=VALUE, or set the environment variable {pair} before")
        variables[name] = value if separator else os.environ[name]
    return variables
