from __future__ import annotations

import ast

import pytest

from engine.cli.commands import run
from engine.cli.exit_codes import FAILED, USAGE
from engine.deploy.client import Client, path_of
from engine.errors import UsageError
from tests.support.engine_process import ROOT


def test_a_name_with_any_character_stays_one_part_of_the_path() -> None:
    assert path_of("urn:fss:r:p:function:default:f:!live", "/config") == "/urn:fss:r:p:function:default:f:!live/config"
    assert path_of("a/b?c") == "/a%2Fb%3Fc"


@pytest.mark.parametrize(
    "url",
    ["ftp://x", "http://", "https://", "", "http://a:b", "http://a:99999", "http://[::1", "http://a/b", "http://a?b"],
)
def test_a_url_that_is_none_of_ours_is_told(url: str) -> None:
    with pytest.raises(UsageError, match="must look like"):
        Client(url, "default", "functiond")


def test_a_login_in_a_url_is_refused_and_not_shown() -> None:
    with pytest.raises(UsageError, match="has a login") as refusal:
        Client("http://user:secret@a", "default", "functiond")

    assert "secret" not in str(refusal.value).removesuffix("FUNCTIOND_SECRET_KEY")


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("serve --prot 1", "Unknown option: --prot"),
        ("serve --port x", "--port"),
        ("deploy", "PATH requires an argument"),
        ("nothing", "nothing"),
        ("invoke f --dta 1", "Did you mean --data?"),
        ("invoke f {}", "unexpected argument '{}'"),
        ("invoke f --delay 1", "need --async"),
        ("invoke f --wait", "need --async"),
        ("invoke f --async --timeout 1", "--timeout needs --wait"),
        ("invoke f - --data 1", "give the event once"),
        ("invoke f --file /nowhere", "cannot read /nowhere"),
        ("redrive", "or use --all"),
        ("redrive --all --function f", "omit --function"),
        ("redrive --failed", "name the function whose invocations"),
        ("functions --url ftp://x", "must look like"),
        ("deploy /nowhere", "cannot read /nowhere"),
    ],
)
def test_wrong_use_is_one_line_and_exit_code_2(command: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = run(command.split())

    captured = capsys.readouterr()
    assert (code, captured.out, captured.err.count("\n")) == (USAGE, "", 1)
    assert said in captured.err


def test_an_engine_that_does_not_run_is_told_with_how_to_start_it(capsys: pytest.CaptureFixture[str]) -> None:
    code = run(["functions", "--url", "http://127.0.0.1:1"])

    captured = capsys.readouterr()
    assert (code, captured.out, captured.err.count("\n")) == (FAILED, "", 1)
    assert "start one with `" in captured.err
    assert " serve`" in captured.err


def test_only_the_functions_of_one_module_write_what_comes_from_functions() -> None:
    """These functions escape control characters. The engine's own commands print no text of functions."""
    own = {"output.py", "serve.py", "show_settings.py"}
    modules = [file for file in (ROOT / "engine" / "cli").glob("*.py") if file.name not in own]

    found = [
        f"{file.name}:{node.lineno}"
        for file in modules
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Name) and node.id == "print"
    ]

    assert found == []
    assert len(modules) > 10
