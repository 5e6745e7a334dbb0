"""Code that an export writes into a folder, from an engine that does not keep its own rules."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from engine.cli.export import _write_code
from engine.deploy.client import Client
from engine.deploy.manifest.project import Project
from engine.errors import UsageError


class Engine(Client):
    """Engine with one function, whose code is ``x``."""

    def get(self, path: str = "", **query: object) -> Any:
        if path.endswith("/code"):
            return {"func_code": {"file": base64.b64encode(b"x").decode()}}
        return [] if path.startswith("/interpreters") else {"functions": [self.function], "count": 1}

    def __init__(self, name: str) -> None:
        super().__init__("http://127.0.0.1:1", "p", "")
        self.function = {
            "func_urn": f"urn:fss:r:p:function:default:{name}:latest",
            "code_type": "inline",
            "code_filename": "index.py",
            "runtime": "http",
            "handler": "any",
        }


@pytest.mark.parametrize("name", ["../../x", "/{}/x", "..", "a/../../../x"])
def test_a_function_whose_name_leads_out_of_the_folder_is_not_written(tmp_path: Path, name: str) -> None:
    (start := tmp_path / "a" / "b").mkdir(parents=True)
    name = name.format(tmp_path)

    with pytest.raises(UsageError, match="which is no valid name"):
        _write_code({"functions": {name: {}}}, Project(Engine(name)), start / "code", start)

    assert [path.name for path in tmp_path.rglob("*")] == ["a", "b"]
