"""Vendor's SDK with functions that are triggered by its operations (CTS) and by log lines (LTS)."""

from __future__ import annotations

import http.client
import json
import time
import warnings
from contextlib import closing
from typing import Any

import pytest

from tests.acceptance.test_sdk import PROJECT, Platform, create, ended, platform, urn_of
from tests.acceptance.triggering import add

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # warnings of the SDK's own code
    from huaweicloudsdkfunctiongraph import v2 as fg

__all__ = ["platform"]  # fixture

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Unable to convert string to datetime:ImportWarning"),
]

SAYS_WHAT = """
def handler(event, context):
    trace = event["cts"]
    return trace["trace_name"] + " " + trace["resource_name"]
"""


def runs(platform: Platform, name: str, trigger: Any) -> None:
    """Wait until the source of a trigger runs."""
    path = f"/v2/{PROJECT}/fgs/triggers/{urn_of(name)}/{trigger.trigger_type_code}/{trigger.trigger_id}/state"
    deadline = time.monotonic() + 60
    while True:
        with closing(http.client.HTTPConnection("127.0.0.1", platform.port, timeout=60)) as connection:
            connection.request("GET", path)
            if json.loads(connection.getresponse().read())["state"] == "running":
                return
        assert time.monotonic() < deadline


def first_record(platform: Platform, name: str) -> Any:
    """Wait for the end of the function's first invocation and return its record."""
    request = fg.ListAsyncInvocationsRequest(function_urn=urn_of(name))
    deadline = time.monotonic() + 60
    while not (found := platform.client.list_async_invocations(request).invocations):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return ended(platform, name, found[0].request_id)


def test_what_the_sdk_does_calls_a_function_that_audits(platform: Platform) -> None:
    create(platform, "auditor", SAYS_WHAT)
    data = {"name": "audit", "operations": ["FunctionGraph:Function:CreateFunction"]}
    runs(platform, "auditor", add(platform, "auditor", "CTS", data))

    create(platform, "audited")

    assert first_record(platform, "auditor")["result"] == "createFunction audited"
