"""Credentials for two projects, an engine that requires them, and SDK clients that use them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from msgspec import Struct

from tests.acceptance.engine_process import PROJECT, EngineProcess, engine_on
from tests.acceptance.sdk import sdk_client, sdk_home

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


class Guarded(Struct):
    engine: EngineProcess  #: sends the token of the tests' project by default
    kind: Any  #: class of the SDK's client
    stack: ExitStack

    def client(self, access: str = "AK1", secret: str = SECRET, project: str = PROJECT) -> Any:
        return sdk_client(self.engine.port, self.stack, access, secret, project=project, kind=self.kind)


@contextmanager
def guarded(folder: Path, kind: Any, **settings: str) -> Iterator[Guarded]:
    """Run an engine with credentials, so that the SDK's signatures are verified."""
    settings["FUNCTIOND_AUTH__FILE"] = str(key_file(folder))
    with sdk_home(folder), engine_on(folder / "data", **settings) as engine, ExitStack() as stack:
        engine.headers["X-Auth-Token"] = TOKEN
        yield Guarded(engine=engine, kind=kind, stack=stack)
