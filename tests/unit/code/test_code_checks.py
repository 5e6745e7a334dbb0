"""Checks whether stored code can run."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import pytest

from engine.code.browsing import view_package
from engine.code.checks import Find, problem_of
from engine.model.invocation import CodePackage
from engine.runtimes.catalog import Family
from engine.runtimes.interpreters import Interpreter, Interpreters
from tests.support.builders import a_function
from tests.support.http_app import zipped
from tests.support.programs import needs

INTERPRETERS = Interpreters()
SOURCE = "def handler(event, context):\n    return event\n"
PACKAGE = CodePackage(sha256="s", digest="d", size=1, kind="zip", filename="p.zip")


async def problem(
    folder: Path,
    package: bytes,
    shown: str = "index.py",
    *,
    runtime: str = "Python3.10",
    find: Find = INTERPRETERS.find,
) -> str:
    file = folder / "package.zip"
    file.write_bytes(package)
    function = a_function(function_id=1, project="p", name="f", runtime=runtime, timeout=1, code=PACKAGE)
    view = view_package(file, PACKAGE, lambda files: shown if shown in {entry.path for entry in files.files} else "")
    return await problem_of(function, view, find)


def raw(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name.replace("__", "."), content)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"index__py": SOURCE}, ""),
        ({"index__py": "def handle(event, context):\n    pass\n"}, "index.py: it has no function handler, which the"),
        ({"index__py": "from shop import *\n"}, ""),
        ({"index__py": "def handler(:\n"}, "index.py: line 1: "),
        ({"index__py": "if 1:\n    x = 1\n  y = 2\n"}, "index.py: line 3: unindent"),
        ({"other__py": SOURCE}, "the package has no file index.py, which the handler index.handler needs"),
        ({"index/__init____py": SOURCE, "index__pyc": ""}, ""),
        ({}, "the package has no files"),
    ],
)
async def test_python_code_that_cannot_run_is_found(tmp_path: Path, files: dict[str, str], expected: str) -> None:
    text = await problem(tmp_path, zipped(**files))

    assert text.startswith(expected)
    assert bool(text) is bool(expected)


async def test_a_syntax_error_names_the_version_that_finds_it(tmp_path: Path) -> None:
    assert ", says Python 3." in await problem(tmp_path, zipped(index__py="x = = 1\n"), runtime="Python3.19")


async def test_a_file_with_nul_is_no_text(tmp_path: Path) -> None:
    assert "index.py is no text: it has NUL" in await problem(tmp_path, raw(index__py=SOURCE.encode() + b"\0"))


async def test_code_that_nests_too_deeply_ends_no_engine(tmp_path: Path) -> None:
    text = await problem(tmp_path, zipped(index__py="x = " + "-" * 100_000 + "1\n" + SOURCE))

    assert text.startswith(("index.py: MemoryError", "index.py: RecursionError: "))


@needs("node")
async def test_node_code_with_a_syntax_error_is_found(tmp_path: Path) -> None:
    node: dict[str, Any] = {"shown": "index.js", "runtime": "Node.js18.15"}

    assert (await problem(tmp_path, zipped(index__js="exports.handler = ;\n"), **node)).startswith(
        "index.js: SyntaxError: Unexpected token"
    )
    assert await problem(tmp_path, zipped(index__js="exports.handler = async (event) => event;\n"), **node) == ""


async def test_code_is_shown_without_a_warning_when_no_interpreter_can_be_started(tmp_path: Path) -> None:
    async def find(runtime: str) -> tuple[Family, Interpreter]:
        return Family.PYTHON, Interpreter((3, 10), str(tmp_path / "missing"))

    assert await problem(tmp_path, zipped(index__py="def handler(:\n"), find=find) == ""
