"""The options that all commands share which talk to an engine that runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from cyclopts import Parameter

from engine.cli.client import Client
from engine.cli.words import program


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Target:
    """Which engine, and how to show what it says."""

    url: Annotated[str, Parameter(env_var="FUNCTIOND_URL")] = "http://127.0.0.1:8080"
    "Where the engine is."

    project: Annotated[str, Parameter(env_var="FUNCTIOND_PROJECT")] = "default"
    "Whose functions are meant."

    json: Annotated[bool, Parameter(negative="", show_default=False)] = False
    "Print JSON and nothing else."

    def client(self) -> Client:
        return Client(self.url, self.project, program())


HERE = Target()
