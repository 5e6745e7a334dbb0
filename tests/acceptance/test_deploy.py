"""``functiond deploy`` with dependencies, checks and destinations, by a real engine."""

from __future__ import annotations

import base64
import json
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.deploy.client import Client, path_of
from tests.support.cli import functiond_here
from tests.support.distributions import add_wheel
from tests.support.engine_process import EngineProcess, engine_process

OWN = "{}.{}".format(*sys.version_info)
HANDLER = "import sys, tiny\ndef handler(event, context):\n    return [tiny.VALUE, '%d.%d' % sys.version_info[:2]]\n"
SERVER = """
import sys, tiny
from http.server import BaseHTTPRequestHandler, HTTPServer

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'[%d, "%d.%d"]' % (tiny.VALUE, *sys.version_info[:2]))

HTTPServer(("127.0.0.1", 8000), Handler).serve_forever()
"""


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    with engine_process(tmp_path_factory.mktemp("deploy")) as running:
        yield running


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "index").mkdir()
    add_wheel(tmp_path / "index", "tiny")
    index = str(tmp_path / "index")
    return {
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "PIP_FIND_LINKS": index,
        "PIP_NO_INDEX": "1",
        "UV_FIND_LINKS": index,
        "UV_OFFLINE": "1",
    }


def write(folder: Path, **files: str) -> Path:
    folder.mkdir()
    for name, text in files.items():
        (folder / name.replace("_", ".")).write_text(text)
    return folder


def test_a_function_runs_with_its_requirements(engine: EngineProcess, tmp_path: Path, environ: dict[str, str]) -> None:
    folder = write(tmp_path / "needy", index_py=HANDLER, requirements_txt="tiny\n")
    (folder / ".env").write_text("SECRET=1\n")
    (folder / "notes.md").write_text("")
    (folder / ".gitignore").write_text("*.md\n")

    run = functiond_here("deploy", folder, url=engine.url, environ=environ)
    again = functiond_here("deploy", folder, "--json", url=engine.url, environ=environ)
    called = functiond_here("invoke", "needy", url=engine.url)

    assert run.returncode == 0, run.stderr
    assert json.loads(called.stdout) == [1, OWN]
    installing, left_out, ignored = run.stderr.splitlines()
    assert installing.startswith("functiond: installing requirements.txt with ")
    assert f" for Python {OWN}." in installing
    assert left_out.startswith("functiond: left out .env, which may hold secrets: set variables by --env, or rename")
    assert ignored.startswith("functiond: left out notes.md, as .gitignore says; ")
    assert f", index.handler on Python {OWN}." in run.stdout
    assert json.loads(again.stdout)["runtime"] == f"Python{OWN}"
    assert again.stderr.startswith("functiond: dependencies from the cache: requirements.txt ")


def test_the_server_of_an_http_function_finds_its_requirements(
    engine: EngineProcess, tmp_path: Path, environ: dict[str, str]
) -> None:
    folder = write(tmp_path / "served", requirements_txt="tiny\n", server_py=SERVER)
    (folder / "bootstrap").write_text("#!/bin/sh\nexec python3 server.py\n")  # not executable
    event = {"httpMethod": "GET", "path": "/", "headers": {}}
    limits = ("--instances", "2", "--concurrency", "3")

    run = functiond_here("deploy", folder, *limits, "--json", url=engine.url, environ=environ)
    called = functiond_here("invoke", "served", "--data", json.dumps(event), url=engine.url)

    assert run.returncode == 0, run.stderr
    assert f" for Python {OWN}." in run.stderr
    assert "functiond: bootstrap runs as a server on port 8000 (runtime http): " in run.stderr
    assert json.loads(run.stdout)["strategy_config"] == {"concurrency": 2, "concurrent_num": 3}
    assert json.loads(base64.b64decode(json.loads(called.stdout)["body"])) == [1, OWN]


def test_without_installation_the_folder_is_sent_as_it_is(engine: EngineProcess, tmp_path: Path) -> None:
    folder = write(tmp_path / "bare", index_py=HANDLER, requirements_txt="no-such-distribution\n")

    run = functiond_here("deploy", folder, "--no-install", url=engine.url)
    called = functiond_here("invoke", "bare", url=engine.url)

    assert run.returncode == 0, run.stderr
    assert "No module named 'tiny'" in called.stdout


@pytest.mark.parametrize(
    ("files", "options", "said"),
    [
        (
            {"index_py": "def handler(event, context) return 1"},
            (),
            "index.py:1: expected ':': def handler(event",
        ),
        ({"index_py": ""}, ("--runtime", "Cobol"), "FSS.1005 runtime is 'Cobol'"),
        ({"app_jar": ""}, ("--runtime", "Java17"), "provided.al2 with AWS's aws-lambda-java-runtime-interface-client"),
        ({"a_jar": "", "b_jar": ""}, ("--runtime", "http"), "add one, or a single .jar, which gets one"),
        ({"main_go": ""}, (), "or add a bootstrap or a .jar for another language"),
        ({"app_jar": ""}, ("--runtime", "Python3.10"), "or start app.jar by --runtime http, Custom or provided.al2"),
    ],
)
def test_code_that_cannot_run_is_refused_before_it_is_sent(
    engine: EngineProcess, tmp_path: Path, files: dict[str, str], options: tuple[str, ...], said: str
) -> None:
    folder = write(tmp_path / "broken", **files)

    run = functiond_here("deploy", folder, *options, url=engine.url)

    assert run.returncode != 0
    assert said in run.stderr
    assert "broken" not in functiond_here("functions", url=engine.url).stdout


