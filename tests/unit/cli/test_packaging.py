"""Packages of folders and files: what they contain, what they leave out, and what is refused."""

from __future__ import annotations

import os
import zipfile
from io import BytesIO
from pathlib import Path

import pytest

from engine.code.unpacking import Limits
from engine.deploy.packaging import default_name
from engine.deploy.packaging.bootstraps import foreign_line_ends, guess_runtime
from engine.deploy.packaging.building import default_handler, default_language, reading
from engine.deploy.packaging.files import select, zipped
from engine.deploy.packaging.node import check_handler as check_node_handler
from engine.deploy.packaging.python import check_handler, check_syntax
from engine.errors import UsageError
from engine.runtimes.catalog import Family
from engine.runtimes.interpreters import InterpreterInfo, describe, own_interpreter


def files(folder: Path, *names: str) -> Path:
    for name in names:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(os.fsencode(f"# {name}\n"))
    return folder


def pack(path: Path) -> bytes:
    """Return the package of a folder or file without its dependencies."""
    with reading(path):
        return zipped(select(path).found if path.is_dir() else {path.name: path}, str(path))


def names_in(package: bytes) -> list[str]:
    return zipfile.ZipFile(BytesIO(package)).namelist()


def own() -> InterpreterInfo:
    info = describe("", Family.PYTHON, own_interpreter().path)
    assert info is not None
    return info


def test_links_to_nothing_and_special_files_are_left_out_and_named(tmp_path: Path) -> None:
    files(tmp_path, "index.py")
    (tmp_path / "gone").symlink_to("nothing")
    os.mkfifo(tmp_path / "pipe")

    assert select(tmp_path).unusable == ["gone", "pipe"]
    assert names_in(pack(tmp_path)) == ["index.py"]


def test_the_same_files_give_the_same_package(tmp_path: Path) -> None:
    first = pack(files(tmp_path / "a", "index.py", "lib/x.py", "lib/a.py"))
    second = pack(files(tmp_path / "b", "lib/a.py", "lib/x.py", "index.py"))
    os.utime(tmp_path / "b" / "index.py", (1, 1))

    assert first == second == pack(tmp_path / "b")
    assert names_in(first) == ["index.py", "lib/a.py", "lib/x.py"]


def test_files_that_tools_leave_are_not_packed(tmp_path: Path) -> None:
    files(tmp_path, "index.py", "__pycache__/index.pyc", ".git/config", "venv/pyvenv.cfg", "venv/lib/x.py", "old.pyc")
    files(tmp_path, "node_modules/.cache/x", "node_modules/a/index.js", "data/journal.db", "data/key")

    assert names_in(pack(tmp_path)) == ["index.py", "node_modules/a/index.js"]


def test_files_that_often_hold_secrets_are_left_out_and_named(tmp_path: Path) -> None:
    secrets = [".aws", ".env", ".netrc", "app/.env.local", "app/id_ed25519", "credentials.toml", "id_rsa"]
    files(tmp_path, "index.py", ".envrc", "id_rsa.pub", ".aws/credentials", *secrets[1:])

    selection = select(tmp_path)

    assert sorted(selection.found) == [".envrc", "id_rsa.pub", "index.py"]
    assert sorted(selection.secrets) == secrets


@pytest.mark.parametrize("name", [".functiondignore", ".gitignore"])
def test_an_ignore_file_names_what_is_left_out(tmp_path: Path, name: str) -> None:
    files(tmp_path, "index.py", "data/big.bin", "data/keep.bin", "tests/test_x.py", "lib/tests/y.py", "a b.txt")
    (tmp_path / name).write_text("# comment\n*.bin\n!keep.bin\n/tests/\na\\ b.txt\n")

    assert names_in(pack(tmp_path)) == ["data/keep.bin", "index.py", "lib/tests/y.py"]


def test_functiondignore_replaces_gitignore_and_brings_no_secret_back(tmp_path: Path) -> None:
    files(tmp_path, "index.py", "dist/app.js", ".env")
    (tmp_path / ".gitignore").write_text("dist\n")
    (tmp_path / ".functiondignore").write_text("!.env\n")

    assert names_in(pack(tmp_path)) == ["dist/app.js", "index.py"]


def test_an_ignore_file_that_is_none_is_refused(tmp_path: Path) -> None:
    (files(tmp_path, "index.py") / ".functiondignore").write_bytes(b"\xff\xfe")

    with pytest.raises(UsageError, match=r"functiondignore is not a list of patterns"):
        pack(tmp_path)


def test_a_program_stays_executable(tmp_path: Path) -> None:
    (files(tmp_path, "index.py", "run.sh") / "run.sh").chmod(0o700)
    modes = {entry.filename: entry.external_attr >> 16 for entry in zipfile.ZipFile(BytesIO(pack(tmp_path))).infolist()}

    assert modes == {"index.py": 0o100644, "run.sh": 0o100755}


