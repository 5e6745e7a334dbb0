"""Vendor's Python SDK, unmodified, with functions and invocations on an engine process."""

from __future__ import annotations

import base64
import json

import httpx
import pytest

from tests.acceptance.sdk import PROJECT, SDK_WARNINGS, Platform, create, encoded, ended, fg, invoke, refused, urn_of
from tests.support.http_app import zipped

pytestmark = SDK_WARNINGS

SLOW = "import time\ndef handler(event, context):\n    time.sleep(600)\n"


def test_a_function_is_created_shown_and_listed(platform: Platform) -> None:
    created = create(platform, "made", description="é", user_data='{"A": "1"}', xrole="agency")
    shown = platform.client.show_function_config(fg.ShowFunctionConfigRequest(function_urn=urn_of("made")))
    page = platform.client.list_functions(fg.ListFunctionsRequest(func_name="mad", maxitems="10", marker="0"))

    assert (created.func_urn, created.version, created.xrole) == (urn_of("made"), "latest", "agency")
    assert (shown.digest, shown.description, shown.cpu) == (created.digest, "é", 300)
    assert [function.func_name for function in page.functions] == ["made"]
    assert (page.count, page.next_marker) == (1, 1)


def test_a_zip_package_is_created_run_and_given_back(platform: Platform) -> None:
    content = zipped(
        index__py="import helper\n\ndef handler(e, c):\n    return helper.VALUE\n", helper__py="VALUE = 42\n"
    )
    create(platform, "zipped", code_type="zip", code_filename="c.zip", func_code=fg.FuncCode(file=encoded(content)))

    shown = platform.client.show_function_code(fg.ShowFunctionCodeRequest(function_urn=urn_of("zipped")))
    record = ended(platform, "zipped", invoke(platform, "zipped"))

    assert base64.b64decode(shown.func_code.file) == content
    assert (record["status"], record["result"]) == ("SUCCESS", "42")


def test_code_and_configuration_change_what_runs_next(platform: Platform) -> None:
    create(platform, "changing")
    ended(platform, "changing", invoke(platform, "changing"))

    code = fg.UpdateFunctionCodeRequestBody(
        code_type="inline", func_code=fg.FuncCode(file=encoded(b"import os\ndef handler(e, c): return os.environ['A']"))
    )
    config = fg.UpdateFunctionConfigRequestBody(
        func_name="changing",
        handler="index.handler",
        memory_size=256,
        runtime="Python3.10",
        timeout=9,
        user_data='{"A": "x"}',
    )
    urn = urn_of("changing")
    updated = platform.client.update_function_code(fg.UpdateFunctionCodeRequest(function_urn=urn, body=code))
    changed = platform.client.update_function_config(fg.UpdateFunctionConfigRequest(function_urn=urn, body=config))
    record = ended(platform, "changing", invoke(platform, "changing"))

    assert (updated.code_type, changed.memory_size, changed.timeout) == ("inline", 256, 9)
    assert (record["status"], record["result"]) == ("SUCCESS", "x")


def test_an_asynchronous_invocation_runs_and_is_listed(platform: Platform) -> None:
    create(platform, "listed")
    request_id = invoke(platform, "listed", {"n": 1, "nested": {"a": [1, None, True]}})
    record = ended(platform, "listed", request_id)

    request = fg.ListAsyncInvocationsRequest(
        function_urn=urn_of("listed"), request_id=request_id, status="SUCCESS", marker="0", limit="100"
    )
    listed = platform.client.list_async_invocations(request)

    assert json.loads(record["result"]) == {"n": 1, "nested": {"a": [1, None, True]}}
    (item,) = listed.invocations
    assert (item.request_id, item.status, item.error_code, item.error_message) == (request_id, "SUCCESS", 0, "")
    assert (listed.count, bool(item.start_time), bool(item.end_time)) == (1, True, True)


