"""Folder from which the package of an app is built."""

from __future__ import annotations

from pathlib import Path

import pytest
from functiond.app import Deployment
from functiond.describe import Description
from msgspec.structs import replace

from engine.deploy.apps import describe, staged
from engine.errors import UsageError


@pytest.fixture(autouse=True)
def folder_of_the_app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def app(root: Path, *parts: str) -> Description:
    instance = root / "instance"
    instance.write_text("# functiond\n")
    return Description(
        name="shop",
        named=True,
        module="shop.jobs",
        app="app",
        source="app",
        root=str(root),
        parts=list(parts),
        instance=str(instance),
        functions=[Deployment(name="a-b", attribute="run")],
    )


def names(folder: Path) -> set[str]:
    return {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}


def test_the_folder_has_the_parts_a_handler_and_functiond(tmp_path: Path) -> None:
    (tmp_path / "shop" / "__pycache__").mkdir(parents=True)
    for name in ("shop/jobs.py", "shop/data.txt", "shop/__pycache__/jobs.pyc", "helper.py", "other.py", ".gitignore"):
        (tmp_path / name).write_text(name)

    with staged(app(tmp_path, "shop", "helper.py")) as folder:
        generated = {"functiond.py", "functiond_apps/shop/jobs/app.py"}
        assert names(folder) == {"shop/jobs.py", "shop/data.txt", "helper.py", ".gitignore", *generated}
        assert "run = handler_of('shop.jobs:app', 'run')" in (folder / "functiond_apps/shop/jobs/app.py").read_text()
    assert not folder.exists()


def test_modules_that_functions_import_when_they_run_are_parts(tmp_path: Path) -> None:
    source = "from functiond import App\napp = App()\n@app.function()\ndef f():\n    from jobs.mail import send\n"
    (tmp_path / "jobs").mkdir()
    files = {"tasks": source, "jobs/__init__": "", "jobs/mail": "import text, json, absent", "text": "", "other": ""}
    for name, text in files.items():
        (tmp_path / f"{name}.py").write_text(text)

    assert describe("tasks:app").parts == ["jobs", "tasks.py", "text.py"]


def test_requirements_leave_functiond_out(tmp_path: Path) -> None:
    lines = "# a comment\nfunctiond[client] >= 0.1\nhttpx\nfunctiond-extra\n-r base.txt\n-f=./wheels\n./lib\n-i https://a/b\n"
    (tmp_path / "requirements.txt").write_text(lines)
    (tmp_path / "base.txt").touch()

    with staged(app(tmp_path)) as folder:
        assert (folder / "requirements.txt").read_text().splitlines() == [
            "httpx", "functiond-extra", f"-r {tmp_path}/base.txt", f"-f {tmp_path}/wheels", f"{tmp_path}/lib",
            "-i https://a/b",
        ]  # fmt: skip
    (tmp_path / "requirements.txt").unlink()
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "a"\ndependencies = ["Functiond", "attrs>=1"]\n')
    with staged(app(tmp_path)) as folder:
        assert (folder / "requirements.txt").read_text() == "attrs>=1\n"
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "functiond"\ndependencies = ["attrs>=1"]\n')
    with staged(app(tmp_path)) as folder:
        assert not (folder / "requirements.txt").exists()


def test_servers_of_web_applications_may_be_named_in_requirements(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("Uvicorn[standard]==0.34.0 --hash=sha256:0\n")
    site = replace(app(tmp_path), functions=[Deployment(name="site", attribute="site", web="wsgi")])
    with staged(site) as folder:
        named = (folder / "requirements.txt").read_text().splitlines()
    assert named == ["Uvicorn[standard]==0.34.0 --hash=sha256:0", "a2wsgi>=1.10"]


def test_names_that_the_package_needs_are_refused(tmp_path: Path) -> None:
    (tmp_path / "functiond.py").touch()
    with (
        pytest.raises(UsageError, match=r"functiond\.py has a name that the package of an app needs"),
        staged(app(tmp_path, "functiond.py")),
    ):
        pass
