"""Folders of the host: places that none may have, and functions that ask for them."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

import engine
import plugins
from engine.config.settings import load_settings
from engine.errors import InvalidField, SettingsError
from engine.functions.function_rules import equal_for_instances
from engine.isolation.folders import Folder, find_folders, folders_of
from tests.support.executing import function


def test_a_folder_with_files_of_the_engine_is_refused_also_through_links() -> None:
    with TemporaryDirectory(dir=Path.home()) as folder:  # functions have a /tmp of their own
        for name in ("images", "data/key", "fine/inner"):
            ((home := Path(folder)) / name).mkdir(parents=True)
        (home / "fine.toml").write_text(f"[executor.folders.some]\npath = '{home}'\n")
        (home / "link").symlink_to(home / "data")
        (home / "images" / "data").symlink_to(home / "data")
        wrong = [home, *(home / name for name in ("data", "data/key", "link", "link/key", "images"))]
        code = [Path(module.__file__ or "").parent for module in (engine, plugins)]
        system = ["/", "/etc", "/etc/ssl", "/proc/1", "/dev/shm", "/tmp", "/home", *code]
        (logged := home / "data" / "logged.toml").write_text(
            f"[logs]\nfile = '{home}/fine/log'\n[executor.folders.some]\npath = '{home}/fine'\n"
        )
        fine, inner, absent = (Folder(path=str(home / name), mode="rw") for name in ("fine", "fine/inner", "none"))
        for path in (*wrong, *system):
            with pytest.raises(SettingsError, match="must not see or replace"):
                find_folders({"some": Folder(path=str(path))}, ["", home / "images" / "data"])
        with pytest.raises(SettingsError, match=r"fine\.toml or is in it"):
            load_settings(file=home / "fine.toml")
        with pytest.raises(SettingsError, match="fine/log or is in it"):
            load_settings(file=logged)
        for folders, problem in (({"a": fine, "b": inner}, "fine or is in it"), ({"absent": absent}, "must exist")):
            with pytest.raises(SettingsError, match=problem):
                find_folders(folders, [])
        assert find_folders({"absent": absent}, [], elsewhere=True)["absent"].source == ""
        assert find_folders({"rw": fine, "ro": fine}, [home / "data"])["ro"].source == fine.path


def test_a_function_gets_the_folders_of_its_project_by_name_or_as_mounts() -> None:
    folders = {"all": Folder(path="/srv/all"), "shop": Folder(path="/srv/shop", projects=("shop",))}

    def asks(*names: str, **mount: str) -> dict[str, object]:
        return {"functiond": {"folders": names}, "mount_config": {"func_mounts": [mount]}}

    own, mounts = function("h", project="shop", details=asks("shop")), asks(mount_resource="all")
    assert not equal_for_instances(function("h", project="shop"), own)
    assert list(folders_of(own, folders)) == ["shop"]
    assert list(folders_of(function("h", details=mounts), folders)) == ["all"]
    assert folders_of(function("h", details=asks(mount_resource="0a1b-of-sfs")), folders) == {}
    mounted = [asks(mount_resource=name, local_mount_path="/mnt") for name in ("all", "shop")]
    for wrong in (asks("none"), asks("shop"), *mounted):
        with pytest.raises(InvalidField, match=r"for this project: all|must be /srv/all"):
            folders_of(function("h", details=wrong), folders)
