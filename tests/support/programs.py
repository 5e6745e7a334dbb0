"""Programs that tests run and a machine may lack."""

from __future__ import annotations

import shutil

import pytest


def needs(name: str) -> pytest.MarkDecorator:
    """Mark tests that run a program. They are skipped on a machine without it."""
    return pytest.mark.skipif(shutil.which(name) is None, reason=_absent(name))


def program(name: str) -> str:
    """Return the path of a program; skip the test on a machine without it."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(_absent(name))
    return path


def _absent(name: str) -> str:
    return f"there is no {name} on this machine"
