"""Dependencies of JavaScript functions, installed by real npm from local packages."""

from __future__ import annotations

import json
import subprocess
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path

import pytest
from msgspec.structs import replace

from engine.deploy.packaging import cache
from engine.deploy.packaging.building import with_dependencies
from engine.deploy.packaging.files import select, zipped
from engine.deploy.packaging.node import check_syntax
from engine.errors import UsageError
from engine.runtimes.catalog import Family
from engine.runtimes.interpreters import InterpreterInfo, describe
from tests.support.distributions import add_npm_package
from tests.support.programs import needs, program

pytestmark = [needs("npm"), needs("node")]
SCRIPT = {"scripts": {"install": "echo built > built.txt"}}


@pytest.fixture
def own() -> InterpreterInfo:
    info = describe("Node.js", Family.NODE, program("node"))
    assert info is not None
    return info


@pytest.fixture
def other(own: InterpreterInfo) -> InterpreterInfo:
    return replace(own, machine="aarch64" if own.machine == "x86_64" else "x86_64")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("npm_config_cache", str(tmp_path / "npm-cache"))
    monkeypatch.setenv("npm_config_update_notifier", "false")
    (tmp_path / "fn").mkdir()
    (tmp_path / "fn" / "index.js").write_text("exports.handler = async () => require('tiny').value;\n")
    return tmp_path / "fn"


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    """Serve the packages of a folder. Return its URL."""
    (tmp_path / "index").mkdir()
    handler = partial(Quiet, directory=str(tmp_path / "index"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None: ...


def describe_package(folder: Path, **fields: object) -> None:
    (folder / "package.json").write_text(json.dumps({"name": "fn", **fields}))


def packed(folder: Path, wanted: InterpreterInfo) -> zipfile.ZipFile:
    with with_dependencies(folder, select(folder).found, wanted, reinstall=False) as files:
        return zipfile.ZipFile(BytesIO(zipped(files, str(folder))))


def test_dependencies_are_installed_and_kept(
    folder: Path, registry: str, own: InterpreterInfo, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = add_npm_package(tmp_path / "index", "tiny", bin="index.js", **SCRIPT)
    scripts = {"prepare": "exit 1", "postinstall": "exit 1"}
    links = {"tiny": f"{registry}/{file.name}"}
    describe_package(folder, dependencies=links, devDependencies={"none": "1.0.0"}, scripts=scripts)
    (folder / "node_modules" / "stale").mkdir(parents=True)
    (folder / "node_modules" / "stale" / "index.js").write_text("")

    first = packed(folder, own)
    file.unlink()
    second = packed(folder, own)

    names = set(first.namelist())
    assert {"index.js", "package.json", "node_modules/tiny/index.js", "node_modules/tiny/built.txt"} == names - {
        "node_modules/tiny/package.json"
    }
    assert second.namelist() == first.namelist()
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith(f"functiond: installing package.json with npm for Node.js {own.version} (")
    assert said[1].startswith("functiond: dependencies from the cache: package.json ")
    assert sorted(path.name for path in folder.iterdir()) == ["index.js", "node_modules", "package.json"]


def test_a_lock_file_chooses_what_is_installed(folder: Path, own: InterpreterInfo) -> None:
    add_npm_package(folder, "tiny")
    describe_package(folder, dependencies={"tiny": "file:tiny-1.0.0.tgz"})
    command = [program("npm"), "install", "--package-lock-only", "--no-audit"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)

    assert "node_modules/tiny/index.js" in packed(folder, own).namelist()
    describe_package(folder, dependencies={"more": "file:tiny-1.0.0.tgz"})
    with pytest.raises(UsageError, match="cannot finish installing") as refused:
        packed(folder, own)
    assert "npm ci" in str(refused.value)


def test_folders_inside_are_dependencies_and_are_not_kept(folder: Path, own: InterpreterInfo) -> None:
    (folder / "lib").mkdir()
    (folder / "lib" / "package.json").write_text('{"name": "tiny", "version": "1.0.0"}')
    (folder / "lib" / "index.js").write_text("exports.value = 1;\n")
    describe_package(folder, dependencies={"tiny": "file:./lib"})

    assert packed(folder, own).read("node_modules/tiny/index.js") == b"exports.value = 1;\n"
    assert list(cache.cache_folder().iterdir()) == []


@pytest.mark.parametrize("spec", ["file:../lib", "file:/etc", "link:../../x"])
def test_folders_outside_are_refused(folder: Path, own: InterpreterInfo, spec: str) -> None:
    describe_package(folder, dependencies={"tiny": spec})

    with pytest.raises(UsageError, match=f"names {spec}, outside the folder"):
        packed(folder, own)


def test_packages_that_must_be_built_are_refused_for_another_platform(
    folder: Path, other: InterpreterInfo, registry: str, tmp_path: Path
) -> None:
    def link(name: str, **description: object) -> dict[str, str]:
        return {name: f"{registry}/{add_npm_package(tmp_path / 'index', name, **description).name}"}

    natives = link("for-arm64", cpu=["arm64"]) | link("for-x64", cpu=["x64"])
    describe_package(folder, dependencies=link("tiny"), optionalDependencies=natives)
    names = {name.split("/")[1] for name in packed(folder, other).namelist() if "/" in name}
    assert names == {"tiny", "for-arm64" if other.machine == "aarch64" else "for-x64"}

    describe_package(folder, dependencies=link("built", **SCRIPT))
    with pytest.raises(UsageError, match=r"built must be built for Node.js .*, which this machine does not have"):
        packed(folder, other)


@pytest.mark.parametrize("text", ["{", "[]", '{"dependencies": []}'])
def test_a_malformed_description_is_refused(folder: Path, own: InterpreterInfo, text: str) -> None:
    (folder / "package.json").write_text(text)

    with pytest.raises(UsageError, match=r"package\.json cannot be used"):
        packed(folder, own)


def test_a_description_without_dependencies_keeps_the_folders_own(folder: Path, own: InterpreterInfo) -> None:
    describe_package(folder, devDependencies={"none": "1.0.0"})
    (folder / "node_modules").mkdir()
    (folder / "node_modules" / "own.js").write_text("")

    assert packed(folder, own).namelist() == ["index.js", "node_modules/own.js", "package.json"]


def test_without_npm_the_user_is_told(folder: Path, own: InterpreterInfo, monkeypatch: pytest.MonkeyPatch) -> None:
    describe_package(folder, dependencies={"tiny": "1.0.0"})
    monkeypatch.setenv("PATH", "/nowhere")

    with pytest.raises(UsageError, match="this machine has no npm to install them"):
        packed(folder, own)


def test_syntax_errors_are_told_in_the_words_of_node(folder: Path, own: InterpreterInfo) -> None:
    (folder / "lib.mjs").write_text("export const x = 1;\n")
    check_syntax(select(folder).found, own)
    (folder / "lib.mjs").write_text("export const x = ;\n")

    with pytest.raises(UsageError, match=r"(?s)the code has a syntax error, says Node.js .*lib\.mjs:1.*Unexpected"):
        check_syntax(select(folder).found, own)
