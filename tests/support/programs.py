"""Programs that tests run and a machine may lack."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from engine.executors.local.spawn import PATH
from engine.isolation.network import missing_program, open_network


def needs(name: str) -> pytest.MarkDecorator:
    """Mark tests that run a program. They are skipped on a machine without it."""
    return pytest.mark.skipif(shutil.which(name) is None, reason=_absent(name))


def can_others_read(path: Path) -> bool:
    """Return whether all users can read a file or folder."""
    return all(folder.stat().st_mode & 0o005 == 0o005 for folder in (path, *path.parents))


def has_networks() -> bool:
    """Return whether this machine can give each project a network of its own."""
    if shutil.which("bwrap") is None or missing_program(PATH):
        return False
    try:
        network = open_network((), 65534 if os.geteuid() == 0 else None, {"PATH": PATH})
    except OSError:
        return False
    network.close()
    return network.process.wait() == 0


def program(name: str) -> str:
    """Return the path of a program; skip the test on a machine without it."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(_absent(name))
    return path


def _absent(name: str) -> str:
    return f"there is no {name} on this machine"


needs_networks = pytest.mark.skipif(not has_networks(), reason="this machine gives no networks to projects")