def test_an_active_invocation_can_be_cancelled(platform: Platform) -> None:
    create(platform, "slow", SLOW)
    request_id = invoke(platform, "slow")
    active = fg.ListActiveAsyncInvocationsRequest(function_urn=urn_of("slow"), requests=f"{request_id},other")

    before = platform.client.list_active_async_invocations(active)
    body = fg.CancelAsyncInvocationRequestBody(request_id=request_id, type="force")
    platform.client.cancel_async_invocation(fg.CancelAsyncInvocationRequest(function_urn=urn_of("slow"), body=body))
    record = ended(platform, "slow", request_id)

    assert [item.request_id for item in before.invocations] == [request_id]
    assert (record["status"], record["error_code"]) == ("FAIL", 4208)
    assert platform.client.list_active_async_invocations(active).count == 0


@pytest.mark.parametrize("version", ["v0", "v1"])
def test_a_synchronous_invocation_gives_its_result(platform: Platform, version: str) -> None:
    create(platform, f"sync{version}")

    request = fg.InvokeFunctionRequest(
        function_urn=urn_of(f"sync{version}"), x_cff_log_type="tail", x_cff_request_version=version, body={"k": "v"}
    )
    response = platform.client.invoke_function(request)

    assert response.status_code == 200
    assert response.x_cff_request_id
    if version == "v1":
        assert (json.loads(response.result), response.status) == ({"k": "v"}, 200)
        assert "seen" in response.log
    else:
        assert json.loads(response.raw_content) == {"k": "v"}


def test_asynchronous_settings_are_put_shown_listed_and_deleted(platform: Platform) -> None:
    create(platform, "source")
    create(platform, "target")
    urn, client = urn_of("source"), platform.client
    param = json.dumps({"func_urn": urn_of("target")})
    body = fg.UpdateFunctionAsyncInvokeConfigRequestBody(
        max_async_event_age_in_seconds=60,
        max_async_retry_attempts=2,
        destination_config=fg.FuncAsyncDestinationConfig(
            on_success=fg.FuncDestinationConfig(destination="FunctionGraph", param=param)
        ),
        enable_async_status_log=True,
    )

    put = client.update_function_async_invoke_config(
        fg.UpdateFunctionAsyncInvokeConfigRequest(function_urn=urn, body=body)
    )
    shown = client.show_function_async_invoke_config(fg.ShowFunctionAsyncInvokeConfigRequest(function_urn=urn))
    page = client.list_function_async_invoke_config(fg.ListFunctionAsyncInvokeConfigRequest(function_urn=urn))
    client.delete_function_async_invoke_config(fg.DeleteFunctionAsyncInvokeConfigRequest(function_urn=urn))

    assert (put.func_urn, put.max_async_retry_attempts, put.destination_config.on_success.param) == (urn, 2, param)
    assert (shown.max_async_event_age_in_seconds, page.count) == (60, 1)
    with refused(404, "FSS.0404"):
        client.show_function_async_invoke_config(fg.ShowFunctionAsyncInvokeConfigRequest(function_urn=urn))


def test_retry_rules_are_unknown_to_the_clients_and_stay(platform: Platform) -> None:
    create(platform, "ruled")
    urn, client = urn_of("ruled"), platform.client
    rules = [{"error_type": "Throttled", "max_retries": 8, "base": 2.0}]
    path = f"http://127.0.0.1:{platform.port}/v2/{PROJECT}/fgs/functions/{urn}/async-invoke-config"
    httpx.put(path, json={"retry_rules": rules}, timeout=60).raise_for_status()

    body = fg.UpdateFunctionAsyncInvokeConfigRequestBody(max_async_retry_attempts=2)
    put = client.update_function_async_invoke_config(
        fg.UpdateFunctionAsyncInvokeConfigRequest(function_urn=urn, body=body)
    )
    shown = client.show_function_async_invoke_config(fg.ShowFunctionAsyncInvokeConfigRequest(function_urn=urn))
    stored = httpx.get(path, timeout=60).json()

    assert (put.max_async_retry_attempts, shown.max_async_retry_attempts) == (2, 2)
    assert stored["retry_rules"] == rules


def test_the_status_log_can_be_enabled_and_shown(platform: Platform) -> None:
    enabled = platform.client.enable_async_status_log(fg.EnableAsyncStatusLogRequest())
    shown = platform.client.show_project_async_status_log_info(fg.ShowProjectAsyncStatusLogInfoRequest())

    assert enabled.status_code == 200
    assert all((shown.group_id, shown.group_name, shown.stream_id, shown.stream_name))
