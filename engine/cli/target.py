"""Options of all commands that use a running engine: its URL, project and credentials, and the output format."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from cyclopts import Parameter

from engine.cli.options import Flag
from engine.cli.output import program
from engine.deploy.client import Client
from engine.errors import UsageError


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Target:
    """Engine to use, and format of the output."""

    url: Annotated[str, Parameter(env_var="FUNCTIOND_URL")] = "http://127.0.0.1:8080"
    "URL of the engine."

    project: Annotated[str, Parameter(env_var="FUNCTIOND_PROJECT")] = "default"
    "Project of the functions."

    access_key: Annotated[str, Parameter(env_var="FUNCTIOND_ACCESS_KEY", show_default=False)] = ""
    "Access key to sign requests with, if the engine requires credentials."

    secret_key: Annotated[str, Parameter(env_var="FUNCTIOND_SECRET_KEY", show_default=False)] = field(
        default="", repr=False
    )
    "Secret of the access key. Prefer the environment variable: other users can see command lines."

    security_token: Annotated[str, Parameter(env_var="FUNCTIOND_SECURITY_TOKEN", show_default=False)] = field(
        default="", repr=False
    )
    "Security token of a temporary access key."

    token: Annotated[str, Parameter(env_var="FUNCTIOND_TOKEN", show_default=False)] = field(default="", repr=False)
    "Token to send, if there is no access key."

    ca_file: Annotated[str, Parameter(env_var="FUNCTIOND_CA_FILE", show_default=False)] = ""
    "PEM file with the certificates to trust for https, in place of those of the system."

    json: Flag = False
    "Print JSON only."

    def client(self) -> Client:
        if bool(self.access_key) != bool(self.secret_key):
            raise UsageError("--access-key and --secret-key must be given together")
        return Client(
            self.url,
            self.project,
            program(),
            token=self.security_token if self.access_key else self.token,
            access_key=self.access_key,
            secret_key=self.secret_key,
            ca_file=self.ca_file,
        )


DEFAULT_TARGET = Target()
