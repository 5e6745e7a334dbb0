"""The options that all commands share which talk to an engine that runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from cyclopts import Parameter

from engine.cli.client import Client, Key, UsageError
from engine.cli.output import program


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Target:
    """Which engine, and how to show what it says."""

    url: Annotated[str, Parameter(env_var="FUNCTIOND_URL")] = "http://127.0.0.1:8080"
    "Where the engine is."

    project: Annotated[str, Parameter(env_var="FUNCTIOND_PROJECT")] = "default"
    "Whose functions are meant."

    access_key: Annotated[str, Parameter(env_var="FUNCTIOND_ACCESS_KEY", show_default=False)] = ""
    "Access key to sign with, where the engine wants it."

    secret_key: Annotated[str, Parameter(env_var="FUNCTIOND_SECRET_KEY", show_default=False)] = field(
        default="", repr=False
    )
    "Its secret; better given by its variable, since others on this machine see the command line."

    security_token: Annotated[str, Parameter(env_var="FUNCTIOND_SECURITY_TOKEN", show_default=False)] = field(
        default="", repr=False
    )
    "Its token, if it is a temporary key."

    json: Annotated[bool, Parameter(negative="", show_default=False)] = False
    "Print JSON and nothing else."

    def client(self) -> Client:
        return Client(self.url, self.project, program(), self._key())

    def _key(self) -> Key | None:
        if bool(self.access_key) != bool(self.secret_key):
            raise UsageError("--access-key and --secret-key go together")
        if not self.access_key:
            return None
        return Key(access=self.access_key, secret=self.secret_key, token=self.security_token)


HERE = Target()
