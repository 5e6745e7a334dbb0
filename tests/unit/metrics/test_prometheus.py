"""Histograms, metrics in Prometheus format, and log output."""

from __future__ import annotations

import json
import subprocess
import sys

from prometheus_client.parser import text_string_to_metric_families

from engine.metrics.histogram import Histogram
from engine.metrics.prometheus import Family, count, gauge, histogram, rendered
from tests.support.engine_process import ROOT


async def test_figures_come_out_in_the_format_of_prometheus() -> None:
    waits = Histogram((0.1, 1.0))
    waits.observe(0.05)
    waits.observe(5.0)
    figures = [
        count("ended", "Ended", {"SUCCESS": 3, "FAIL": 1}, "state"),
        gauge("depth", "Depth", 7),
        histogram("wait", "Wait", waits.snapshot()),
    ]

    families = [
        Family(
            name="runs",
            help="Runs",
            kind="counter",
            labels=("by", "of"),
            samples=[(("a", "b"), 2), (("a", '"c"\\\n'), 4)],
        ),
        Family(name="age", help="Age", kind="gauge", labels=(), samples=[((), 6)]),
        Family(name="time", help="Time", kind="histogram", labels=("of",), samples=[(("a",), waits.snapshot())]),
    ]

    text = (await rendered([*figures, *families])).decode()

    samples = {
        (s.name, *s.labels.values()): s.value for family in text_string_to_metric_families(text) for s in family.samples
    }
    assert samples["functiond_ended_total", "SUCCESS"] == 3
    assert samples["functiond_depth",] == 7
    assert samples["functiond_wait_bucket", "0.1"] == 1
    assert samples["functiond_wait_bucket", "+Inf"] == samples["functiond_wait_count",] == 2
    assert (samples["functiond_runs_total", "a", "b"], samples["functiond_runs_total", "a", '"c"\\\n']) == (2, 4)
    assert samples["functiond_age",] == 6
    assert samples["functiond_time_bucket", "a", "0.1"] == 1
    assert samples["functiond_time_sum", "a"] == 5.05


def test_log_lines_of_libraries_have_the_form_of_ours() -> None:
    """Run in a separate process, because logging is configured once per process."""
    program = """
import logging
from engine.metrics.prometheus import configure_logging

configure_logging("json", "info")
logging.getLogger("broker.client").warning("cannot reach %s", "it")
logging.getLogger("broker.client").info("all is well")
logging.getLogger("broker.client").log(35, "of a level of its own")
logging.getLogger("broker.client").error("%d of it", "some")
secret = "word" + "-of-a-request"
try:
    1 / 0
except ZeroDivisionError:
    logging.getLogger("broker").exception("broken")
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    lines = [json.loads(line) for line in run.stderr.splitlines()]
    assert [(line["level"], line["event"], line["library"]) for line in lines] == [
        ("warning", "cannot reach it", "broker.client"),
        ("warning", "of a level of its own", "broker.client"),
        ("error", "%d of it", "broker.client"),
        ("error", "broken", "broker"),
    ]
    assert lines[3]["exception"][0]["exc_type"] == "ZeroDivisionError"
    assert "word-of-a-request" not in run.stderr


CONSOLE = """
import logging, structlog
from engine.metrics.prometheus import configure_logging

configure_logging("console", "info")
structlog.get_logger("functiond").info("request", path="/\\x1b[2J\\x9b", more={"a": 1})
logging.getLogger("library").warning("said \\x1b]52;c;eA==\\x07")
try:
    raise ValueError("x\\x1b[2J")
except ValueError:
    structlog.get_logger("functiond").exception("failed")
"""


def test_a_console_gets_no_control_characters_of_values() -> None:
    run = subprocess.run([sys.executable, "-c", CONSOLE], capture_output=True, text=True, check=True, cwd=ROOT)

    assert "path=/\\x1b[2J\\x9b" in run.stderr
    assert "said \\x1b]52;c;eA==\\x07" in run.stderr
    assert "ValueError: x\\x1b[2J\n" in run.stderr
    assert "\x1b" not in run.stderr


# --- histograms ----------------------------------------------------------------------------------------------


def test_observations_fall_into_the_first_bucket_that_holds_them() -> None:
    histogram = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 9.0):
        histogram.observe(value)

    snapshot = histogram.snapshot()

    assert (snapshot.counts, snapshot.count, snapshot.total) == ((2, 1, 1), 4, 12.0)


def test_a_snapshot_stays_as_it_was() -> None:
    histogram = Histogram((1.0,))
    snapshot = histogram.snapshot()

    histogram.observe(1.0)

    assert snapshot.count == 0


def test_a_negative_duration_counts_as_none() -> None:
    """Such durations come from a step of the clock back during an attempt."""
    times = Histogram((0.1, 1.0))

    times.observe(-5.0)

    assert (times.snapshot().counts, times.snapshot().total) == ((1, 0, 0), 0.0)
