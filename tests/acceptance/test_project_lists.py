"""Lists that Terraform's provider reads on a running engine: runtimes, agencies, applications and templates."""

from __future__ import annotations

import platform
import shutil
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.acceptance.engine_process import BASE, PROJECT, EngineProcess, engine_on
from tests.support.http_app import HELLO

FGS = f"/v2/{PROJECT}/fgs"


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    with engine_on(tmp_path_factory.mktemp("lists") / "data") as engine:
        yield engine


def create(engine: EngineProcess, name: str, **fields: object) -> Any:
    made = engine.ask("POST", BASE, {**HELLO, "func_name": name, **fields})
    assert made.status == 200, made
    return made.json


def test_runtimes_are_listed_and_each_of_them_can_be_used(engine: EngineProcess) -> None:
    listed = engine.ask("GET", f"{FGS}/runtimetypes")

    names = [one["type"] for one in listed.json]
    assert listed.status == 200
    assert all(one.keys() == {"type", "display_name"} and one["display_name"] for one in listed.json)
    assert {"Python2.7", "Python3.10", "Custom", "http"} <= set(names)
    assert ("Node.js18.15" in names) == (shutil.which("node") is not None)
    made = [create(engine, f"of-{number}", runtime=name) for number, name in enumerate(names)]
    assert [one["runtime"] for one in made] == names


def test_interpreters_are_listed_with_what_packages_must_fit(engine: EngineProcess) -> None:
    everything = engine.ask("GET", f"{FGS}/interpreters").json
    one = engine.ask("GET", f"{FGS}/interpreters?runtime=Python2.7").json
    unknown = engine.ask("GET", f"{FGS}/interpreters?runtime=Cobol")

    own = [found for found in everything if found["runtime"] == "Python{}.{}".format(*sys.version_info)]
    assert [found["version"] for found in own] == [platform.python_version()]
    assert own[0]["machine"] == platform.machine()
    assert [(found["runtime"], found["language"]) for found in one] == [("Python2.7", "python")]
    assert one[0]["version"] in {found["version"] for found in everything}
    assert engine.ask("GET", f"{FGS}/interpreters?runtime=http").json == [{**own[0], "runtime": "http"}]
    assert (unknown.status, unknown.json["error_code"]) == (400, "FSS.1005")


def test_agencies_that_functions_name_are_trusted_and_never_expire(engine: EngineProcess) -> None:
    create(engine, "first-agent", xrole="reader", app_xrole="writer")
    create(engine, "second-agent", xrole="reader", app_xrole="")

    listed = engine.ask("GET", f"{FGS}/service-trusted-agencies")

    assert listed.status == 200
    assert listed.json == [{"name": "reader", "expire_time": None}, {"name": "writer", "expire_time": None}]
    assert engine.ask("GET", "/v2/elsewhere/fgs/service-trusted-agencies").json == []


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("applications?marker=0", "applications"),
        ("application/templates?maxitems=100&runtime=Python3.10&marker=0", "templates"),
        ("templates?maxitems=100&marker=0", "func_templates"),
    ],
)
def test_applications_and_templates_are_empty_lists(engine: EngineProcess, path: str, field: str) -> None:
    listed = engine.ask("GET", f"{FGS}/{path}")
    refused = engine.ask("GET", f"{FGS}/{path.replace('marker=0', 'marker=x')}")

    assert (listed.status, listed.json[field], listed.json["next_marker"]) == (200, [], 0)
    assert (refused.status, refused.json["error_code"]) == (400, "FSS.1001")


def test_applications_cannot_be_created(engine: EngineProcess) -> None:
    refused = engine.ask("POST", f"{FGS}/applications", {"name": "app"})

    assert (refused.status, refused.json["error_code"]) == (405, "FSS.0405")
