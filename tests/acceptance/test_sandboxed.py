"""Engine that runs functions in sandboxes, the default where bubblewrap works."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.acceptance.engine_process import BASE, EngineProcess, engine_on, urn_of
from tests.support.programs import has_networks, needs

pytestmark = needs("bwrap")

SOURCE = """
import os

def handler(event, context):
    return {"user": os.getuid(), "tmp": os.listdir("/tmp"), "code": os.listdir("/opt/function/code")}
"""


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    with engine_on(tmp_path_factory.mktemp("sandboxed") / "data", FUNCTIOND_EXECUTOR__ISOLATION="auto") as engine:
        engine.create("sandboxed", SOURCE)
        yield engine


def test_the_isolation_is_reported_by_readiness_and_metrics(engine: EngineProcess) -> None:
    ready = engine.ask("GET", "/readyz").json

    assert ready["isolation"].startswith("bubblewrap, ")
    assert ready["isolation"].endswith(", seccomp")
    assert ready["http_network"] in ("mapped", "unavailable")
    assert ready["network"] == "project" or not has_networks()
    assert f'isolation{{by="{ready["isolation"]}"}} 1' in engine.ask("GET", "/metrics").body.decode()


def test_a_function_runs_inside(engine: EngineProcess) -> None:
    reply = engine.ask("POST", f"{BASE}/{urn_of('sandboxed')}/invocations", {})

    assert reply.status == 200
    assert reply.json["user"] >= 1_900_000_000 if os.geteuid() == 0 else reply.json["user"] == 1003
    assert (reply.json["tmp"], reply.json["code"]) == ([], ["index.py"])
