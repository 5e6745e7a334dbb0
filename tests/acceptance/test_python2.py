"""Functions of Python2.7, which Python 3 runs: creation, first run, console and command line of a running engine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engine.model import Code
from tests.acceptance.browsing import visit
from tests.acceptance.engine_process import BASE, PROJECT, EngineProcess, Reply, urn_of
from tests.support.cli import functiond_here
from tests.support.http_app import HELLO, encoded, zipped

WARNING = "this engine has no Python 2: Python 3 runs functions of Python2.7, and fails at syntax of Python 2"
HEADER = "x-functiond-warning"
OLD, NEW = "Python2.7", "Python3.10"
VERSION = "import sys\n\ndef handler(event, context):\n    print('ran')\n    return list(sys.version_info[:2])\n"
STATEMENT = "def handler(event, context):\n    print 'ran'\n"


def body(name: str, source: str = VERSION, **fields: object) -> dict[str, object]:
    """Return the body that creates a function, as Terraform's provider sends it."""
    function = {**HELLO, "func_name": name, "runtime": OLD, "func_code": {"file": encoded(source)}}
    of_provider = {"enterprise_project_id": "", "enable_dynamic_memory": False, "is_stateful_function": False}
    return {**function, **of_provider, **fields}


def create(engine: EngineProcess, name: str, source: str = VERSION, **fields: object) -> Reply:
    reply = engine.ask("POST", BASE, body(name, source, **fields))
    assert reply.status == 200, reply
    return reply


def ended(engine: EngineProcess, name: str) -> Any:
    return engine.record(name, engine.accepted(name), wait=60)


def test_replies_to_its_changes_have_a_warning_and_others_have_none(engine: EngineProcess) -> None:
    made = create(engine, "warned")
    config = {name: value for name, value in body("warned").items() if name not in ("code_type", "func_code")}
    configured = engine.ask("PUT", f"{BASE}/{urn_of('warned')}/config", {**config, "timeout": 5})
    code = {"code_type": "inline", "func_code": {"file": encoded("x = 1")}}
    recoded = engine.ask("PUT", f"{BASE}/{urn_of('warned')}/code", code)

    newer = create(engine, "unwarned", runtime=NEW)

    assert [reply.status for reply in (configured, recoded)] == [200, 200]
    assert [reply.headers.get(HEADER) for reply in (made, configured, recoded, newer)] == [WARNING] * 3 + [None]


def test_an_imported_function_of_python_2_comes_with_the_warning(engine: EngineProcess) -> None:
    create(engine, "exported")
    package = engine.ask("GET", f"{BASE}/{urn_of('exported')}/export").body

    fields = {"func_name": "imported", "file_name": "f.zip", "file_type": "zip", "file_code": encoded(package)}
    imported = engine.ask("POST", f"{BASE}/import", fields)

    assert (imported.status, imported.json["runtime"], imported.headers.get(HEADER)) == (200, OLD, WARNING)


def test_source_with_old_syntax_is_refused_with_the_warning_and_the_line(engine: EngineProcess) -> None:
    refused = engine.ask("POST", BASE, body("refused", STATEMENT))
    create(engine, "recoded")
    create(engine, "other", "", func_code={"file": encoded(b"\xe9")})  # cannot be judged here
    code = {"code_type": "inline", "func_code": {"file": encoded(STATEMENT)}}
    recoded = engine.ask("PUT", f"{BASE}/{urn_of('recoded')}/code", code)

    for reply in (refused, recoded):
        assert (reply.status, reply.json["error_code"]) == (400, "FSS.1011")
        assert f"{WARNING}; line 2: Missing parentheses" in reply.json["error_msg"]
    assert engine.ask("GET", f"{BASE}/{urn_of('refused')}/config").status == 404


def test_a_run_that_fails_at_old_syntax_has_the_warning_in_its_log(engine: EngineProcess) -> None:
    create(engine, "statement", code_type="zip", func_code={"file": encoded(zipped(index__py=STATEMENT))})

    record = ended(engine, "statement")

    assert (record["status"], record["error_code"]) == ("FAIL", Code.ENTRY_NOT_FOUND)
    assert "SyntaxError" in record["error_message"] or "print" in record["error_message"]
    assert record["log"].startswith(WARNING)


def test_the_console_shows_the_warning_at_the_function(engine: EngineProcess) -> None:
    create(engine, "seen")
    create(engine, "plain", runtime=NEW)

    rows = {row["Function"].split()[0]: row for row in visit(engine, f"/console/projects/{PROJECT}/functions").rows}

    assert rows["seen"]["Runtime"].startswith(OLD)
    assert rows["seen"]["Runtime"].endswith(WARNING)
    assert WARNING not in rows["plain"]["Runtime"]


@pytest.mark.parametrize(("runtime", "warnings"), [(OLD, [f"functiond: {WARNING}"]), (NEW, [])])
def test_deploy_prints_the_warning(engine: EngineProcess, tmp_path: Path, runtime: str, warnings: list[str]) -> None:
    (tmp_path / "deployed.py").write_text(VERSION)

    run = functiond_here("deploy", tmp_path / "deployed.py", "--runtime", runtime, "--json", url=engine.url)

    assert (run.returncode, run.stderr.splitlines()) == (0, warnings)
    assert json.loads(run.stdout)["runtime"] == runtime
