"""Node.js function with an npm package, deployed and called through the vendor's SDK."""

from __future__ import annotations

import json
import warnings
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.test_sdk import (
    PROJECT,
    Platform,
    create,
    encoded,
    ended,
    engine_process,
    invoke,
    platform,
    refused,
    urn_of,
)
from tests.support.http_app import zipped
from tests.support.programs import needs

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # warnings of the SDK's own code
    from huaweicloudsdkfunctiongraph import v2 as fg

__all__ = ["platform"]  # fixture

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Unable to convert string to datetime:ImportWarning"),
    needs("node"),
]

RUNTIME = "Node.js18.15"
HANDLER = """
const slug = require('slug');

exports.handler = (event, context, callback) => {
  context.getLogger().info('slug of %j', event.title);
  if (!event.title) return callback(new TypeError('there is no title'));
  callback(null, { slug: slug(event.title), greeting: context.getUserData('greeting') });
};
"""
PACKAGE = "module.exports = (title) => title.toLowerCase().split(/\\W+/).join('-');\n"


@pytest.fixture(scope="module")
def slugs(platform: Platform) -> str:
    files = {
        "src/index__js": HANDLER,
        "node_modules/slug/package__json": '{"name": "slug", "main": "lib/slug.js"}',
        "node_modules/slug/lib/slug__js": PACKAGE,
    }
    code = {"code_type": "zip", "code_filename": "s.zip", "func_code": fg.FuncCode(file=encoded(zipped(**files)))}
    data = json.dumps({"greeting": "hej"})
    create(platform, "slugs", runtime=RUNTIME, handler="src/index.handler", user_data=data, **code)
    return "slugs"


def call(platform: Platform, name: str, event: dict[str, Any]) -> Any:
    request = fg.InvokeFunctionRequest(
        function_urn=urn_of(name), x_cff_log_type="tail", x_cff_request_version="v1", body=event
    )
    return platform.client.invoke_function(request)


def test_it_answers_a_synchronous_call_with_its_log(platform: Platform, slugs: str) -> None:
    response = call(platform, slugs, {"title": "Hello, Node World"})

    assert json.loads(response.result) == {"slug": "hello-node-world", "greeting": "hej"}
    assert f'{response.request_id} INFO slug of "Hello, Node World"' in response.log


def test_it_answers_an_asynchronous_call(platform: Platform, slugs: str) -> None:
    record = ended(platform, slugs, invoke(platform, slugs, {"title": "Later On"}))

    assert (record["status"], json.loads(record["result"])["slug"]) == ("SUCCESS", "later-on")


def test_its_error_is_told(platform: Platform, slugs: str) -> None:
    record = ended(platform, slugs, invoke(platform, slugs))

    body = json.loads(record["result"])
    assert (record["status"], record["error_code"]) == ("FAIL", 4002)
    assert (body["errorMessage"], body["errorType"]) == ("there is no title", "TypeError")
    assert "src/index.js:6:" in body["stackTrace"][0]


def test_inline_source_is_a_module_as_well(platform: Platform) -> None:
    source = b"exports.handler = async (event, context) => `${context.getFunctionName()} ${event.n + 1}`;"
    create(platform, "inlined", runtime=RUNTIME, func_code=fg.FuncCode(file=encoded(source)))

    assert call(platform, "inlined", {"n": 1}).result == "inlined 2"


def test_a_handler_without_a_function_is_refused(platform: Platform) -> None:
    with refused(400, "FSS.1003"):
        create(platform, "odd", runtime=RUNTIME, handler="index")


def test_where_there_is_no_node_its_functions_are_refused_at_create(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    function = {
        "func_name": "homeless", "package": "default", "runtime": RUNTIME, "handler": "index.handler", "timeout": 3,
        "memory_size": 128, "code_type": "inline", "func_code": {"file": encoded(HANDLER.encode())},
    }  # fmt: skip

    with (
        engine_process(tmp_path / "data") as port,
        closing(HTTPConnection("127.0.0.1", port, timeout=60)) as connection,
    ):
        headers = {"Content-Type": "application/json"}
        connection.request("POST", f"/v2/{PROJECT}/fgs/functions", json.dumps(function), headers)
        response = connection.getresponse()
        answer = json.loads(response.read())

    assert (response.status, answer["error_code"]) == (400, "FSS.1005")
    assert "Node.js18.15" in answer["error_msg"]
    assert "install one, or name it by the setting executor.node" in answer["error_msg"]
