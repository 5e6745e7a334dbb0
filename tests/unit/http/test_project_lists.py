"""List of the runtimes that a machine can run, on one simulated by launchers in a folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.http_app import BASE, serve

FGS = BASE.removesuffix("/functions")


@pytest.mark.parametrize("has_node", [False, True])
async def test_runtimes_without_an_interpreter_are_not_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_node: bool
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("HOME", "/nonexistent")
    if has_node:
        (tmp_path / "node").write_text("#!/bin/sh\necho 20.1.0\necho /real/node\necho /real/node\n")
        (tmp_path / "node").chmod(0o755)

    async with serve(tmp_path / "code") as api:
        listed = await api.send("GET", "/runtimetypes", base=FGS)

    names = [one["type"] for one in listed.json]
    assert any(name.startswith("Node.js") for name in names) == has_node
    assert {"Python2.7", "Python3.10", "Custom", "http", "Lambda"} <= set(names)
