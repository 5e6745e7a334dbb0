"""Options of the test run."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kills", type=int, default=20, help="how often the engine is killed in the kill loop")


@pytest.fixture
def kills(request: pytest.FixtureRequest) -> int:
    amount: int = request.config.getoption("--kills")
    return amount