def test_links_inside_the_folder_are_packed_as_their_targets(tmp_path: Path) -> None:
    files(tmp_path, "index.py", "lib/a.py")
    (tmp_path / "same.py").symlink_to("lib/a.py")
    (tmp_path / "other").symlink_to(tmp_path / "lib")

    assert names_in(pack(tmp_path)) == ["index.py", "lib/a.py", "other/a.py", "same.py"]
    assert zipfile.ZipFile(BytesIO(pack(tmp_path))).read("same.py") == b"# lib/a.py\n"


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        ("../secret", "is outside the folder"),
        ("/etc/passwd", "is outside the folder"),
        ("/nowhere/at/all", "is outside the folder"),
        (".", "contains the link"),
        (".env", "is never packed"),
        (".git/config", "is never packed"),
    ],
)
def test_links_that_lead_elsewhere_are_refused(tmp_path: Path, target: str, problem: str) -> None:
    folder = files(tmp_path / "f", "index.py", ".env", ".git/config", "../secret")
    (folder / "link").symlink_to(target)

    with pytest.raises(UsageError, match=f"link is a link to {target}, which {problem}"):
        pack(folder)
    (folder / ".functiondignore").write_text("link\n")
    assert names_in(pack(folder)) == ["index.py"]


def test_links_that_multiply_files_are_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.deploy.packaging.files.LIMITS", Limits(entries=1000))
    for level in range(20):
        (tmp_path / f"d{level}").mkdir()
        for name in ("a", "b"):
            (tmp_path / f"d{level}" / name).symlink_to(tmp_path / f"d{level + 1}")
    files(tmp_path, "d20/index.py")

    with pytest.raises(UsageError, match="more than 1,000 files"):
        pack(tmp_path)


@pytest.mark.parametrize("name", ["back\\slash.py", "c:drive.py", "new\nline.py", "caf\udce9.py"])
def test_names_that_packages_do_not_allow_are_refused(tmp_path: Path, name: str) -> None:
    files(tmp_path, "index.py", name)

    with pytest.raises(UsageError, match="has a character that packages do not allow"):
        pack(tmp_path)


def test_other_names_are_packed(tmp_path: Path) -> None:
    names = sorted(["-rf.py", "spa ce.py", "grüße.py", "$(x).py", "%s.py", "[bold].py"])

    assert names_in(pack(files(tmp_path, *names))) == names


def test_a_package_that_is_too_large_is_refused_with_its_largest_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files(tmp_path, "index.py", "node_modules/big/x", "node_modules/small/x")
    (tmp_path / "node_modules/big/x").write_bytes(os.urandom(3 << 20))
    monkeypatch.setattr("engine.deploy.packaging.files.PACKAGE_LIMIT", 2 << 20)

    with pytest.raises(UsageError, match=r"has more than 2.0 MiB, the largest being node_modules/big \(3.0 MiB\)"):
        pack(tmp_path)


@pytest.mark.parametrize("suffix", ["js", "mjs", "cjs"])
def test_javascript_is_for_node(tmp_path: Path, suffix: str) -> None:
    folder, file = files(tmp_path / "a", f"index.{suffix}"), files(tmp_path, f"b.{suffix}") / f"b.{suffix}"

    assert [default_language(path) for path in (folder, file, tmp_path)] == [Family.NODE] * 2 + [Family.PYTHON]
    assert [default_handler(path) for path in (folder, file)] == ["index.handler", "b.handler"]


@pytest.mark.parametrize(
    ("content", "others", "runtime"),
    [
        (b"\x7fELF\0\r\n", (), "http"),
        (b"\x7fELF\0AWS_LAMBDA_RUNTIME_API\0", ("notes.py",), "provided.al2"),
        (b"#!/bin/sh\r\ncurl $RUNTIME_API_ADDR", (), "Custom"),
        (b"", ("index.mjs",), ""),
        (None, ("shop.jar", "lib/other.jar"), "http"),
        (None, ("shop.jar", "other.jar"), ""),
    ],
)
def test_a_bootstrap_or_an_archive_is_seen(
    tmp_path: Path, content: bytes | None, others: tuple[str, ...], runtime: str
) -> None:
    files(tmp_path, *others)
    if content is not None:
        (tmp_path / "bootstrap").write_bytes(content)
    found = select(tmp_path).found

    assert guess_runtime(found, "index.handler")[0] == runtime
    assert len(foreign_line_ends(found)) == (runtime == "Custom")


def test_one_file_is_a_package_of_its_own(tmp_path: Path) -> None:
    files(tmp_path, "hello.py", "other.py")

    assert names_in(pack(tmp_path / "hello.py")) == ["hello.py"]
    assert (default_name(tmp_path / "hello.py"), default_handler(Path("hello.py"))) == ("hello", "hello.handler")


def test_a_folder_is_called_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(files(tmp_path / "resize", "index.py"))

    assert (default_name(Path(".")), default_handler(Path("."))) == ("resize", "index.handler")


