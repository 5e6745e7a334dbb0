"""Output of functions that would command a terminal, as commands print it to terminals and pipes."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator

import pytest
from msgspec import Struct

from tests.support.engine_process import CLEAN, PROGRAM, ROOT, engine_process, functiond, functiond_on_a_terminal

pytestmark = pytest.mark.long

#: Prints and raises text that sets the clipboard (OSC 52), rings, overwrites its line, and turns the reading direction.
SOURCE = r"""
import sys

NASTY = "a\x1b]52;c;ZXZpbA==\x07b\x1b[2Jc\rd\x9b1me\u202ef\u2066g\x7fh"

def handler(event, context):
    print(NASTY)
    sys.stderr.write(NASTY + "\n")
    context.getLogger().info(NASTY)
    if event.get("fails"):
        raise ValueError(NASTY + "\nsecond line")
    return NASTY
"""
SHOWN = r"a\x1b]52;c;ZXZpbA==\x07b\x1b[2Jc\rd\x9b1me\u202ef\u2066g\x7fh"
CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


class Nasty(Struct):
    url: str
    succeeded: str  #: request id
    failed: str

    def run(self, *arguments: str, code: int = 0) -> tuple[str, str]:
        """Run a command with pipes, and return what it writes to standard output and standard error."""
        environ = {**CLEAN, "FUNCTIOND_URL": self.url}
        run = subprocess.run(
            [*PROGRAM, *arguments], capture_output=True, env=environ, cwd=ROOT, timeout=120, check=False
        )
        assert run.returncode == code, run.stderr
        return run.stdout.decode(), run.stderr.decode()

    def run_on_a_terminal(self, *arguments: str) -> tuple[int, str]:
        return functiond_on_a_terminal(*arguments, url=self.url)


@pytest.fixture(scope="module")
def nasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nasty]:
    folder = tmp_path_factory.mktemp("nasty")
    (folder / "nasty.py").write_text(SOURCE)
    with engine_process(folder) as engine:
        assert functiond("deploy", folder / "nasty.py", "--retries", "0", url=engine.url).returncode == 0
        ids = []
        for event in ({}, {"fails": True}):
            left = functiond(
                "invoke", "nasty", "--async", "--wait", "--json", "--data", json.dumps(event), url=engine.url
            )
            ids.append(json.loads(left.stdout)["request_id"])
        yield Nasty(url=engine.url, succeeded=ids[0], failed=ids[1])


def commands(nasty: Nasty) -> list[tuple[int, list[str]]]:
    """Return commands that print data of the function, with their exit codes."""
    fails = ["--data", '{"fails": true}']
    return [
        (0, ["logs", nasty.succeeded]),
        (0, ["logs", nasty.succeeded, "--follow"]),
        (0, ["show", nasty.succeeded]),
        (0, ["show", nasty.failed]),
        (0, ["invocations", "nasty"]),
        (0, ["invoke", "nasty", "--log"]),
        (1, ["invoke", "nasty", "--log", *fails]),
        (1, ["invoke", "nasty", "--async", "--wait", "--log", *fails]),
    ]


def test_control_characters_of_functions_are_shown_and_not_sent(nasty: Nasty) -> None:
    for code, command in commands(nasty):
        out, errors = nasty.run(*command, code=code)
        assert CONTROLS.findall(out + errors) == [], command
        assert "\\x9b1me\\u202ef" in out + errors, command


def test_a_terminal_gets_no_control_characters_of_functions(nasty: Nasty) -> None:
    for code, command in commands(nasty):
        returned, got = nasty.run_on_a_terminal(*command)
        assert (returned, CONTROLS.findall(got)) == (code, []), command


def test_json_has_the_characters_as_escapes(nasty: Nasty) -> None:
    for code, command in commands(nasty):
        out, _ = nasty.run(*command, "--json", code=code)
        assert CONTROLS.findall(out) == [], command
        assert "\\u009b1me\\u202ef" in out, command
    shown = json.loads(nasty.run("show", nasty.failed, "--json")[0])
    assert "c\rd\x9b1me\u202ef" in shown["error_message"]


def test_a_line_of_a_function_stays_one_line(nasty: Nasty) -> None:
    """A line end in a message would forge lines of a table, or of other invocations."""
    out, _ = nasty.run("invocations", "nasty", "--status", "fail")
    lines, _ = nasty.run("logs", nasty.succeeded)

    assert all(line.startswith(("REQUEST ID", nasty.failed[:8])) or "nasty" in line for line in out.splitlines())
    assert f"{SHOWN}\\nsecond line" in out
    assert sum(SHOWN in line for line in lines.split("\n")) == 3


def test_a_pipe_gets_raw_output_when_it_is_asked_for(nasty: Nasty) -> None:
    raw = "b\x1b[2Jc\rd\x9b1me\u202ef"
    assert raw in nasty.run("logs", nasty.succeeded, "--raw")[0]
    assert raw in nasty.run("show", nasty.failed, "--raw")[0]
    assert raw in nasty.run("invocations", "nasty", "--raw")[0]
    assert "\x9b1me\u202ef" in nasty.run("invoke", "nasty", "--raw")[0]
    assert raw in nasty.run("invoke", "nasty", "--log", "--raw")[1]


@pytest.mark.parametrize("command", [["logs"], ["show"], ["invocations"], ["invoke"]])
def test_a_terminal_is_refused_raw_output(nasty: Nasty, command: list[str]) -> None:
    name = nasty.succeeded if command[0] in ("logs", "show") else "nasty"

    code, got = nasty.run_on_a_terminal(*command, name, "--raw")

    assert code == 2
    assert got == (
        "functiond: --raw prints control characters of functions, which a terminal obeys: send the output to a file or "
        "a pipe\n"
    )
