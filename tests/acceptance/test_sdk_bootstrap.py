"""Functions with their own ``bootstrap``, deployed and called through the vendor's SDK."""

from __future__ import annotations

import base64
import io
import json
import shlex
import sys
import warnings
import zipfile
from typing import Any

import pytest

from tests.acceptance.test_sdk import Platform, create, encoded, ended, invoke, platform, urn_of
from tests.support.programs import needs

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # warnings of the SDK's own code
    from huaweicloudsdkfunctiongraph import v2 as fg

__all__ = ["platform"]  # fixture

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Unable to convert string to datetime:ImportWarning"),
]

PYTHON = shlex.quote(sys.executable)

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
  case $EVENT_DATA in
    *bad*) curl -sS -X POST "http://$RUNTIME_API_ADDR/v1/runtime/invocation/error/$REQUEST_ID" \\
             -d '{"errorMessage": "it is bad", "errorType": "BadEvent"}';;
    *) curl -sS -X POST "http://$RUNTIME_API_ADDR/v1/runtime/invocation/response/$REQUEST_ID" -d "got $EVENT_DATA";;
  esac
done
"""
LAMBDA = """
def lambda_handler(event, context):
    if "bad" in event:
        raise ValueError("it is bad")
    print("hello from", context.function_name)
    return {"got": event, "id": context.aws_request_id, "region": context.invoked_function_arn.split(":")[3]}
"""
SERVER = """
const http = require('http');

http.createServer((request, response) => {
  console.log(`${request.method} ${request.url}`);
  let body = '';
  request.on('data', (piece) => { body += piece; });
  request.on('end', () => {
    response.writeHead(request.url === '/missing' ? 404 : 200, { 'Content-Type': 'application/json' });
    response.end(JSON.stringify({ body, id: request.headers['x-cff-request-id'], host: request.headers.host }));
  });
}).listen(8000, '127.0.0.1');
"""


def deploy(platform: Platform, name: str, runtime: str, files: dict[str, str], **fields: str) -> None:
    """Deploy a function whose ``bootstrap`` is packed as an executable file."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, text in files.items():
            entry = zipfile.ZipInfo(path)
            entry.external_attr = (0o755 if path == "bootstrap" else 0o644) << 16
            archive.writestr(entry, text)
    code = {"code_type": "zip", "code_filename": "f.zip", "func_code": fg.FuncCode(file=encoded(buffer.getvalue()))}
    create(platform, name, runtime=runtime, **code, **fields)


def call(platform: Platform, name: str, event: dict[str, Any]) -> Any:
    request = fg.InvokeFunctionRequest(
        function_urn=urn_of(name), x_cff_log_type="tail", x_cff_request_version="v1", body=event
    )
    return platform.client.invoke_function(request)


@pytest.fixture(scope="module")
def shell(platform: Platform) -> str:
    deploy(platform, "shell", "Custom", {"bootstrap": SHELL}, user_data=json.dumps({"greeting": "you"}))
    return "shell"


@pytest.fixture(scope="module")
def lambdas(platform: Platform) -> str:
    boot = f"#!/bin/sh\nexec {PYTHON} -m awslambdaric $_HANDLER\n"
    deploy(platform, "lambdas", "Lambda", {"bootstrap": boot, "app.py": LAMBDA}, handler="app.lambda_handler")
    return "lambdas"


def test_a_shell_script_answers_a_synchronous_call_with_its_log(platform: Platform, shell: str) -> None:
    response = call(platform, shell, {"n": 1})

    assert response.result == 'got {"n": 1}'
    assert "processing for you" in response.log


def test_a_shell_script_answers_an_asynchronous_call(platform: Platform, shell: str) -> None:
    record = ended(platform, shell, invoke(platform, shell, {"n": 2}))

    assert (record["status"], record["result"]) == ("SUCCESS", 'got {"n": 2}')


def test_the_error_of_a_shell_script_is_told(platform: Platform, shell: str) -> None:
    record = ended(platform, shell, invoke(platform, shell, {"n": "bad"}))

    assert (record["status"], record["error_code"]) == ("FAIL", 4002)
    assert json.loads(record["result"]) == {"errorMessage": "it is bad", "errorType": "BadEvent", "stackTrace": []}


def test_a_lambda_function_runs_on_awss_own_client(platform: Platform, lambdas: str) -> None:
    response = call(platform, lambdas, {"n": 1})

    assert json.loads(response.result) == {"got": {"n": 1}, "id": response.request_id, "region": "local-1"}
    assert "hello from lambdas" in response.log


def test_an_exception_of_a_lambda_function_is_told_with_its_trace(platform: Platform, lambdas: str) -> None:
    record = ended(platform, lambdas, invoke(platform, lambdas, {"bad": 1}))

    body = json.loads(record["result"])
    assert (record["error_code"], body["errorType"], body["errorMessage"]) == (4002, "ValueError", "it is bad")
    assert "lambda_handler" in body["stackTrace"][0]


def test_a_package_without_an_executable_bootstrap_is_told_what_to_do(platform: Platform) -> None:
    deploy(platform, "bare", "Custom", {"boot": SHELL})

    record = ended(platform, "bare", invoke(platform, "bare"))

    assert (record["status"], record["error_code"]) == ("FAIL", 4001)
    assert "there is no file bootstrap in the root folder of the code" in record["error_message"]


@needs("node")
def test_an_http_function_answers_the_event_of_a_gateway(platform: Platform) -> None:
    deploy(platform, "web", "http", {"bootstrap": "node $RUNTIME_CODE_ROOT/server.js", "server.js": SERVER})
    event = {
        "httpMethod": "POST",
        "path": "/missing",
        "headers": {"host": "example.com"},
        "body": base64.b64encode("straße".encode()).decode(),
        "isBase64Encoded": True,
    }

    response = call(platform, "web", event)

    reply = json.loads(response.result)
    assert (reply["statusCode"], reply["headers"]["Content-Type"]) == (404, ["application/json"])
    told = json.loads(base64.b64decode(reply["body"]))
    assert told == {"body": "straße", "id": response.request_id, "host": "example.com"}
    assert "POST /missing" in response.log
