"""Bootstrap of FunctionGraph's documentation, deployed and called through the vendor's SDK."""

from __future__ import annotations

from tests.acceptance.sdk import SDK_WARNINGS, Platform, call, deploy

pytestmark = SDK_WARNINGS

#: Request loop as in FunctionGraph's documentation of custom runtimes.
SHELL = """#!/bin/sh
while true
do
  HEADERS="$(mktemp)"
  EVENT_DATA=$(curl -sS -LD "$HEADERS" -X GET "http://$RUNTIME_API_ADDR/v1/runtime/invocation/request")
  REQUEST_ID=$(grep -Fi x-cff-request-id "$HEADERS" | tr -d '[:space:]' | cut -d: -f2)
  if [ -z "$REQUEST_ID" ]; then
    continue
  fi
  echo "processing for $greeting"
  curl -sS -X POST "http://$RUNTIME_API_ADDR/v1/runtime/invocation/response/$REQUEST_ID" -d "got $EVENT_DATA"
done
"""


def test_a_bootstrap_of_the_documentation_is_run_with_its_variables_and_log(platform: Platform) -> None:
    deploy(platform, "shell", "Custom", {"bootstrap": SHELL}, user_data='{"greeting": "you"}')

    response = call(platform, "shell", {"n": 1})

    assert response.result == 'got {"n": 1}'
    assert "processing for you" in response.log
