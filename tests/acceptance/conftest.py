"""Engines of test modules, also with the vendor's SDK."""

from __future__ import annotations

from collections.abc import Iterator

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
