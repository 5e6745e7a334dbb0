"""Engines of test modules, also with the vendor's SDK."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.acceptance.engine_process import EngineProcess, engine_on
from tests.acceptance.sdk import Platform, create, platform_on


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    """Run one engine for all tests of a module."""
    with engine_on(tmp_path_factory.mktemp("engine") / "data") as engine:
        yield engine


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """Run one engine for all tests of a module; each test uses its own functions."""
    with platform_on(tmp_path_factory.mktemp("sdk")) as running:
        yield running


@pytest.fixture(scope="module")
def function(platform: Platform) -> str:
    """Return the name of a function without triggers."""
    create(platform, "triggered")
    return "triggered"


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """Return a folder that is not in /tmp, with three folders in which all may write."""
    with TemporaryDirectory(dir=Path.home()) as folder:
        for name in ("images", "node", "out"):
            (path := Path(folder) / name).mkdir()
            path.chmod(0o777)
            (path / "a").write_text(f"of {name}")
        yield Path(folder)
