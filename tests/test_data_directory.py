"""The files of a data directory belong together, and to one engine."""

from __future__ import annotations

import shutil
from pathlib import Path

from engine.journal import locked, open_storage


async def marker_of(directory: Path) -> str:
    """Return what names the directory in the processes that an engine on it starts."""
    with locked(directory):
        async with open_storage(directory) as storage:
            return storage.marker


async def test_a_moved_directory_keeps_its_marker_and_a_copy_has_another(tmp_path: Path) -> None:
    directory, copy, moved = tmp_path / "data", tmp_path / "copy", tmp_path / "moved"
    marker = await marker_of(directory)

    shutil.copytree(directory, copy)
    directory.rename(moved)

    assert await marker_of(moved) == marker
    assert await marker_of(copy) != marker
