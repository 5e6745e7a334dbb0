"""Vendor's Python SDK, unmodified, with an engine process."""

from __future__ import annotations

import base64
import http.client
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from msgspec import Struct

from tests.support.http_app import zipped

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # warnings of the SDK's own code
    from huaweicloudsdkcore.auth.credentials import BasicCredentials
    from huaweicloudsdkcore.exceptions.exceptions import ClientRequestException
    from huaweicloudsdkfunctiongraph import v2 as fg

PROJECT = "7aad83af3e8d42e99ac194e8419e2c9b"
REGION = "local-1"
ECHO = "def handler(event, context):\n    print('seen')\n    return event\n"
FAIL = "def handler(event, context):\n    raise ValueError('no')\n"
SLOW = "import time\ndef handler(event, context):\n    time.sleep(600)\n"

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Unable to convert string to datetime:ImportWarning"),
]


class Platform(Struct):
    port: int
    client: Any


def urn_of(name: str, version: str = ":latest") -> str:
    return f"urn:fss:{REGION}:{PROJECT}:function:default:{name}{version}"


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with platform_on(tmp_path_factory.mktemp("sdk")) as running:
        yield running


@contextmanager
def platform_on(folder: Path, **settings: str) -> Iterator[Platform]:
    """Run an engine and yield it with a client. Settings are environment variables."""
    with pytest.MonkeyPatch.context() as patch, engine_process(folder / "data", **settings) as port:
        patch.setenv("HOME", str(folder))  # the SDK writes a file to it
        credentials = BasicCredentials("LOCALAK", "LOCALSK", PROJECT)
        builder = fg.FunctionGraphClient.new_builder().with_credentials(credentials)
        client = builder.with_endpoint(f"http://127.0.0.1:{port}").build()
        try:
            yield Platform(port=port, client=client)
        finally:
            client._http_client._session.close()


@contextmanager
def engine_process(data: Path, **settings: str) -> Iterator[int]:
    """Run an engine without sandboxes; yield its port."""
    command = [sys.executable, "-m", "engine", "serve", "--port", "0", "--data-dir", str(data)]
    settings = {"FUNCTIOND_EXECUTOR__ISOLATION": "process", **settings}
    environment = {**os.environ, **settings, "FUNCTIOND_LOG__FORMAT": "json"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, env=environment, text=True) as process:
        assert process.stderr is not None
        try:
            port = read_port(process.stderr)
            # The log is read all the time, or a full pipe would block the engine.
            with ThreadPoolExecutor(1) as drain:
                drain.submit(process.stderr.read)
                try:
                    yield port
                finally:
                    process.terminate()
        finally:
            process.terminate()


def read_port(lines: Iterable[str]) -> int:
    """Wait until the engine serves and return its port."""
    said = []
    for line in lines:
        said.append(line)
        if '"serving"' in line:
            port: int = json.loads(line)["port"]
            return port
    raise AssertionError(f"the engine ended: {''.join(said)}")


def create(platform: Platform, name: str, source: str = ECHO, **fields: object) -> Any:
    body = fg.CreateFunctionRequestBody(
        **{
            "func_name": name,
            "package": "default",
            "runtime": "Python3.10",
            "handler": "index.handler",
            "timeout": 30,
            "memory_size": 128,
            "code_type": "inline",
            "func_code": fg.FuncCode(file=encoded(source.encode())),
            **fields,
        }
    )
    return platform.client.create_function(fg.CreateFunctionRequest(body=body))


def encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()


def invoke(platform: Platform, name: str, event: object = None) -> str:
    request = fg.AsyncInvokeFunctionRequest(function_urn=urn_of(name), body=event or {"k": "v", "u": "é中"})
    request_id: str = platform.client.async_invoke_function(request).request_id
    return request_id


def ended(platform: Platform, name: str, request_id: str) -> Any:
    """Wait for the end and return the complete record. The URN has raw colons, as sent by curl and Terraform."""
    path = f"/v2/{PROJECT}/fgs/functions/{urn_of(name)}/async-invocations/{request_id}?wait=60"
    connection = http.client.HTTPConnection("127.0.0.1", platform.port, timeout=90)
    try:
        connection.request("GET", path)
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()


@contextmanager
def refused(status: int, code: str) -> Iterator[None]:
    with pytest.raises(ClientRequestException) as caught:
        yield
    assert (caught.value.status_code, caught.value.error_code) == (status, code)
    assert caught.value.request_id
    assert caught.value.error_msg


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


def test_creating_is_refused_as_documented(platform: Platform) -> None:
    create(platform, "twice")

    with refused(409, "FSS.1061"):
        create(platform, "twice")
    with refused(400, "FSS.1007"):
        create(platform, "odd", memory_size=100)
    with refused(400, "FSS.1008"):
        create(platform, "odd", timeout=901)


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


def test_an_update_of_the_sdk_resets_what_it_omits(platform: Platform) -> None:
    create(
        platform, "reset", user_data='{"A": "x"}', encrypted_user_data='{"B": "y"}', description="old", xrole="agency"
    )
    urn, config = (
        urn_of("reset"),
        {"handler": "index.handler", "memory_size": 256, "runtime": "Python3.10", "timeout": 9},
    )
    body = fg.UpdateFunctionConfigRequestBody(func_name="reset", **config)

    platform.client.update_function_config(fg.UpdateFunctionConfigRequest(function_urn=urn, body=body))

    shown = platform.client.show_function_config(fg.ShowFunctionConfigRequest(function_urn=urn))
    assert (shown.user_data, shown.encrypted_user_data, shown.description, shown.xrole) == ("", "", "", None)
    assert {name: getattr(shown, name) for name in config} == config


