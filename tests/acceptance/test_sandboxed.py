"""Engine that runs functions in sandboxes, the default where bubblewrap works."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.engine_process import BASE, FILES, PROJECT, EngineProcess, engine_on, folders, urn_of
from tests.support.cli import functiond_here
from tests.support.programs import has_networks, needs

pytestmark = needs("bwrap")

SOURCE = """
import os

def handler(event, context):
    return {"user": os.getuid(), "tmp": os.listdir("/tmp"), "code": os.listdir("/opt/function/code")}
"""


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory, home: Path) -> Iterator[EngineProcess]:
    folder, listed = tmp_path_factory.mktemp("sandboxed"), folders(home, NODE__PATH=str(home), NODE__PROJECTS="p2")
    with pytest.raises(AssertionError, match="contains"), engine_on(home / "data", **listed):
        pass
    listed["FUNCTIOND_EXECUTOR__FOLDERS__NODE__PATH"] += "/node"
    with engine_on(folder / "data", FUNCTIOND_EXECUTOR__ISOLATION="auto", **listed) as engine:
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


def test_it_sees_the_folders_that_it_asks_for(engine: EngineProcess, home: Path, tmp_path: Path) -> None:
    hint, node = (
        "ask for a folder of the host",
        "exports.handler = async e => require('fs').readFileSync(e.path, 'utf8');",
    )
    engine.create("files", FILES, functiond={"weight": 2, "folders": ["images"]})
    engine.create("node", node, runtime="Node.js20.15")

    assert engine.result("files", home / "images" / "a") == "of images"
    assert "Read-only" in engine.result("files", home / "images" / "b", text="b")
    assert hint not in engine.result("files", home / "images" / "none")
    assert all(hint in engine.result(name, home / "out" / "a") for name in ("files", "node"))
    for wrong in ("node", "none"):
        reply = engine.ask("PATCH", f"{BASE}/{urn_of('files')}/config", {"functiond": {"folders": [wrong]}})
        assert (reply.status, "for this project: images, out" in reply.json["error_msg"]) == (400, True)

    (tmp_path / "files.py").write_text(FILES)
    options = ("--project", PROJECT, "--handler", "files.handler", "--folder", "out")
    assert functiond_here("deploy", tmp_path / "files.py", *options, url=engine.url).returncode == 0
    assert engine.result("files", home / "out" / "b", text="new") == "3"
    assert engine.ask("GET", f"{BASE}/{urn_of('files')}/config").json["functiond"] == {"weight": 2, "folders": ["out"]}
