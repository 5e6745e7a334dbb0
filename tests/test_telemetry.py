from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from engine.statistics import Histogram
from engine.telemetry import Telemetry, count, gauge, histogram


def test_figures_come_out_in_the_format_of_prometheus() -> None:
    waits = Histogram((0.1, 1.0))
    waits.observe(0.05)
    waits.observe(5.0)
    figures = [
        count("ended", "Ended", {"SUCCESS": 3, "FAIL": 1}, "state"),
        gauge("depth", "Depth", 7),
        histogram("wait", "Wait", waits.snapshot()),
    ]

    text = Telemetry(lambda: iter(figures)).render().decode()

    samples = {
        (s.name, *s.labels.values()): s.value for family in text_string_to_metric_families(text) for s in family.samples
    }
    assert samples["functiond_ended_total", "SUCCESS"] == 3
    assert samples["functiond_depth",] == 7
    assert samples["functiond_wait_bucket", "0.1"] == 1
    assert samples["functiond_wait_bucket", "+Inf"] == samples["functiond_wait_count",] == 2
