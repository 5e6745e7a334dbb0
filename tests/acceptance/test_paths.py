"""Paths of functions: published by a command, in code and in a manifest, and called over the gateway."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from functiond import Client, InvocationFailed

from tests.support.cli import Cli
from tests.support.engine_process import EngineProcess, engine_process
from tests.support.ports import free_port

PORT = str(free_port())
URL = f"http://127.0.0.1:{PORT}"
GATEWAY = httpx.Client(base_url=URL, headers={"connection": "close"}, trust_env=False, timeout=60)
APP = """
from functiond import App
app = App(name="images")
@app.http("/queue", methods=["POST"], mode="async")
@app.http("/images/{name}", methods=["GET", "POST"])
@app.function(timeout=20)
def resize(name: str, width: int = 1, tags: list[int] = [], crop: bool = False, top: int | None = 3):
    return [name, width, tags, crop, top]
@app.http("/login")
async def login():
    return {"statusCode": 302, "headers": {"location": "/"}}
@app.function()
def double(number: float):
    return 2 * number
"""
MANIFEST = """functions.web = {runtime = "http", http = [{path = "/shop", auth = "IAM"}]}
functions.hello = {http = [{path = "/made", methods = ["GET", "POST"], mode = "async"}]}"""


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    with engine_process(tmp_path_factory.mktemp("paths"), environ={"FUNCTIOND_PLUGINS__APIG__PORT": PORT}) as running:
        yield running


@pytest.fixture
def cli(engine: EngineProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> Cli:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "index.py").write_text(
        "def handler(event, context):\n return {'statusCode': 200, 'body': event['path']}"
    )
    cli = Cli(engine.url, capsys)
    cli("deploy", "index.py", "--name", "hello")
    return cli


def test_commands_and_manifests_publish_paths(cli: Cli) -> None:
    for _ in range(2):
        assert f"{URL}/hello  ANY     sync  NONE  hello     running" in cli("http", "hello", "/hello")
    assert GATEWAY.get("/hello").text == "/hello"
    assert "async  IAM" in cli("http", "hello", "/hello", "--async", "--auth", "IAM")
    assert "async  IAM" in cli("http", "hello", "/hello")
    cli("http", "hello", "/a/{id}", "--method", "GET", "--method", "POST")
    cli("deploy", "index.py", "--name", "other")
    assert "already uses ANY /hello: change or delete it" in cli.refused("http", "other", "/hello", code=1)
    assert "Not found the function nobody" in cli.refused("http", "nobody", "/x", code=1)
    cli("http", "hello", "/a/{id}", "--method", "GET", "--delete")
    cli("http", "hello", "/hello", "--delete")
    assert "no such path /hello of hello" in cli.refused("http", "hello", "/hello", "--delete")
    assert "no such path PATH of hello" in cli.refused("http", "hello", "--delete")

    Path("functiond.toml").write_text(MANIFEST)
    cli("apply")
    assert cli("apply").endswith("Nothing to change.\n")
    made = {(method, "async", "NONE", "hello") for method in ("GET", "POST")} | {("ANY", "sync", "IAM", "web")}
    rows = [tuple(line.split()[1:5]) for line in cli("http").splitlines()[1:]]
    assert {*rows} == made | {("POST", "sync", "NONE", "hello")}
    assert cli.json("http", "web")[0]["event_data"]["match_mode"] == "SWA"


def test_requests_become_arguments_and_paths_go_with_their_code(cli: Cli, engine: EngineProcess) -> None:
    Path("images.py").write_text(APP)
    assert "create trigger APIG from-code POST /queue of resize" in cli.run("deploy", "images:app", "--plan")[1]
    cli("deploy", "images:app")
    assert cli("deploy", "images:app", "--plan") == "Nothing to change.\n"
    cli("http", "double", "/double")
    form = {"width": "7", "crop": "on", "top": "", "tags": "1"}
    assert GATEWAY.get("/images/12?width=300&tags=4&tags=5").json() == ["12", 300, [4, 5], False, 3]
    assert GATEWAY.post("/images/a", data=form).json() == ["a", 7, [1], True, None]
    assert GATEWAY.post("/images/a", content='{"width": 2, "name": "b"}').json() == ["a", 2, [], False, 3]
    assert (GATEWAY.get("/login").status_code, GATEWAY.put("/double?number=1e1").json()) == (302, 20)
    wrong = GATEWAY.get("/images/a?width=x")
    assert (wrong.status_code, wrong.json()["error_msg"]) == (400, "argument `width` is 'x': 'x' is no int")
    assert "neither a JSON object nor a form" in GATEWAY.post("/images/a", files={"name": b""}).text
    accepted = [GATEWAY.post("/queue", data=data) for data in ({"name": "q"}, {"nam": "q"})]
    good, bad = (Client(engine.url).handle("resize", reply.json()["request_id"]) for reply in accepted)
    assert (accepted[0].status_code, good.result(60)) == (202, ["q", 1, [], False, 3])
    with pytest.raises(InvocationFailed, match="a required argument: 'name'"):
        bad.result(60)

    Path("images.py").write_text(APP.replace("def login", "def enter").replace(', "POST"', ""))
    assert "updated resize" in cli("deploy", "images:app", "--prune")
    assert GATEWAY.put("/double?number=2").json() == 4
    statuses = [GATEWAY.get("/login"), GATEWAY.post("/images/a"), GATEWAY.get("/images/a")]
    assert [reply.status_code for reply in statuses] == [302, 404, 200]
    cli("http", "double", "/double", "--async")
    later = GATEWAY.put("/double?number=3", headers={"X-Cff-Invoke-Type": "sync"}).json()["request_id"]
    assert Client(engine.url).handle("double", later).result(60) == 6  # no reply of a gateway
