"""Options of the test run."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from zlib import crc32

import pytest
from hypothesis import HealthCheck, settings
from xdist.remote import Producer
from xdist.scheduler import WorkStealingScheduling

#: Same examples on every run, without a deadline. ``--hypothesis-profile=default`` draws new examples.
settings.register_profile(
    "functiond", deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("functiond")

# The many engines that tests start need compiled modules to start quickly.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# A shell starts programs in the background with SIGINT ignored, and programs that tests start would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--skipped", type=Path, metavar="FILE", help="write the ids of skipped tests; run them by @FILE")
    parser.addoption("--part", metavar="K/N", help="run only the modules of one of several parts, such as 1/3")
    parser.addoption("--kills", type=int, default=10, help="how often the engine is killed in the kill loop")
    parser.addoption("--fuzz-seed", type=int, default=1, help="seed of the fuzz of HTTP framing")
    parser.addoption("--fuzz-seconds", type=float, default=20.0, help="how long this fuzz runs, on both event loops")
    parser.addoption(
        "--fuzz-stream", type=int, default=-1, help="number of its only stream; -1: as many as there is time"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the modules of other parts than that of ``--part``."""
    if part := config.getoption("--part"):
        number, parts = map(int, part.split("/"))
        kept = [item for item in items if (crc32(item.nodeid.partition("::")[0].encode()) - number) % parts == 0]
        config.hook.pytest_deselected(items=[*{*items} - {*kept}])
        items[:] = kept


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Write the ids of skipped tests to the file of ``--skipped``, one a line."""
    file: Path | None = config.getoption("--skipped")
    if file is not None:
        skipped = dict.fromkeys(report.nodeid for report in terminalreporter.stats.get("skipped", ()))
        file.write_text("".join(f"{test_id}\n" for test_id in skipped))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> WorkStealingScheduling:
    """Keep the tests of a module in one process, so that their servers start once, and let no process wait."""
    return WorkStealingScheduling(config, log)


@pytest.fixture
def kills(request: pytest.FixtureRequest) -> int:
    amount: int = request.config.getoption("--kills")
    return amount
