from __future__ import annotations

import ast
import os
import zipfile
from io import BytesIO
from pathlib import Path

import pytest

from engine.cli.client import Client, UsageError, path_of
from engine.cli.commands import run
from engine.cli.exit_codes import FAILED, USAGE
from engine.cli.packaging import default_handler, default_name, default_runtime, missing_entry, pack
from tests.support.engine_process import ROOT


def files(folder: Path, *names: str) -> Path:
    for name in names:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"# {name}\n")
    return folder


def names_in(package: bytes) -> list[str]:
    return zipfile.ZipFile(BytesIO(package)).namelist()


def test_the_same_files_give_the_same_package(tmp_path: Path) -> None:
    first = pack(files(tmp_path / "a", "index.py", "lib/x.py", "lib/a.py"))
    second = pack(files(tmp_path / "b", "lib/a.py", "lib/x.py", "index.py"))
    os.utime(tmp_path / "b" / "index.py", (1, 1))

    assert first == second == pack(tmp_path / "b")
    assert names_in(first) == ["index.py", "lib/a.py", "lib/x.py"]


def test_what_tools_leave_behind_is_not_packed(tmp_path: Path) -> None:
    files(tmp_path, "index.py", "__pycache__/index.pyc", ".git/config", ".venv/x", "old.pyc")

    assert names_in(pack(tmp_path)) == ["index.py"]


def test_a_program_stays_executable(tmp_path: Path) -> None:
    (files(tmp_path, "index.py", "run.sh") / "run.sh").chmod(0o700)
    modes = {one.filename: one.external_attr >> 16 for one in zipfile.ZipFile(BytesIO(pack(tmp_path))).infolist()}

    assert modes == {"index.py": 0o100644, "run.sh": 0o100755}


def test_pipes_and_dangling_links_are_left_out(tmp_path: Path) -> None:
    os.mkfifo(files(tmp_path, "index.py") / "pipe")
    (tmp_path / "link").symlink_to("nowhere")

    assert names_in(pack(tmp_path)) == ["index.py"]


@pytest.mark.parametrize("suffix", ["js", "mjs", "cjs"])
def test_javascript_is_for_node(tmp_path: Path, suffix: str) -> None:
    folder, file = files(tmp_path / "a", f"index.{suffix}"), files(tmp_path, f"b.{suffix}") / f"b.{suffix}"

    assert [default_runtime(path) for path in (folder, file, tmp_path)] == ["Node.js18.15"] * 2 + ["Python3.10"]
    assert [default_handler(path) for path in (folder, file)] == ["index.handler", "b.handler"]


def test_one_file_is_a_package_of_its_own(tmp_path: Path) -> None:
    files(tmp_path, "hello.py", "other.py")

    assert names_in(pack(tmp_path / "hello.py")) == ["hello.py"]
    assert (default_name(tmp_path / "hello.py"), default_handler(Path("hello.py"))) == ("hello", "hello.handler")


def test_a_zip_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "ready.zip").write_bytes(b"PK")

    assert pack(tmp_path / "ready.zip") == b"PK"


def test_a_folder_is_called_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(files(tmp_path / "resize", "index.py"))

    assert (default_name(Path(".")), default_handler(Path("."))) == ("resize", "index.handler")


@pytest.mark.parametrize(
    ("runtime", "handler", "missing"),
    [
        ("Python3.10", "index.handler", ""),
        ("Python3.10", "parts/other.handler", "parts/other.py"),
        ("Python3.10", "mod.handler", ""),
        ("Node.js18.15", "index.handler", "index.js"),
        ("Custom", "anything", ""),
        ("no such", "x.handler", ""),
    ],
)
def test_a_package_without_the_file_of_its_handler_is_noticed(
    tmp_path: Path, runtime: str, handler: str, missing: str
) -> None:
    assert missing_entry(pack(files(tmp_path, "index.py", "mod/__init__.py")), runtime, handler) == missing


@pytest.mark.parametrize("path", ["none.py", "none", "."])
def test_what_cannot_be_packed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.chdir(tmp_path)

    with pytest.raises(UsageError, match=r"cannot read|contains no files"):
        pack(Path(path))


def test_a_name_with_any_character_stays_one_part_of_the_path() -> None:
    assert path_of("urn:fss:r:p:function:default:f:!live", "/config") == "/urn:fss:r:p:function:default:f:!live/config"
    assert path_of("a/b?c") == "/a%2Fb%3Fc"


@pytest.mark.parametrize("url", ["ftp://x", "http://", "https://", ""])
def test_a_url_that_is_none_of_ours_is_told(url: str) -> None:
    with pytest.raises(UsageError, match="must look like"):
        Client(url, "default", "functiond")


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
