"""Options of the test run."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

#: Same examples on every run, without a deadline. ``--hypothesis-profile=default`` draws new examples.
settings.register_profile(
    "functiond", deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("functiond")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kills", type=int, default=20, help="how often the engine is killed in the kill loop")


@pytest.fixture
def kills(request: pytest.FixtureRequest) -> int:
    amount: int = request.config.getoption("--kills")
    return amount
