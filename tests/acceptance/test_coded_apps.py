"""Apps by their names, and settings that the code of functions gives, with a real engine."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from functiond import Client, InvocationFailed

from tests.acceptance.engine_process import folders
from tests.support.cli import functiond_here
from tests.support.engine_process import EngineProcess, engine_process

OWN = "Python{}.{}".format(*sys.version_info)
SETTINGS = """
import os, sys, time, uuid
from functiond import App, Retry, get_context

app = App(name="shop")
INSTANCE = uuid.uuid4().hex

@app.startup
def start():
    os.environ["STARTED"] = os.environ.get("GREETING", "")

@app.function(environment={"GREETING": "hello"}, secrets=["API_TOKEN"], runtime="RUNTIME", folders=["images"])
def surroundings(path: str):
    started, token = os.environ.pop("STARTED"), get_context().getUserData("API_TOKEN")
    return [started, token, "Python%d.%d" % sys.version_info[:2], open(path).read()]

@app.function(soft_timeout=0.1)
def patient() -> None:
    while not get_context().soft_timed_out:
        time.sleep(0.01)

@app.function(rate=0.001, schedule="@daily")
def paced() -> None: ...

@app.function(instances=1)
def single() -> str:
    time.sleep(0.1)
    return INSTANCE

@app.function(retries=3, retry_rules={Exception: Retry(1, base=0), OSError: None, ConnectionError: Retry(2, base=0)})
def fail(kind: str) -> None:
    raise {"reset": ConnectionResetError, "absent": FileNotFoundError, "value": ValueError}[kind](kind)
