"""Virtual environments of packages that tests run as programs, in the user's cache. They are made at the first use."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest


def own_environment(package: str, purpose: str) -> Path:
    """Return the environment of a package; skip the test, which has no ``purpose`` then, if it cannot be installed."""
    place = home(package)
    place.parent.mkdir(parents=True, exist_ok=True)
    with open(place.parent / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # The interpreter may have been uninstalled.
        if not ((place / "ready").exists() and (place / "bin" / "python").exists()):
            _install(package, place, purpose)
            (place / "ready").touch()
    return place


def home(package: str) -> Path:
    """Return the folder of the environment, existing or not."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "functiond-tests" / package


def _install(package: str, place: Path, purpose: str) -> None:
    make, fill = ("-m", "venv", "--clear", place), ("-m", "pip", "install", "-q", package)
    for python, command in ((sys.executable, make), (place / "bin" / "python", fill)):
        done = subprocess.run([python, *command], capture_output=True, text=True)
        if done.returncode:
            why = (done.stderr or done.stdout).strip().rpartition("\n")[2]
            pytest.skip(f"there is no {purpose}: {package} cannot be installed in {place}: {why}")
