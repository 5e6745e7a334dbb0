"""Credentials for two projects, an engine that requires them, and SDK clients that use them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from msgspec import Struct

from tests.acceptance.engine_process import PROJECT, EngineProcess, engine_on
from tests.acceptance.sdk import sdk_client, sdk_home
from tests.support.credentials import credentials_file, key, token

SECRET = "a-secret-of-this-engine"
TOKEN = "a-token-of-this-engine"
OTHERS_TOKEN = "a-token-of-another-project"


def two_keys(folder: Path) -> dict[str, str]:
    """Write credentials: AK1 and a token for the tests' project, AK2 and another token for another project."""
    owners = (("AK1", TOKEN, PROJECT), ("AK2", OTHERS_TOKEN, "another"))
    tables = (key(access, SECRET, project) + token(text, project) for access, text, project in owners)
    return credentials_file(folder, *tables)


class Guarded(Struct):
    engine: EngineProcess  #: sends the token of the tests' project by default
    kind: Any  #: class of the SDK's client
    stack: ExitStack

    def client(self, access: str = "AK1", secret: str = SECRET, project: str = PROJECT) -> Any:
        return sdk_client(self.engine.port, self.stack, access, secret, project=project, kind=self.kind)


@contextmanager
def guarded(folder: Path, kind: Any, **settings: str) -> Iterator[Guarded]:
    """Run an engine with credentials, so that the SDK's signatures are verified."""
    settings |= two_keys(folder)
    with sdk_home(folder), engine_on(folder / "data", **settings) as engine, ExitStack() as stack:
        engine.headers["X-Auth-Token"] = TOKEN
        yield Guarded(engine=engine, kind=kind, stack=stack)
