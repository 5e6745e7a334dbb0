"""Parts of ``functiond dev``: the state of code, and the watch of its folder."""

from __future__ import annotations

from pathlib import Path
from queue import Queue

import pytest

from engine.cli.commands import make_app
from engine.cli.deploy import Configuration, Installation
from engine.cli.dev.deployables import DeployableFunction, Options
from engine.cli.dev.watching import watching
from engine.deploy.functions import Asynchronous
from engine.errors import UsageError


def deployable_of(path: Path) -> DeployableFunction:
    return DeployableFunction(path, "mine", Options(Configuration(), Installation(), Asynchronous()))


def test_only_files_of_the_package_count(tmp_path: Path) -> None:
    (tmp_path / "index.py").write_text("1")
    (tmp_path / ".functiondignore").write_text("*.log\n")
    deployable = deployable_of(tmp_path)
    before = deployable.state()

    (tmp_path / "run.log").write_text("ignored")
    (tmp_path / ".env").write_text("SECRET=1")
    (tmp_path / "__pycache__").mkdir()
    assert deployable.state() == before
    (tmp_path / "index.py").write_text("22")
    assert deployable.state() != before


def test_code_that_cannot_be_packed_has_a_state_too(tmp_path: Path) -> None:
    deployable = deployable_of(tmp_path)
    before = deployable.state()
    (tmp_path / "index.py").write_text("1")

    assert deployable.state() != before


def test_no_engine_is_started_for_the_url_of_another_machine(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no engine replies at http://engine\.invalid:8080: leave --url"):
        make_app(["dev"])(["dev", str(tmp_path), "--url", "http://engine.invalid:8080"], exit_on_error=False)


def test_a_folder_that_is_replaced_is_watched_again(tmp_path: Path) -> None:
    root, changes = tmp_path / "root", Queue[bool]()
    new = root / "new" / "file"
    root.mkdir()
    (tmp_path / "other").mkdir()

    with watching(root, recursive=True, changed=lambda: changes.put(new.exists()), failed=lambda text: None):
        changes.get(timeout=30)  # the watch has begun
        root.rename(tmp_path / "old")
        (tmp_path / "other").rename(root)
        changes.get(timeout=30)
        new.parent.mkdir()
        new.write_text("1")
        while not changes.get(timeout=30):
            pass  # a call from before
