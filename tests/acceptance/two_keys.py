"""Credentials for two projects, and clients of the vendor's SDKs that show them."""

from __future__ import annotations

import warnings
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.acceptance.engine_process import PROJECT

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the SDK's own
    from huaweicloudsdkcore.auth.credentials import BasicCredentials

SECRET = "a-secret-of-this-engine"


def key_file(folder: Path) -> Path:
    """AK1 is for the tests' project, AK2 for another."""
    file = folder / "credentials.toml"
    keys = (("AK1", PROJECT), ("AK2", "another"))
    file.write_text(
        "\n".join(f'[[keys]]\naccess = "{key}"\nsecret = "{SECRET}"\nproject = "{project}"' for key, project in keys)
    )
    file.chmod(0o600)
    return file


def sdk_client(
    kind: Any, port: int, stack: ExitStack, access: str = "AK1", secret: str = SECRET, project: str = PROJECT
) -> Any:
    """Closed with the stack."""
    builder = kind.new_builder().with_credentials(BasicCredentials(access, secret, project))
    made = builder.with_endpoint(f"http://127.0.0.1:{port}").build()
    stack.callback(made._http_client._session.close)
    return made
