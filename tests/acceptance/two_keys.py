"""Credentials for two projects, an engine that requires them, and SDK clients that use them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct

from tests.acceptance.engine_process import PROJECT, EngineProcess, engine_on

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # warnings of the SDK's own code
    from huaweicloudsdkcore.auth.credentials import BasicCredentials

SECRET = "a-secret-of-this-engine"
TOKEN = "a-token-of-this-engine"
OTHERS_TOKEN = "a-token-of-another-project"


def key_file(folder: Path) -> Path:
    """Write credentials: AK1 and a token for the tests' project, AK2 and another token for another project."""
    file = folder / "credentials.toml"
    keys = (("AK1", TOKEN, PROJECT), ("AK2", OTHERS_TOKEN, "another"))
    file.write_text(
        "\n".join(
            f'[[keys]]\naccess = "{key}"\nsecret = "{SECRET}"\nproject = "{project}"\n'
            f'[[tokens]]\ntoken = "{token}"\nproject = "{project}"'
            for key, token, project in keys
        )
    )
    file.chmod(0o600)
    return file


def sdk_client(
    kind: Any, port: int, stack: ExitStack, access: str = "AK1", secret: str = SECRET, project: str = PROJECT
) -> Any:
    """Return an SDK client that is closed with the stack."""
    builder = kind.new_builder().with_credentials(BasicCredentials(access, secret, project))
    made = builder.with_endpoint(f"http://127.0.0.1:{port}").build()
    stack.callback(made._http_client._session.close)
    return made


class Guarded(Struct):
    engine: EngineProcess  #: sends the token of the tests' project by default
    kind: Any  #: class of the SDK's client
    stack: ExitStack

    def client(self, **key: str) -> Any:
        return sdk_client(self.kind, self.engine.port, self.stack, **key)


@contextmanager
def guarded(folder: Path, kind: Any, **settings: str) -> Iterator[Guarded]:
    """Run an engine with credentials, so that the SDK's signatures are verified."""
    with (
        pytest.MonkeyPatch.context() as patch,
        engine_on(folder / "data", FUNCTIOND_AUTH__FILE=str(key_file(folder)), **settings) as engine,
        ExitStack() as stack,
    ):
        patch.setenv("HOME", str(folder))  # the SDK writes a file to it
        engine.headers["X-Auth-Token"] = TOKEN
        yield Guarded(engine=engine, kind=kind, stack=stack)
