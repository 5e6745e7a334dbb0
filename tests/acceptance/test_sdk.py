"""Vendor's Python SDK, unmodified, with functions and invocations on an engine process."""

from __future__ import annotations

import base64
import json

from tests.acceptance.sdk import (
    SDK_WARNINGS,
    Platform,
    ask,
    call,
    create,
    encoded,
    ended,
    fg,
    invoke,
)
from tests.support.http_app import zipped

pytestmark = SDK_WARNINGS

SLOW = "import time\ndef handler(event, context):\n    time.sleep(600)\n"


def test_a_zip_package_is_created_run_and_given_back(platform: Platform) -> None:
    content = zipped(
        index__py="import helper\n\ndef handler(e, c):\n    return helper.VALUE\n", helper__py="VALUE = 42\n"
    )
    create(platform, "zipped", code_type="zip", code_filename="c.zip", func_code=fg.FuncCode(file=encoded(content)))

    shown = ask(platform, "ShowFunctionCode", "zipped")
    record = ended(platform, "zipped", invoke(platform, "zipped"))

    assert base64.b64decode(shown.func_code.file) == content
    assert (record["status"], record["result"]) == ("SUCCESS", "42")


def test_code_and_configuration_change_what_runs_next(platform: Platform) -> None:
    create(platform, "changing")
    ended(platform, "changing", invoke(platform, "changing"))

    code = fg.FuncCode(file=encoded(b"import os\ndef handler(e, c): return os.environ['A']"))
    config = {"handler": "index.handler", "memory_size": 256, "timeout": 9, "user_data": '{"A": "x"}'}
    updated = ask(platform, "UpdateFunctionCode", "changing", code_type="inline", func_code=code)
    changed = ask(platform, "UpdateFunctionConfig", "changing", func_name="changing", runtime="Python3.10", **config)
    record = ended(platform, "changing", invoke(platform, "changing"))

    assert (updated.code_type, changed.memory_size, changed.timeout) == ("inline", 256, 9)
    assert (record["status"], record["result"]) == ("SUCCESS", "x")


def test_an_asynchronous_invocation_runs_and_is_listed(platform: Platform) -> None:
    create(platform, "listed")
    request_id = invoke(platform, "listed", {"n": 1, "nested": {"a": [1, None, True]}})
    record = ended(platform, "listed", request_id)

    page = {"status": "SUCCESS", "marker": "0", "limit": "100"}
    listed = ask(platform, "ListAsyncInvocations", "listed", request_id=request_id, **page)

    assert json.loads(record["result"]) == {"n": 1, "nested": {"a": [1, None, True]}}
    (item,) = listed.invocations
    assert (item.request_id, item.status, item.error_code, item.error_message) == (request_id, "SUCCESS", 0, "")
    assert (listed.count, bool(item.start_time), bool(item.end_time)) == (1, True, True)


def test_an_active_invocation_can_be_cancelled(platform: Platform) -> None:
    create(platform, "slow", SLOW)
    request_id = invoke(platform, "slow")
    requests = f"{request_id},other"

    before = ask(platform, "ListActiveAsyncInvocations", "slow", requests=requests)
    ask(platform, "CancelAsyncInvocation", "slow", request_id=request_id, type="force")
    record = ended(platform, "slow", request_id)

    assert [item.request_id for item in before.invocations] == [request_id]
    assert (record["status"], record["error_code"]) == ("FAIL", 4208)
    assert ask(platform, "ListActiveAsyncInvocations", "slow", requests=requests).count == 0


def test_a_synchronous_invocation_gives_its_result_in_both_versions_of_requests(platform: Platform) -> None:
    create(platform, "sync")
    wrapped = call(platform, "sync", {"k": "v"})
    plain = ask(platform, "InvokeFunction", "sync", x_cff_request_version="v0", body={"k": "v"})

    assert (wrapped.status_code, plain.status_code) == (200, 200)
    assert wrapped.x_cff_request_id != plain.x_cff_request_id
    assert (json.loads(wrapped.result), wrapped.status) == ({"k": "v"}, 200)
    assert "seen" in wrapped.log
    assert json.loads(plain.raw_content) == {"k": "v"}
