"""Requests generated from the OpenAPI document, valid and invalid, sent to an engine process.

The engine must answer every request in the documented shape and never with a server error.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import sampled_from
from schemathesis import GenerationMode, checks

from engine.http.operations import OPERATIONS
from tests.acceptance.engine_process import PROJECT, engine_on
from tests.support.credentials import credentials_file, token
from tests.support.http_app import HELLO

PROMISES = [checks.not_a_server_error, checks.response_schema_conformance, checks.content_type_conformance]
#: MB; little enough that reserved instances cannot fill the machine
SMALL = {"FUNCTIOND_EXECUTOR__MEMORY": "512"}
BOUNDS = settings(
    max_examples=5,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
#: Operations with parameters; health and metrics have none. Backups copy the storage at length.
NAMES = [
    operation.name for operation in OPERATIONS if operation.path.startswith("/v2/") and operation.name != "CreateBackup"
]
TOKEN = "a-token-of-this-project"


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with engine_on(tmp_path_factory.mktemp("schema"), **SMALL) as engine:
        yield engine.port


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Yield the address of an engine that requires credentials and does not limit failed logins."""
    folder = tmp_path_factory.mktemp("guarded")
    wanted = {**credentials_file(folder, token(TOKEN, PROJECT)), "FUNCTIOND_AUTH__FAILURES": "1000000"}
    with engine_on(folder / "data", **SMALL, **wanted) as engine:
        yield engine.url


@pytest.fixture(scope="module")
def document(port: int) -> Any:
    return schemathesis.openapi.from_url(f"http://127.0.0.1:{port}/openapi.json")


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("mode", list(GenerationMode))
def test_whatever_is_asked_the_answer_is_as_promised(name: str, mode: GenerationMode, document: Any) -> None:
    operation = document.find_operation_by_id(name)

    @BOUNDS
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:
        case.call_and_validate(checks=promises_of(name))

    ask()


@pytest.mark.long
@pytest.mark.parametrize("name", [operation.name for operation in OPERATIONS if "{function_urn}" in operation.path])
@pytest.mark.parametrize("mode", list(GenerationMode))
def test_what_is_asked_of_a_function_is_answered_as_promised(
    name: str, mode: GenerationMode, document: Any, port: int
) -> None:
    operation = document.find_operation_by_id(name)

    @BOUNDS
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:
        create_hello(port)
        case.path_parameters |= {"function_urn": "hello", "project_id": PROJECT}
        case.call_and_validate(checks=promises_of(name))

    ask()


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("mode", list(GenerationMode))
def test_behind_credentials_the_answer_is_as_promised_too(
    name: str, mode: GenerationMode, document: Any, guarded: str
) -> None:
    operation = document.find_operation_by_id(name)

    @settings(BOUNDS, max_examples=3)
    @given(case=operation.as_strategy(generation_mode=mode), known=sampled_from([TOKEN, "unknown", None]))
    def ask(case: Any, known: str | None) -> None:
        case.path_parameters |= {"project_id": PROJECT}
        case.headers = {**(case.headers or {}), **({"X-Auth-Token": known} if known else {})}
        answer = case.call_and_validate(base_url=guarded, checks=promises_of(name))
        assert (answer.status_code in (401, 429)) == (known != TOKEN)

    ask()


@pytest.mark.long
@pytest.mark.parametrize("service", ["Smn", "Dis", "Lts", "Cts", "EventGrid", "Obs"])
@pytest.mark.parametrize("mode", list(GenerationMode))
def test_what_plugins_serve_is_answered_as_promised_too(service: str, mode: GenerationMode, document: Any) -> None:
    names = [name for name in operation_ids(document) if name.startswith(service)]
    assert names
    for name in names:

        @settings(BOUNDS, max_examples=5)
        @given(case=document.find_operation_by_id(name).as_strategy(generation_mode=mode))
        def ask(case: Any) -> None:
            case.path_parameters |= {"project_id": PROJECT}
            case.call_and_validate(checks=PROMISES)

        ask()


def operation_ids(document: Any) -> list[str]:
    return [
        operation["operationId"] for methods in document.raw_schema["paths"].values() for operation in methods.values()
    ]


def promises_of(name: str) -> list[Any]:
    """Return the checks of an operation. A function's result may be anything, so its shape is not checked."""
    return PROMISES[:1] if name == "InvokeFunction" else PROMISES


def create_hello(port: int) -> None:
    """Create the function ``hello`` unless it exists."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        headers = {"Content-Type": "application/json"}
        connection.request("POST", f"/v2/{PROJECT}/fgs/functions", json.dumps(HELLO), headers)
        assert connection.getresponse().status in (200, 409)
    finally:
        connection.close()
