"""Output of commands into a file, while their input and errors are a terminal: ``functiond ... > file``."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import Struct

from tests.support.cli import functiond_here, functiond_into_a_file
from tests.support.engine_process import engine_process

ID = r"[0-9a-f]{8}-[0-9a-f-]{27}"
#: Commands, and a text of the file that each writes. Words in capitals stand for an id and for files.
COMMANDS = [
    (["settings"], r"storage\.data_dir"),
    (["unit", "--program", "/usr/bin/env"], r"\[Unit\]"),
    (["functions"], r"^NAME.*\necho "),
    (["deploy", "CODE", "--name", "copy"], r"^created copy"),
    (["export"], r"\[functions\.echo\]"),
    (["apply", "MANIFEST"], r"^done create topic declared"),
    (["invoke", "echo", "--data", "7"], r"^7$"),
    (["invoke", "echo", "--async"], rf"^{ID}$"),
    (["invoke", "echo", "--async", "--wait", "--data", "7"], r"^7$"),
    (["invoke", "echo", "--async", "--batch", "EVENTS"], rf"^({ID}\n){{3}}$"),
    (["invoke", "echo", "--async", "--batch", "EVENTS", "--json"], r'^({"line": \d, "request_id": .*}\n){3}$'),
    (["invocations", "echo"], rf"^REQUEST ID .*\n{ID} "),
    (["show", "ID"], r"SUCCESS"),
    (["logs", "ID"], r"printed"),
    (["logs", "ID", "--follow"], r"printed"),
    (["explain", "ID"], r"."),
    (["rerun", "ID"], rf"{ID}"),
    (["triggers"], r"^TRIGGER ID .*\n.* nightly "),
    (["trigger", "show", "nightly"], r'"name": "nightly"'),
    (["trigger", "update", "nightly", "schedule=0 0 4 * * ?"], r"^updated TIMER"),
    (["topic", "list"], r"orders"),
    (["stream", "list"], r"."),
    (["version", "list", "echo"], r"latest"),
    (["alias", "create", "echo", "prod", "latest"], r"prod"),
    (["destinations"], r"."),
    (["deliveries"], r"."),
    (["redrive", "--all"], r"."),
    (["discard", "--all"], r"discarded|[Nn]othing|[Nn]o "),
    (["purge", "echo"], r"^cancelled 0 of echo"),
    (["controls", "echo"], r"."),
    (["pause", "idle"], r"idle"),
    (["resume", "idle"], r"idle"),
    (["clock"], r"."),
    (["backup", "FOLDER"], r"backed up"),
    (["doctor"], r"."),
    (["--help"], r"Usage"),
]


class Tried(Struct):
    url: str
    names: dict[str, str]


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tried]:
    folder = tmp_path_factory.mktemp("redirected")
    files = {
        "CODE": ("copy.py", "def handler(event, context):\n    return event\n"),
        "EVENTS": ("events", "1\n2\n3\n"),
        "MANIFEST": ("functiond.toml", "[topics.declared]\n"),
    }
    for name, text in [
        *files.values(),
        ("echo.py", "def handler(event, context):\n    print('printed')\n    return event\n"),
    ]:
        (folder / name).write_text(text)
    with engine_process(folder) as engine:
        for arguments in (
            ["deploy", str(folder / "echo.py")],
            ["deploy", str(folder / "copy.py"), "--name", "idle"],
            ["trigger", "create", "echo", "TIMER", "name=nightly", "schedule_type=Cron", "schedule=0 0 3 * * ?"],
            ["topic", "create", "orders"],
        ):
            done = functiond_here(*arguments, url=engine.url)
            assert done.returncode == 0, done.stderr
        called = functiond_here("invoke", "echo", "--async", "--wait", "--json", url=engine.url)
        names = {"ID": json.loads(called.stdout)["request_id"], "FOLDER": "backup"}
        names |= {name: str(folder / file) for name, (file, _) in files.items()}
        yield Tried(url=engine.url, names=names)


@pytest.mark.parametrize(("command", "written"), [pytest.param(*pair, id=" ".join(pair[0])) for pair in COMMANDS])
def test_the_output_of_a_command_goes_into_the_file(
    tried: Tried, tmp_path: Path, command: list[str], written: str
) -> None:
    arguments = [tried.names.get(word, word) for word in command]

    code, shown = functiond_into_a_file(*arguments, url=tried.url, file=tmp_path / "file")

    text = (tmp_path / "file").read_text()
    assert code == 0, shown
    assert re.search(written, text, re.MULTILINE), text
    assert "\x1b" not in text
