"""Vendor's Python SDK, unmodified, with an engine process, and calls of its operations."""

from __future__ import annotations

import io
import json
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct

from tests.acceptance.engine_process import EngineProcess, engine_on
from tests.support.http_app import PROJECT, REGION, encoded, urn_of

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # warnings of the SDK's own code
    from huaweicloudsdkcore.auth.credentials import BasicCredentials
    from huaweicloudsdkcore.exceptions.exceptions import (
        ClientRequestException,
        ServerResponseException,
        ServiceResponseException,
    )
    from huaweicloudsdkcore.sdk_request import SdkRequest
    from huaweicloudsdkcore.signer.signer import Signer
    from huaweicloudsdkdis import v2 as dis
    from huaweicloudsdkfunctiongraph import v2 as fg
    from huaweicloudsdklts import v2 as lts
    from huaweicloudsdksmn import v2 as smn

__all__ = [
    "PROJECT",
    "REGION",
    "BasicCredentials",
    "ClientRequestException",
    "SdkRequest",
    "ServerResponseException",
    "ServiceResponseException",
    "Signer",
    "dis",
    "encoded",
    "fg",
    "lts",
    "smn",
    "urn_of",
]  # fmt: skip

#: Marks of tests that call the SDK.
SDK_WARNINGS = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Unable to convert string to datetime:ImportWarning"),
]
ECHO = "def handler(event, context):\n    print('seen')\n    return event\n"


class Platform(Struct):
    engine: EngineProcess
    client: Any

    @property
    def port(self) -> int:
        return self.engine.port


def sdk_client(
    port: int,
    stack: ExitStack,
    access: str,
    secret: str,
    *,
    project: str = PROJECT,
    token: str = "",
    kind: Any = fg.FunctionGraphClient,
) -> Any:
    """Return an SDK client that is closed with the stack."""
    credentials = BasicCredentials(access, secret, project)
    if token:
        credentials = credentials.with_security_token(token)
    builder = kind.new_builder().with_credentials(credentials)
    made = builder.with_endpoint(f"http://127.0.0.1:{port}").build()
    stack.callback(made._http_client._session.close)
    return made


@contextmanager
def sdk_home(folder: Path) -> Iterator[None]:
    """Let the SDK write its file to ``folder``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(folder))
        yield


@contextmanager
def platform_on(folder: Path, **settings: str) -> Iterator[Platform]:
    """Run an engine and yield it with a client. Settings are environment variables."""
    with sdk_home(folder), engine_on(folder / "data", **settings) as engine, ExitStack() as stack:
        yield Platform(engine=engine, client=sdk_client(engine.port, stack, "LOCALAK", "LOCALSK"))


def send(client: Any, operation: str, /, *, models: Any = fg, **fields: object) -> Any:
    """Call an operation by its name in the SDK. Its request and the body of that get the fields that they have."""
    kind = getattr(models, f"{operation}Request")
    given = {name: value for name, value in fields.items() if name in kind.openapi_types}
    body = getattr(models, kind.openapi_types.get("body", ""), None)
    if body is not None and "body" not in given:
        inner = {name: value for name, value in fields.items() if name in body.openapi_types}
        given |= {"body": body(**inner)} if inner else {}
    return getattr(client, method_of(operation))(kind(**given))


def method_of(operation: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", operation).lower()


def ask(platform: Platform, operation: str, function: str = "", /, **fields: object) -> Any:
    """Call an operation of functions: on ``name``, which is its latest version, ``name:version`` or a whole URN."""
    name, _, version = function.partition(":")
    urn = function if name == "urn" else urn_of(name, f":{version or 'latest'}")
    named = {"function_urn": urn, "func_urn": urn} if function else {}
    return send(platform.client, operation, **named, **fields)


def create(platform: Platform, name: str, source: str = ECHO, **fields: object) -> Any:
    """Create a function of inline code."""
    usual = {
        "package": "default",
        "runtime": "Python3.10",
        "handler": "index.handler",
        "timeout": 30,
        "memory_size": 128,
        "code_type": "inline",
        "func_code": fg.FuncCode(file=encoded(source.encode())),
    }
    return ask(platform, "CreateFunction", **{**usual, "func_name": name, **fields})


def deploy(platform: Platform, name: str, runtime: str, files: Mapping[str, str], **fields: str) -> None:
    """Create a function from a package whose ``bootstrap`` is an executable file."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, text in files.items():
            entry = zipfile.ZipInfo(path)
            entry.external_attr = (0o755 if path == "bootstrap" else 0o644) << 16
            archive.writestr(entry, text)
    code = {"code_type": "zip", "code_filename": "f.zip", "func_code": fg.FuncCode(file=encoded(buffer.getvalue()))}
    create(platform, name, runtime=runtime, **code, **fields)


def call(platform: Platform, name: str, event: Mapping[str, Any]) -> Any:
    """Invoke synchronously, and return the response with the result and the log."""
    return ask(platform, "InvokeFunction", name, x_cff_log_type="tail", x_cff_request_version="v1", body=event)


def invoke(platform: Platform, name: str, event: object = None) -> str:
    """Invoke asynchronously, and return the request id."""
    request_id: str = ask(platform, "AsyncInvokeFunction", name, body=event or {"k": "v", "u": "é中"}).request_id
    return request_id


def ended(platform: Platform, name: str, request_id: str) -> Any:
    """Wait for the end and return the complete record. The URN has raw colons, as sent by curl and Terraform."""
    path = f"/v2/{PROJECT}/fgs/functions/{urn_of(name)}/async-invocations/{request_id}?wait=60"
    return json.loads(platform.engine.ask("GET", path, timeout=120).body)


@contextmanager
def refused(status: int, code: str, text: str = "") -> Iterator[None]:
    """Expect a refusal with a message that contains ``text``."""
    with pytest.raises(ClientRequestException) as caught:
        yield
    assert (caught.value.status_code, caught.value.error_code) == (status, code)
    assert caught.value.request_id
    assert caught.value.error_msg
    assert text in caught.value.error_msg
