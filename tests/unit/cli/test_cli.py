"""Command line: errors of use, and destinations as options."""

from __future__ import annotations

import ast
import subprocess
from pathlib import Path

import pytest

from engine.cli.commands import run
from engine.cli.output import FAILED, USAGE
from engine.deploy.client import Client, path_of
from engine.deploy.destinations import DestinationOption, read_destination
from engine.errors import UsageError
from tests.support.engine_process import ROOT


def test_a_name_with_any_character_stays_one_part_of_the_path() -> None:
    assert path_of("urn:fss:r:p:function:default:f:!live", "/config") == "/urn:fss:r:p:function:default:f:!live/config"
    assert path_of("a/b?c") == "/a%2Fb%3Fc"


@pytest.mark.parametrize(
    "url",
    ["ftp://x", "http://", "https://", "", "http://a:b", "http://a:99999", "http://[::1", "http://a/b", "http://a?b"],
)
def test_an_invalid_url_is_refused(url: str) -> None:
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
        ("invoke f --async --ordering-key ключ", "ordering_key is 'ключ': it may have printable ASCII characters only"),
        ("redrive", "or use --all"),
        ("redrive --all --function f", "omit --function"),
        ("redrive --failed", "name the function whose invocations"),
        ("functions --url ftp://x", "must look like"),
        ("deploy /nowhere", "cannot read /nowhere"),
        ("agent --join https://a:1 --token /nowhere --cpus 0", "--cpus. Must be > 0"),
        ("agent --join https://a:1 --token /nowhere --memory -1", "--memory. Must be > 0"),
    ],
)
def test_wrong_use_is_one_line_and_exit_code_2(command: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = run(command.split())

    captured = capsys.readouterr()
    assert (code, captured.out, captured.err.count("\n")) == (USAGE, "", 1)
    assert said in captured.err


def test_an_engine_that_does_not_run_is_an_error_that_says_how_to_start_it(capsys: pytest.CaptureFixture[str]) -> None:
    code = run(["functions", "--url", "http://127.0.0.1:1"])

    captured = capsys.readouterr()
    assert (code, captured.out, captured.err.count("\n")) == (FAILED, "", 1)
    assert "start one with `" in captured.err
    assert " serve`" in captured.err


def test_only_the_functions_of_one_module_write_what_comes_from_functions() -> None:
    """These functions escape control characters. The engine's own commands print no text of functions."""
    own = {"output.py", "serve.py", "show_settings.py"}
    modules = [file for file in (ROOT / "engine" / "cli").glob("*.py") if file.name not in own]

    places = [
        f"{file.name}:{node.lineno}"
        for file in modules
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Name) and node.id == "print"
    ]

    assert places == []
    assert len(modules) > 10


# --- destinations --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "kind", "fields"),
    [
        ("hello", "FunctionGraph", {"func_urn": "hello"}),
        ("package:hello", "FunctionGraph", {"func_urn": "package:hello"}),
        ("urn:fss:r:p:function:default:f:!live", "FunctionGraph", {"func_urn": "urn:fss:r:p:function:default:f:!live"}),
        ("functiongraph:func_urn=hello", "FunctionGraph", {"func_urn": "hello"}),
        ("SMN:topic_urn=urn:smn:r:p:t", "SMN", {"topic_urn": "urn:smn:r:p:t"}),
        ("smn:topic_urn=alarms", "SMN", {"topic_urn": "alarms"}),
        ("OBS:bucket=results,prefix=a/,expires=7", "OBS", {"bucket": "results", "prefix": "a/", "expires": 7}),
        ("DIS:stream_name=123", "DIS", {"stream_name": "123"}),
        ("KAFKA:instance_id=main,topic=t", "KAFKA", {"instance_id": "main", "topic": "t"}),
        ("WEBHOOK:url=https://h/?a=1,2&b=3", "WEBHOOK", {"url": "https://h/?a=1,2&b=3"}),
        ("OWN:path=/tmp/x,count=3", "OWN", {"path": "/tmp/x", "count": 3}),
    ],
)
def test_a_destination_is_a_function_or_a_kind_with_fields(text: str, kind: str, fields: dict[str, object]) -> None:
    assert read_destination("--on-success", text) == DestinationOption(kind=kind, fields=fields)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("SMN:topic=alarms", r"SMN has no field topic: did you mean topic_urn\?"),
        ("KAFKA:instance_id=main", "topic .*; KAFKA has instance_id, topic"),
        ("SMN:", "topic_urn .*; SMN has topic_urn"),
        ("FunctionGraph:", "func_urn .*; FunctionGraph has func_urn"),
        ("OBS:bucket=results,expires=soon", "expires must be a whole number"),
        ("WEBHOOK:url=ftp://x", "must be a complete one that begins with http"),
        ("SMN:topic_urn=a,topic_urn=b", "each field once"),
        ("SMN:=a", "write KIND:FIELD=VALUE"),
    ],
)
def test_a_wrong_field_is_an_error_that_names_the_option(text: str, problem: str) -> None:
    with pytest.raises(UsageError, match=f"^--on-failure is {text}: .*{problem}"):
        read_destination("--on-failure", text)


def test_shells_complete_commands(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for shell, mark in (("zsh", "#compdef functiond"), ("fish", "complete -c functiond"), ("bash", "complete -F")):
        assert run(["completion", shell]) == 0
        script = capsys.readouterr().out
        assert mark in script
    (tmp_path / "script").write_text(script)
    begun = 'COMP_WORDS=(functiond deploy --on-s); COMP_CWORD=2; _functiond; echo "${COMPREPLY[@]}"'

    assert subprocess.check_output(["bash", "-c", f"source {tmp_path}/script; {begun}"]) == b"--on-success\n"
