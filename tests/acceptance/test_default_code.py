"""Functions that are created without code: the requests of Terraform's provider, and runs of the default code."""

from __future__ import annotations

import base64
import io
import json
import zipfile
from typing import Any

import pytest

from tests.acceptance.engine_process import BASE, PROJECT, EngineProcess, Reply, urn_of
from tests.support.http_app import encoded, zipped
from tests.support.programs import needs

PYTHON = "Python3.10"
EVENT = {"name": "Zoë", "n": 1}
#: Event of an API gateway, as HTTP functions receive it.
REQUEST = {"httpMethod": "POST", "path": "/orders", "headers": {}, "body": "straße"}


def create(engine: EngineProcess, name: str, **fields: object) -> Reply:
    """Create a function without code, as Terraform's provider does."""
    body = {
        "func_name": name,
        "runtime": PYTHON,
        "timeout": 30,
        "memory_size": 128,
        "package": "default",
        "handler": "index.handler",
        "code_type": "zip",
        "enterprise_project_id": "",
        "enable_dynamic_memory": False,
        "is_stateful_function": False,
        **fields,
    }
    return engine.ask("POST", BASE, body)


def result(engine: EngineProcess, name: str, event: object) -> Any:
    record = engine.record(name, engine.accepted(name, event), wait=60)
    assert record["status"] == "SUCCESS", record
    return json.loads(record["result"])


def code_of(engine: EngineProcess, name: str) -> zipfile.ZipFile:
    shown = engine.ask("GET", f"{BASE}/{urn_of(name)}/code").json
    return zipfile.ZipFile(io.BytesIO(base64.b64decode(shown["func_code"]["file"])))


@pytest.mark.parametrize("kind", ["zip", "inline"])
@pytest.mark.parametrize(
    ("runtime", "handler", "file"),
    [
        (PYTHON, "index.handler", "index.py"),
        ("Python2.7", "jobs/main.start", "jobs/main.py"),
        pytest.param("Node.js18.15", "src/app.run", "src/app.js", marks=needs("node")),
        ("Custom", "bootstrap", "bootstrap"),
        ("Lambda", "any", "bootstrap"),
    ],
)
def test_default_code_runs_under_the_handler_that_was_given(
    engine: EngineProcess, runtime: str, handler: str, file: str, kind: str
) -> None:
    name = f"{runtime.replace('.', '-')}-{kind}"

    made = create(engine, name, runtime=runtime, handler=handler, code_type=kind)

    assert (made.status, made.json["code_type"], made.json["handler"]) == (200, kind, handler)
    assert made.json["code_size"] > 0
    reply = result(engine, name, EVENT)
    assert (reply["statusCode"], reply["isBase64Encoded"], json.loads(reply["body"])) == (200, False, EVENT)
    if kind == "zip":
        assert code_of(engine, name).namelist() == [file]


@needs("node")
def test_default_code_in_a_module_of_node_is_exported_as_one(engine: EngineProcess) -> None:
    made = create(
        engine, "module", runtime="Node.js18.15", handler="app.run", code_type="inline", code_filename="app.mjs"
    )

    assert (made.status, made.json["code_filename"]) == (200, "app.mjs")
    assert json.loads(result(engine, "module", EVENT)["body"]) == EVENT


def test_default_code_of_an_http_function_is_a_server(engine: EngineProcess) -> None:
    made = create(engine, "server", runtime="http", handler="bootstrap")

    reply = result(engine, "server", REQUEST)

    assert made.status == 200
    assert reply["statusCode"] == 200
    said = json.loads(base64.b64decode(reply["body"]))
    assert said == {"method": "POST", "path": "/orders", "body": "straße"}


def test_equal_default_code_is_stored_once(engine: EngineProcess) -> None:
    link = {"code_url": "https://bucket.example/index.py"}  # as Open Telekom Cloud's client in Go sends it
    linked = create(engine, "twice", **link)
    made = [create(engine, "once").json, linked.json]

    assert linked.headers["x-functiond-ignored-fields"] == "code_url"

    assert made[0]["digest"] == made[1]["digest"]
    assert [entry.date_time for entry in code_of(engine, "once").infolist()] == [(1980, 1, 1, 0, 0, 0)]


def dependency(engine: EngineProcess, name: str) -> str:
    body = {"name": name, "runtime": PYTHON, "depend_type": "zip", "depend_file": encoded(zipped(lib__py="x = 1"))}
    reply = engine.ask("POST", f"/v2/{PROJECT}/fgs/dependencies/version", body)
    assert reply.status == 200, reply
    identity: str = reply.json["id"]
    return identity


def attach(engine: EngineProcess, name: str, **fields: object) -> Reply:
    """Send the request that Terraform's provider sends after it created a function with dependencies."""
    body = {"code_type": "zip", "code_url": "", "code_filename": "", **fields}
    return engine.ask("PUT", f"{BASE}/{urn_of(name)}/code", body)


def test_an_update_of_dependencies_alone_keeps_the_code(engine: EngineProcess) -> None:
    before = create(engine, "attached").json
    ids = [dependency(engine, "lib")]

    after = attach(engine, "attached", depend_version_list=ids)
    emptied = attach(engine, "attached", depend_version_list=[])

    assert [(reply.status, reply.json["digest"]) for reply in (after, emptied)] == [(200, before["digest"])] * 2
    assert (after.json["depend_version_list"], emptied.json["depend_version_list"]) == (ids, [])
    assert json.loads(result(engine, "attached", EVENT)["body"]) == EVENT


def test_a_dependency_without_a_package_is_refused(engine: EngineProcess) -> None:
    body = {"name": "empty", "runtime": PYTHON, "depend_type": "zip"}

    refused = engine.ask("POST", f"/v2/{PROJECT}/fgs/dependencies/version", body)

    assert (refused.status, refused.json["error_code"]) == (400, "FSS.1024")
    assert "depend_type zip needs the code as base64 in depend_file" in refused.json["error_msg"]
