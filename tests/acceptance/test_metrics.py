"""Metrics of an engine, checked by the tools of Prometheus."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.acceptance.engine_process import (
    BASE,
    HELD,
    PROJECT,
    EngineProcess,
    engine_on,
    held_event,
    to_function,
    until,
    urn_of,
)
from tests.support.documents import DOCS
from tests.support.programs import program

ALERTS = DOCS / "alerts.yml"
FAILING = "def handler(event, context):\n    raise ValueError(event)\n"
ENDING = "def handler(event, context):\n    return 1\n"


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    """Engine that has run functions: one succeeded, one failed and was delivered, and one runs while another waits."""
    folder = tmp_path_factory.mktemp("metrics")
    nodes = {
        "FUNCTIOND_EXECUTOR__NODES__LISTEN": "127.0.0.1:0",
        "FUNCTIOND_EXECUTOR__NODES__AGENTS__ABSENT": "no-label",
    }
    with engine_on(folder / "data", FUNCTIOND_TELEMETRY__FUNCTIONS="4", **nodes) as engine:
        for name, source in (("ending", ENDING), ("failing", FAILING), ("held", HELD), ("further", ENDING)):
            engine.create(name, source)
        engine.configure(
            "failing", max_async_retry_attempts=1, destination_config={"on_failure": to_function("ending")}
        )
        engine.record("failing", engine.accepted("failing"), wait=60)
        engine.ask("POST", f"/v2/{PROJECT}/fgs/functions/{urn_of('ending')}/invocations", {})
        received = f"/v2/{PROJECT}/fgs/functions/{urn_of('ending')}/async-invocations?status=SUCCESS"
        until(lambda: engine.ask("GET", received).json["count"])
        engine.ask("PUT", f"/v2/{PROJECT}/fgs/functions/{urn_of('held')}/config-max-instance", {"max_instance_num": 1})
        for _ in range(2):
            engine.accepted("held", held_event(folder))
        engine.record("further", engine.accepted("further"), wait=60)
        yield engine
        (folder / "gate").touch()
        assert engine.stop() == 0


def samples(engine: EngineProcess) -> Mapping[tuple[str, ...], float]:
    """Return the samples by the name of the metric, the function, the source, and further labels."""
    text = engine.ask("GET", "/metrics").body.decode()
    return {
        (sample.name.removeprefix("functiond_function_"), *_labels(sample.labels)): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if "function" in sample.labels
    }


def _labels(labels: Mapping[str, str]) -> Iterator[str]:
    yield labels["function"]
    for name in ("source", "state", "code", "reason", "destination", "result", "le"):
        if name in labels:
            yield labels[name]


def test_each_function_and_source_has_metrics_of_its_own(used: EngineProcess) -> None:
    metrics = samples(used)

    assert metrics["received_total", "failing", "API"] == 1
    assert metrics["attempts_total", "failing", "API", "4002"] == 2
    assert metrics["ended_total", "failing", "API", "FAIL"] == 1
    assert metrics["deliveries_total", "failing", "API", "FunctionGraph", "delivered"] == 1
    assert metrics["ended_total", "ending", "FunctionGraph", "SUCCESS"] == 1
    assert metrics["run_seconds_count", "failing", "API"] == metrics["wait_seconds_count", "failing", "API"] == 2
    assert metrics["waiting_invocations", "failing"] == 0


def test_waiting_work_shows_its_number_and_age(used: EngineProcess) -> None:
    metrics = samples(used)

    assert metrics["started_total", "held", "API"] == 1
    assert ("ended_total", "held", "API", "SUCCESS") not in metrics
    assert metrics["waiting_invocations", "held"] == 1
    assert 0 < metrics["oldest_age_seconds", "held"] < 300


def test_a_cancellation_and_a_deletion_are_drops(tmp_path: Path) -> None:
    with engine_on(tmp_path / "data") as engine:
        engine.create("delayed", ENDING)
        request_id = engine.accepted("delayed", X_Functiond_Delay="3600")
        for _ in range(3):
            engine.accepted("delayed", X_Functiond_Delay="3600")
        assert engine.cancel("delayed", request_id).status == 200
        purged = engine.ask("POST", f"{BASE}/{urn_of('delayed')}/async-invocations/cancel", {"limit": 2})
        assert purged.status == 200, purged
        cancelled = samples(engine)
        engine.delete("delayed")
        until(lambda: not engine.metric("functiond_backlog_invocations"))
        deleted = samples(engine)

    dropped = [(reason, deleted["dropped_total", "other", "other", reason]) for reason in ("cancelled", "deleted")]
    assert cancelled["dropped_total", "delayed", "", "cancelled"] == 3
    assert cancelled["ended_total", "delayed", "", "FAIL"] == 3
    assert dropped == [("cancelled", 3), ("deleted", 1)]
    assert {key[1] for key in deleted} == {"other"}


def test_functions_beyond_the_limit_are_counted_as_other(used: EngineProcess) -> None:
    metrics = samples(used)

    assert metrics["ended_total", "other", "other", "SUCCESS"] == 1
    assert {key[1] for key in metrics} == {"failing", "ending", "held", "other"}
    assert used.metric("functiond_function_labels") == used.metric("functiond_function_labels_limit") == 4


def test_promtool_accepts_all_metrics(used: EngineProcess) -> None:
    text = used.ask("GET", "/metrics").body

    checked = subprocess.run([program("promtool"), "check", "metrics"], input=text, capture_output=True, timeout=60)

    assert b"functiond_function_run_seconds_bucket" in text
    assert (checked.returncode, checked.stderr, checked.stdout) == (0, b"", b"")


def test_promtool_accepts_the_alert_rules() -> None:
    checked = subprocess.run(
        [program("promtool"), "check", "rules", "--lint-fatal", str(ALERTS)], capture_output=True, text=True, timeout=60
    )

    assert checked.returncode == 0, checked.stderr


def test_alerts_are_raised_and_end() -> None:
    tests = Path(__file__).parents[1] / "support" / "prometheus" / "alerts_test.yml"

    command = [program("promtool"), "test", "rules", str(tests)]
    checked = subprocess.run(command, capture_output=True, text=True, timeout=60)

    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_dashboard_of_grafana_and_the_alert_rules_use_metrics_that_exist(
    used: EngineProcess, tmp_path: Path
) -> None:
    panels = json.loads((DOCS / "deploy" / "grafana.json").read_text())["panels"]
    queries = [target["expr"] for panel in panels for target in panel.get("targets", ())]
    rules = [
        {"record": "a:b", "labels": {"n": n}, "expr": query.replace("$__rate_interval", "1m")}
        for n, query in enumerate(queries)
    ]
    (tmp_path / "rules").write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))  # JSON is YAML
    alerts = re.findall(r"expr: (.*?)(?:for|labels):", ALERTS.read_text(), re.DOTALL)
    text = used.ask("GET", "/metrics").body.decode()
    shown = set(re.findall(r"^(?:# TYPE )?(functiond_\w+)", text, re.MULTILINE))

    checked = subprocess.run(
        [program("promtool"), "check", "rules", str(tmp_path / "rules")], capture_output=True, text=True
    )

    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert set(re.findall(r"functiond_\w+", " ".join([*queries, *alerts]))) <= shown
    assert len(queries) > 50
    assert len(alerts) > 10