def test_a_zip_with_an_archive_gets_no_bootstrap_and_a_damaged_one_is_refused(
    engine: EngineProcess, tmp_path: Path
) -> None:
    for name in ("shop.jar", "bootstrap"):
        with zipfile.ZipFile(tmp_path / f"{name}.zip", "w") as archive:
            archive.writestr(name, "content")
    damaged = tmp_path / "bootstrap.zip"
    damaged.write_bytes(damaged.read_bytes().replace(b"content", b"CONTENT"))

    archived = functiond_here("deploy", tmp_path / "shop.jar.zip", "--name", "zipped", url=engine.url)
    refused = functiond_here("deploy", damaged, url=engine.url)

    assert "no index.py for the handler index.handler" in archived.stderr
    assert "func_code is 'a zip package': it is not a sound zip file" in refused.stderr


def test_destinations_of_any_kind_are_options(engine: EngineProcess, tmp_path: Path) -> None:
    folder = write(tmp_path / "source", index_py="def handler(event, context): ...\n")
    assert functiond_here("topic", "create", "alarms", url=engine.url).returncode == 0
    success, failure = ("--on-success", "DIS:stream_name=outcomes"), ("--on-failure", "smn:topic_urn=alarms")

    first = functiond_here("deploy", folder, *success, *failure, "--status-log", "--json", url=engine.url)
    second = functiond_here("deploy", folder, "--on-success", "", "--json", url=engine.url)
    wrong = functiond_here("deploy", folder, "--name", "unsent", "--on-failure", "SMN:topic=alarms", url=engine.url)

    settings = json.loads(first.stdout)["async_invoke_config"]
    params = {name: json.loads(spec["param"]) for name, spec in settings["destination_config"].items()}
    assert params["on_success"] == {"stream_name": "outcomes"}
    assert params["on_failure"]["topic_urn"].endswith(":alarms")
    assert settings["enable_async_status_log"] is True
    assert set(json.loads(second.stdout)["async_invoke_config"]["destination_config"]) == {"on_failure"}
    absent = functiond_here("deploy", folder, "--name", "unsent", "--on-success", "nobody", url=engine.url)

    assert (wrong.returncode, "did you mean topic_urn?" in wrong.stderr) == (2, True)
    assert (absent.returncode, "the function nobody" in absent.stderr) == (1, True)
    assert "unsent" not in functiond_here("functions", url=engine.url).stdout


def test_a_folder_and_a_manifest_take_a_function_from_an_app_only_if_told(
    engine: EngineProcess, tmp_path: Path
) -> None:
    folder, file = write(tmp_path / "till", index_py="def handler(event, context): ...\n"), tmp_path / "till.toml"
    file.write_text('[functions.till]\ncode = "till"\ntimeout = 7\n')

    def run(*arguments: str | Path) -> str:
        done = functiond_here(*arguments, url=engine.url)
        return done.stdout + done.stderr if done.returncode else "done"

    def claim(app: str) -> str:
        shown = Client(engine.url, "default").patch(path_of("till", f"/config?app={app}&take_over=true"), {})
        return str(shown["functiond"]["app"])

    deploy = ("deploy", folder, "--timeout", "9")
    assert run("deploy", folder) == "done"
    claim("shop")
    listed = [functiond_here(*command, url=engine.url).stdout for command in (["apps"], ["functions", "--app", "shop"])]
    refused = [run(*deploy), run("apply", file)]
    file.write_text("[topics.none]\n")
    pruned = run("apply", file, "--prune", "--yes")
    file.write_text('[functions.till]\ncode = "till"\n')
    taken = [run(*deploy, "--take-over"), claim("crm"), run("apply", file, "--take-over"), run(*deploy)]

    assert [("shop" in text, "till" in text) for text in listed] == [(True, True)] * 2
    assert ["the function till belongs to the app shop" in text for text in refused] == [True, True]
    assert (pruned, taken) == ("done", ["done", "crm", "done", "done"])
    assert functiond_here("apps", url=engine.url).stdout == "No apps.\n"


def test_variables_come_from_options_and_from_the_environment(engine: EngineProcess, tmp_path: Path) -> None:
    source = "import os\ndef handler(event, context):\n    return os.environ['GIVEN'] + os.environ['PASSED']\n"
    folder = write(tmp_path / "variables", index_py=source)
    options = ("--env", "GIVEN=a=b", "--env", "PASSED")

    run = functiond_here("deploy", folder, *options, url=engine.url, environ={"PASSED": "-secret"})
    unset = functiond_here("deploy", folder, *options, url=engine.url)

    assert run.returncode == 0, run.stderr
    assert functiond_here("invoke", "variables", url=engine.url).stdout.strip() == "a=b-secret"
    assert (unset.returncode, "set the environment variable PASSED" in unset.stderr) == (2, True)