def test_a_function_without_instances_is_disabled(platform: Platform) -> None:
    create(platform, "disabled")
    body = fg.UpdateFunctionMaxInstanceConfigRequestBody(max_instance_num=0)
    request = fg.UpdateFunctionMaxInstanceConfigRequest(function_urn=urn_of("disabled"), body=body)

    changed = platform.client.update_function_max_instance_config(request)

    assert changed.strategy_config.concurrency == 0
    with refused(429, "FSS.0429"):
        invoke(platform, "disabled")


def test_a_deleted_function_is_gone(platform: Platform) -> None:
    create(platform, "gone")

    with refused(400, "FSS.1015"):
        platform.client.delete_function(fg.DeleteFunctionRequest(function_urn=urn_of("gone")))
    deleted = platform.client.delete_function(fg.DeleteFunctionRequest(function_urn=urn_of("gone", "")))

    assert deleted.status_code == 204
    with refused(404, "FSS.1051"):
        platform.client.show_function_config(fg.ShowFunctionConfigRequest(function_urn=urn_of("gone")))
    with refused(404, "FSS.1051"):
        invoke(platform, "gone")


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


def test_records_can_be_asked_for_by_time(platform: Platform) -> None:
    create(platform, "timed")
    ended(platform, "timed", invoke(platform, "timed"))
    past = {"query_begin_time": "2024-01-02T03:04:05", "query_end_time": "2024-01-02T04:04:05"}

    then = platform.client.list_async_invocations(fg.ListAsyncInvocationsRequest(function_urn=urn_of("timed"), **past))
    now = platform.client.list_async_invocations(fg.ListAsyncInvocationsRequest(function_urn=urn_of("timed")))

    assert (then.count, now.count) == (0, 1)


def test_a_failed_invocation_has_an_integer_code(platform: Platform) -> None:
    create(platform, "failing", FAIL)
    ended(platform, "failing", invoke(platform, "failing"))

    listed = platform.client.list_async_invocations(fg.ListAsyncInvocationsRequest(function_urn=urn_of("failing")))

    (item,) = listed.invocations
    assert (item.status, item.error_code) == ("FAIL", 4002)


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


def test_cancelling_what_is_not_there_is_refused(platform: Platform) -> None:
    create(platform, "idle")
    body = fg.CancelAsyncInvocationRequestBody(request_id="r1", type="force")

    with refused(400, "FSS.0400"):
        platform.client.cancel_async_invocation(fg.CancelAsyncInvocationRequest(function_urn=urn_of("idle"), body=body))


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


def test_a_function_that_returns_text_can_be_called(platform: Platform) -> None:
    create(platform, "texting", "def handler(event, context):\n    return 'hello world!'\n")

    response = platform.client.invoke_function(fg.InvokeFunctionRequest(function_urn=urn_of("texting"), body={}))

    assert response.raw_content == b"hello world!"


def test_memory_of_an_instance_is_the_callers_choice_where_allowed(platform: Platform) -> None:
    create(platform, "roomy", enable_dynamic_memory=True)
    create(platform, "fixed")

    request = fg.AsyncInvokeFunctionRequest(function_urn=urn_of("roomy"), x_cff_instance_memory="256", body={})
    request_id = platform.client.async_invoke_function(request).request_id

    assert ended(platform, "roomy", request_id)["status"] == "SUCCESS"
    with refused(400, "FSS.0400"):
        request.function_urn = urn_of("fixed")
        platform.client.async_invoke_function(request)


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
    httpx.put(path, json={"retry_rules": rules}).raise_for_status()

    body = fg.UpdateFunctionAsyncInvokeConfigRequestBody(max_async_retry_attempts=2)
    put = client.update_function_async_invoke_config(
        fg.UpdateFunctionAsyncInvokeConfigRequest(function_urn=urn, body=body)
    )
    shown = client.show_function_async_invoke_config(fg.ShowFunctionAsyncInvokeConfigRequest(function_urn=urn))
    stored = httpx.get(path).json()

    assert (put.max_async_retry_attempts, shown.max_async_retry_attempts) == (2, 2)
    assert stored["retry_rules"] == rules


def test_destinations_that_lead_back_are_refused(platform: Platform) -> None:
    create(platform, "circle")
    param = json.dumps({"func_urn": urn_of("circle")})
    destination = fg.FuncDestinationConfig(destination="FunctionGraph", param=param)
    config = fg.FuncAsyncDestinationConfig(on_failure=destination)
    body = fg.UpdateFunctionAsyncInvokeConfigRequestBody(destination_config=config)

    with refused(400, "FSS.0400"):
        platform.client.update_function_async_invoke_config(
            fg.UpdateFunctionAsyncInvokeConfigRequest(function_urn=urn_of("circle"), body=body)
        )


def test_the_status_log_can_be_enabled_and_shown(platform: Platform) -> None:
    enabled = platform.client.enable_async_status_log(fg.EnableAsyncStatusLogRequest())
    shown = platform.client.show_project_async_status_log_info(fg.ShowProjectAsyncStatusLogInfoRequest())

    assert enabled.status_code == 200
    assert all((shown.group_id, shown.group_name, shown.stream_id, shown.stream_name))


def test_another_project_is_not_to_be_reached(platform: Platform) -> None:
    urn = urn_of("made").replace(PROJECT, "0" * 32)

    with refused(403, "FSS.0403"):
        platform.client.async_invoke_function(fg.AsyncInvokeFunctionRequest(function_urn=urn, body={}))