"""
CRM = """
from functiond import App
app = App()
@app.startup
def open_all(): ...
@app.function()
def report(): ...
@app.function()
def clean(): ...
"""
SHOP = CRM.replace("App()", "App(name='shop')").replace("clean", "bill")


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory, home: Path) -> Iterator[EngineProcess]:
    environ = {"FUNCTIOND_EXECUTOR__ISOLATION": "auto", **folders(home)}
    with engine_process(tmp_path_factory.mktemp("coded"), environ=environ) as running:
        yield running


class Deployer:
    """Deployments from the current folder to a project of an engine."""

    def __init__(self, url: str, project: str) -> None:
        self._url, self.environ = url, {"FUNCTIOND_PROJECT": project, "API_TOKEN": "s3cret"}
        self._list = f"{url}/v2/{project}/fgs/functions"

    def __call__(self, *options: str, code: int = 0) -> str:
        app = "tasks:app" if Path("tasks.py").exists() else "moved:app"
        done = functiond_here("deploy", app, *options, url=self._url, environ=self.environ)
        assert done.returncode == code, done.stderr
        return done.stdout + done.stderr

    def initializer_of(self, name: str) -> str:
        return str(httpx.get(f"{self._list}/{name}/config", trust_env=False, timeout=60).json()["initializer_handler"])

    @property
    def owners(self) -> dict[str, str]:
        listed = httpx.get(self._list, trust_env=False, timeout=60).json()["functions"]
        return {function["func_name"]: function["functiond"].get("app", "") for function in listed}


def test_two_folders_with_equal_names_are_two_apps(
    engine: EngineProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deploy, crm, shop = Deployer(engine.url, "apps"), tmp_path / "crm", tmp_path / "shop"
    for folder, source in ((crm, CRM), (shop, SHOP)):
        (folder / "src").mkdir(parents=True)
        (folder / "pyproject.toml").write_text('[project]\nname = "crm"\n')
        (folder / "src" / "tasks.py").write_text(source)

    monkeypatch.chdir(crm / "src")
    deploy()
    monkeypatch.chdir(shop / "src")
    assert "the function report belongs to the app crm" in deploy(code=1)
    assert '~ app = "shop" (was "crm")' in deploy("--take-over", "--plan", code=4)
    assert deploy.owners == {"report": "crm", "clean": "crm"}
    deploy("--take-over", "--prune")
    assert deploy.owners == {"report": "shop", "clean": "crm", "bill": "shop"}

    monkeypatch.chdir(crm / "src")
    Path("tasks.py").write_text(CRM.replace("report", "import_").replace("clean", "export"))
    assert "deleted clean" in deploy("--prune")
    assert deploy.owners == {"report": "shop", "bill": "shop", "import_": "crm", "export": "crm"}

    (crm / "pyproject.toml").unlink()
    assert "another folder may have a module tasks" in deploy("--prune", code=2)

    monkeypatch.chdir(shop / "src")
    Path("tasks.py").rename("moved.py").write_text(SHOP.partition("@app.function()\ndef bill")[0])
    problem = "the app shop on the engine is tasks:app, with the function report: give one a name by App"
    assert problem in deploy(code=2)
    moved = deploy("--take-over")
    assert "updated report: 30 s, 128 MB" in moved
    assert "not in the code any more: bill; add --prune to delete" in moved
    assert deploy.initializer_of("report") == "functiond_apps/moved/app.startup"
    (tmp_path / "index.py").write_text("def handler(event, context):\n    return 1\n")
    options = ("--name", "report", "--handler", "index.handler", "--take-over")
    functiond_here("deploy", str(tmp_path / "index.py"), *options, url=engine.url, environ=deploy.environ)
    assert (deploy.owners["report"], deploy.initializer_of("report")) == ("", "")


def test_settings_in_code_are_planned_then_in_effect(
    engine: EngineProcess, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = httpx.get(f"{engine.url}/v2/default/fgs/interpreters", trust_env=False, timeout=60).json()
    runtime = next((each["runtime"] for each in listed if each["runtime"] in ("Python3.10", "Python3.12")), OWN)
    deploy, client = Deployer(engine.url, "default"), Client(engine.url)
    (tmp_path / "tasks.py").write_text(SETTINGS.replace("RUNTIME", runtime))
    monkeypatch.chdir(tmp_path)
    plan = deploy("--plan", code=4)
    for line in (
        "create function surroundings", f'+ runtime = "{runtime}"', '+ environment.GREETING = "******"',
        '+ encrypted_environment.API_TOKEN = "******"', '+ strategy_config = {"concurrency": 1}', "+ rate = 0.001",
        "+ soft_timeout = 0.1", "create trigger TIMER from-code of paced", '+ retry_rules = [{"max_retries": 2',
    ):  # fmt: skip
        assert line in plan
    assert ("s3cret" in plan, deploy.owners) == (False, {})
    deployed = deploy()
    assert f"created surroundings: 30 s, 128 MB, {runtime}; no retries" in deployed
    assert "; 0 0 0 * * *\n  due 20" in deployed

    paced = [client.enqueue("paced") for _ in range(2)]
    singles = [client.enqueue("single") for _ in range(6)]
    failing = [client.enqueue("fail", {"kind": kind}) for kind in ("reset", "absent", "value")]
    image = {"path": str(home / "images" / "a")}
    assert client.call("surroundings", image) == ["hello", "s3cret", runtime, "of images"]
    client.call("patient")
    assert len({handle.result(60) for handle in singles}) == 1
    paced[0].result(60)
    for handle in failing:
        with pytest.raises(InvocationFailed):
            handle.result(60)
    assert [len(handle.record().attempts) for handle in failing] == [3, 1, 2]
    assert paced[1].status() == "WAIT"  # one starts in 1,000 s
    assert f"unchanged fail: 30 s, 128 MB, {OWN}; 3 retries, maximum age 86,400 s\n" in deploy()
    assert deploy("--plan") == "Nothing to change.\n"
    deploy.environ["API_TOKEN"] = "new"
    change = 'surroundings\n  ~ encrypted_environment.API_TOKEN = "******" (was "******")\n0 to create, 1 to update, 0'
    assert deploy("--plan", code=4).startswith(f"update function {change}")
    del deploy.environ["API_TOKEN"]
    assert "function surroundings: set the environment variable API_TOKEN, one of its secrets" in deploy(code=2)
