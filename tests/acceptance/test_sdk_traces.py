"""Vendor's SDK with functions that are triggered by its operations (CTS) and by log lines (LTS)."""

from __future__ import annotations

from typing import Any

from tests.acceptance.engine_process import until
from tests.acceptance.sdk import PROJECT, SDK_WARNINGS, Platform, ask, create, ended, urn_of
from tests.acceptance.triggering import add

pytestmark = SDK_WARNINGS

SAYS_WHAT = """
def handler(event, context):
    trace = event["cts"]
    return trace["trace_name"] + " " + trace["resource_name"]
"""


def runs(platform: Platform, name: str, trigger: Any) -> None:
    """Wait until the source of a trigger runs."""
    path = f"/v2/{PROJECT}/fgs/triggers/{urn_of(name)}/{trigger.trigger_type_code}/{trigger.trigger_id}/state"
    until(lambda: platform.engine.ask("GET", path).json["state"] == "running")


def first_record(platform: Platform, name: str) -> Any:
    """Wait for the end of the function's first invocation and return its record."""
    invocations = until(lambda: ask(platform, "ListAsyncInvocations", name).invocations)
    return ended(platform, name, invocations[0].request_id)


def test_what_the_sdk_does_calls_a_function_that_audits(platform: Platform) -> None:
    create(platform, "auditor", SAYS_WHAT)
    data = {"name": "audit", "operations": ["FunctionGraph:Function:CreateFunction"]}
    runs(platform, "auditor", add(platform, "auditor", "CTS", data))

    create(platform, "audited")

    assert first_record(platform, "auditor")["result"] == "createFunction audited"