@pytest.mark.parametrize("path", ["none.py", "none", "."])
def test_files_that_cannot_be_packed_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.chdir(tmp_path)

    with pytest.raises(UsageError, match=r"cannot read|contains no files"):
        pack(Path(path))


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    (files(tmp_path, "index.py") / "loop").symlink_to("loop")

    with pytest.raises(UsageError, match=r"cannot read .*loop: Too many levels"):
        pack(tmp_path)


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("def other(event, context): ...", "index.py has no function handler .*: it has other; set another --handler"),
        ("x = 1", "it has no functions"),
        ("def outer():\n    def handler(event, context): ...", "it has outer"),
    ],
)
def test_a_handler_without_its_function_is_refused(tmp_path: Path, source: str, problem: str) -> None:
    (tmp_path / "index.py").write_text(source)

    with pytest.raises(UsageError, match=problem):
        check_handler(select(tmp_path).found, "index.handler")


@pytest.mark.parametrize(
    "source",
    [
        "def handler(event, context): ...",
        "async def handler(event, context): ...",
        "from app import handler",
        "from app import main as handler",
        "handler = make()",
        "a, (b, handler) = make()",
        "if True:\n    def handler(event, context): ...",
        "try:\n    from fast import handler\nexcept ImportError:\n    handler = None",
    ],
)
def test_a_handler_is_found_however_it_is_defined(tmp_path: Path, source: str) -> None:
    (tmp_path / "index.py").write_text(source)

    assert check_handler(select(tmp_path).found, "index.handler") == ""


@pytest.mark.parametrize(
    "source", ["from app import *", "globals()['handler'] = 1", "def __getattr__(name): ...", "exec('handler = 1')"]
)
def test_a_handler_that_may_be_defined_at_run_time_is_only_warned_about(tmp_path: Path, source: str) -> None:
    (tmp_path / "index.py").write_text(source)

    assert "cannot see whether" in check_handler(select(tmp_path).found, "index.handler")


@pytest.mark.parametrize(
    ("handler", "problem"),
    [
        ("inex.handler", r"has no inex.py .*did you mean index.handler"),
        ("index", "must look like file.function"),
        (".handler", "must look like file.function"),
    ],
)
def test_a_handler_without_its_file_is_refused(tmp_path: Path, handler: str, problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        check_handler(select(files(tmp_path, "index.py")).found, handler)


@pytest.mark.parametrize("handler", ["parts/other.handler", "parts.other.handler", "mod.handler", "fast.handler"])
def test_handlers_may_be_in_folders_packages_and_compiled_modules(tmp_path: Path, handler: str) -> None:
    files(tmp_path, "parts/other.py", "mod/__init__.py", "fast.cpython-311-x86_64-linux-gnu.so")
    for name in ("parts/other.py", "mod/__init__.py"):
        (tmp_path / name).write_text("handler = print")

    assert check_handler(select(tmp_path).found, handler) == ""


def test_syntax_errors_are_shown_with_file_line_and_text(tmp_path: Path) -> None:
    (tmp_path / "index.py").write_text("def handler(event, context):\n    return event[\n")
    (tmp_path / "nul.py").write_bytes(b"x = 1\0")
    (tmp_path / "late.py").write_text("x = 1\nreturn x\n")

    with pytest.raises(UsageError) as refused:
        check_syntax(select(tmp_path).found, own(), tmp_path)

    said = str(refused.value)
    assert f"{tmp_path}/index.py:2: '[' was never closed: return event[" in said
    assert f"{tmp_path}/late.py:2: 'return' outside function" in said
    assert f"{tmp_path}/nul.py:1: " in said
    assert "says Python 3." in said


def test_installed_distributions_may_contain_what_does_not_compile(tmp_path: Path) -> None:
    files(tmp_path, "index.py", "lib/template.py", "lib-1.0.dist-info/RECORD")
    (tmp_path / "lib/template.py").write_text("def {{ name }}(): ...")
    (tmp_path / "lib-1.0.dist-info/RECORD").write_text("lib/template.py,,\nlib-1.0.dist-info/RECORD,,\n")

    assert check_syntax(select(tmp_path).found, own(), tmp_path) == ""


@pytest.mark.parametrize(("version", "refused"), [("3.9.1", True), ("3.99.0", False)])
def test_without_the_interpreter_the_grammar_of_its_version_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, refused: bool
) -> None:
    wanted = InterpreterInfo(**{**{name: getattr(own(), name) for name in own().__struct_fields__}, "version": version})
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("HOME", "/nowhere")
    (tmp_path / "index.py").write_text("match 1:\n    case 1: ...\n" if refused else "x = y ~~ z\n")

    if refused:
        with pytest.raises(UsageError, match=r"as this machine has no Python 3.9.1 "):
            check_syntax(select(tmp_path).found, wanted, tmp_path)
    else:
        assert "index.py:1: invalid syntax" in check_syntax(select(tmp_path).found, wanted, tmp_path)


def test_a_javascript_handler_that_is_not_exported_is_warned_about(tmp_path: Path) -> None:
    (tmp_path / "index.js").write_text("exports.main = () => 1;\n")
    chosen = select(tmp_path).found

    assert check_node_handler(chosen, "index.main") == ""
    assert "seems to export no function handler" in check_node_handler(chosen, "index.handler")
    with pytest.raises(UsageError, match=r"has no other\.js for the handler other.main"):
        check_node_handler(chosen, "other.main")
