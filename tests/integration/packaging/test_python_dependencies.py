"""Dependencies of Python functions, installed by real uv and pip from a folder of packages."""

from __future__ import annotations

import os
import shutil
import sys
import zipfile
from io import BytesIO
from pathlib import Path

import pytest
from msgspec.structs import replace

from engine.deploy.packaging import cache
from engine.deploy.packaging.building import with_dependencies
from engine.deploy.packaging.files import select, zipped
from engine.deploy.packaging.python import find_dependencies
from engine.errors import UsageError
from engine.runtimes.catalog import Family
from engine.runtimes.interpreters import InterpreterInfo, describe, own_interpreter
from tests.support.distributions import add_source_package, add_wheel

TOOLS = ("uv", "pip")


def own() -> InterpreterInfo:
    info = describe("Python3.x", Family.PYTHON, own_interpreter().path)
    assert info is not None
    return info


OTHER = {"machine": "riscv64" if own().machine == "aarch64" else "aarch64", "libc": "glibc", "libc_version": "2.36"}


@pytest.fixture(params=TOOLS)
def tool(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Let only one program be found, with a folder of packages as its only index."""
    (tmp_path / "bin").mkdir()
    if request.param == "uv":
        uv = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
        if uv is None:
            pytest.skip("there is no uv on this machine")
        (tmp_path / "bin" / "uv").symlink_to(uv)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    if shutil.which("uv") and request.param == "pip":
        monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    for name in ("PIP_FIND_LINKS", "UV_FIND_LINKS"):
        monkeypatch.setenv(name, str(tmp_path / "index"))
    for name in ("PIP_NO_INDEX", "UV_OFFLINE"):
        monkeypatch.setenv(name, "1")
    for name in ("PIP_CACHE_DIR", "UV_CACHE_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "tool-cache"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "index").mkdir()
    tool: str = request.param
    return tool


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "fn").mkdir()
    (tmp_path / "fn" / "index.py").write_text("import tiny\n")
    return tmp_path / "fn"


def packed(folder: Path, wanted: InterpreterInfo, *, reinstall: bool = False) -> zipfile.ZipFile:
    with with_dependencies(folder, select(folder).found, wanted, reinstall=reinstall) as files:
        return zipfile.ZipFile(BytesIO(zipped(files, str(folder))))


def test_requirements_are_installed_and_kept(
    tool: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add_wheel(tmp_path / "index", "tiny")
    add_source_package(tmp_path / "index", "sourced")
    (folder / "requirements.txt").write_text("# needed\ntiny\n-r more.txt\n")
    (folder / "more.txt").write_text("sourced==1.0\n")

    first = packed(folder, own())
    shutil.rmtree(tmp_path / "index")
    second = packed(folder, own())
    said = capsys.readouterr().err.splitlines()
    (folder / "more.txt").write_text("sourced==1.0  # a change\n")

    assert first.read("sourced.py") == b"VALUE = 'built'\n"
    assert {"index.py", "tiny.py", "tiny-1.0.dist-info/METADATA"} <= set(first.namelist())
    assert not any(name.startswith((".", "bin/")) or "__pycache__" in name for name in first.namelist())
    assert second.namelist() == first.namelist()
    assert said[0].startswith(f"functiond: installing requirements.txt with {tool} for Python {own().version} (")
    assert said[1].startswith("functiond: dependencies from the cache: requirements.txt ")
    with pytest.raises(UsageError, match="cannot finish installing"):
        packed(folder, own())


def test_modules_of_the_folder_do_not_run_where_it_is_deployed(
    tool: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_wheel(tmp_path / "index", "tiny")
    (folder / "pip").mkdir()
    for name in ("pip/__init__.py", "pip/__main__.py", "json.py", "typing.py"):
        (folder / name).write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    (folder / "requirements.txt").write_text("tiny\n")
    monkeypatch.setenv("PYTHONPATH", f":{tmp_path}:.")

    assert "tiny.py" in packed(folder, own()).namelist()
    assert not (tmp_path / "ran").exists()


def test_the_dependencies_of_a_project_are_installed_without_it(tool: str, folder: Path, tmp_path: Path) -> None:
    add_wheel(tmp_path / "index", "tiny")
    text = '[project]\nname = "mine"\nversion = "1"\ndependencies = ["tiny>=1; python_version >= \'3.9\'"]\n'
    (folder / "pyproject.toml").write_text(text)

    names = packed(folder, own()).namelist()

    assert "tiny.py" in names
    assert not any(name.startswith("mine") for name in names)


def test_wheels_are_fetched_for_another_platform(tool: str, folder: Path, tmp_path: Path) -> None:
    wanted = replace(own(), **OTHER)
    tag = f"cp{wanted.minor[0]}{wanted.minor[1]}"
    for machine in (OTHER["machine"], own().machine):
        text = f"VALUE = '{machine}'\n"
        add_wheel(tmp_path / "index", "tiny", f"{tag}-{tag}-manylinux_2_28_{machine}", text)
    (folder / "requirements.txt").write_text("tiny\n")

    assert packed(folder, wanted).read("tiny.py") == f"VALUE = '{OTHER['machine']}'\n".encode()


def test_wheels_are_fetched_for_a_version_that_is_not_here(tool: str, folder: Path, tmp_path: Path) -> None:
    add_wheel(tmp_path / "index", "tiny", "cp399-cp399-manylinux_2_17_x86_64")
    (folder / "requirements.txt").write_text("tiny\n")
    wanted = replace(own(), version="3.99.0", machine="x86_64", libc="glibc", libc_version="2.31")

    assert "tiny.py" in packed(folder, wanted).namelist()


def test_source_packages_are_refused_for_another_platform(tool: str, folder: Path, tmp_path: Path) -> None:
    add_source_package(tmp_path / "index", "sourced")
    (folder / "requirements.txt").write_text("sourced\n")

    with pytest.raises(UsageError) as refused:
        packed(folder, replace(own(), **OTHER))

    said = str(refused.value)
    assert f"cannot finish installing requirements.txt with {tool} for Python {own().version}" in said
    assert "sourced" in said
    assert "Source packages are refused: they would be built for this machine" in said
    assert list(cache.cache_folder().iterdir()) == []


@pytest.mark.parametrize("tool", ["uv"], indirect=True)
def test_local_requirements_are_installed_each_time(tool: str, folder: Path, tmp_path: Path) -> None:
    (folder / "vendor").mkdir()
    (folder / "requirements.txt").write_text("./vendor/tiny-1.0-py3-none-any.whl\n")
    results = []
    for text in (b"VALUE = 1\n", b"VALUE = 2\n"):
        add_wheel(folder / "vendor", "tiny", text=text.decode())
        results.append(packed(folder, own()).read("tiny.py") == text)

    assert results == [True, True]
    assert list(cache.cache_folder().iterdir()) == []


@pytest.mark.parametrize(
    ("line", "kept"),
    [
        ("tiny==1.0  # see docs/why.md", True),
        ("-r parts/base.txt", True),
        ("--index-url https://index.example/simple", True),
        ("tiny @ https://files.example/tiny-1.0-py3-none-any.whl", True),
        ("-r https://lists.example/base.txt", False),
        ("tiny @ git+https://git.example/tiny", False),
        ("tiny @ file:///srv/tiny", False),
        ("vendor/tiny.whl", False),
        ("-e .", False),
        ("--find-links wheels", False),
    ],
)
def test_requirements_that_may_change_are_not_kept(folder: Path, line: str, kept: bool) -> None:
    (folder / "parts").mkdir()
    (folder / "parts" / "base.txt").write_text("other\n")
    (folder / "requirements.txt").write_text(f"{line}\n")
    dependencies = find_dependencies(folder)

    assert dependencies is not None
    assert bool(dependencies.content) == kept
    assert ("other" in dependencies.content) == ("base.txt" in line and kept)


@pytest.mark.parametrize("tool", ["uv"], indirect=True)
def test_reinstall_takes_what_the_index_has_now(tool: str, folder: Path, tmp_path: Path) -> None:
    (folder / "requirements.txt").write_text("tiny\n")
    results = []
    for version, reinstall in (("1.0", False), ("2.0", False), ("2.0", True)):
        add_wheel(tmp_path / "index", "tiny", text=f"VALUE = {version}\n", version=version)
        results.append(packed(folder, own(), reinstall=reinstall).read("tiny.py"))

    assert results == [b"VALUE = 1.0\n", b"VALUE = 1.0\n", b"VALUE = 2.0\n"]


@pytest.mark.parametrize("tool", ["uv"], indirect=True)
def test_files_of_the_folder_replace_those_of_dependencies(tool: str, folder: Path, tmp_path: Path) -> None:
    add_wheel(tmp_path / "index", "tiny")
    (folder / "requirements.txt").write_text("tiny\n")
    (folder / "tiny.py").write_text("VALUE = 'own'\n")

    assert packed(folder, own()).read("tiny.py") == b"VALUE = 'own'\n"


@pytest.mark.parametrize("tool", ["uv"], indirect=True)
def test_the_cache_is_bounded(tool: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "LIMIT", 1)
    for number in range(3):
        add_wheel(tmp_path / "index", f"tiny{number}")
        (folder / "requirements.txt").write_text(f"tiny{number}\n")
        packed(folder, own())
        for path in cache.cache_folder().iterdir():
            os.utime(path, (number, number))  # long ago

    assert len(list(cache.cache_folder().iterdir())) == 1


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("requirements.txt", b"\xff", "is not UTF-8"),
        ("pyproject.toml", b"[project", "pyproject.toml cannot be used"),
        ("pyproject.toml", b"[project]\ndependencies = 'x'", "must be a list of texts"),
        ("pyproject.toml", b"[project]\ndynamic = ['dependencies']", "write requirements.txt"),
    ],
)
def test_a_malformed_list_is_refused(folder: Path, name: str, text: bytes, problem: str) -> None:
    (folder / name).write_bytes(text)

    with pytest.raises(UsageError, match=problem):
        packed(folder, own())


@pytest.mark.parametrize(
    ("name", "text"),
    [("requirements.txt", "# none\n\n"), ("pyproject.toml", "[tool.ruff]\n"), ("pyproject.toml", "[project]\n")],
)
def test_a_list_without_requirements_installs_nothing(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text)

    assert packed(folder, own()).namelist() == sorted(["index.py", name])


def test_without_uv_and_pip_the_user_is_told(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.deploy.packaging.python.find_spec", {}.get)
    monkeypatch.setenv("PATH", str(tmp_path))
    (folder / "requirements.txt").write_text("tiny\n")

    with pytest.raises(UsageError, match="this machine has neither: install uv, or pip by"):
        packed(folder, own())
