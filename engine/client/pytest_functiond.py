"""Plugin of pytest with fixtures for tests of functions. Imports nothing of functiond until a test uses a fixture."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from functiond import Client

    from engine.embedded import RunningEngine


@pytest.fixture(scope="session")
def functiond_settings() -> dict[str, Any]:
    """Return settings of the engine, with dotted names. Override this fixture in ``conftest.py`` to change them."""
    return {}


@pytest.fixture(scope="session")
def functiond_engine(functiond_settings: dict[str, Any]) -> Iterator[RunningEngine]:
    """Run an engine in fast mode for all tests of the session, on a thread of its own."""
    from functiond import Engine

    with Engine.running(settings=functiond_settings, fast=True) as engine:
        yield engine


@pytest.fixture(scope="session")
def functiond_client(functiond_engine: RunningEngine) -> Client:
    """Return a client of the session's engine."""
    return functiond_engine.client()
