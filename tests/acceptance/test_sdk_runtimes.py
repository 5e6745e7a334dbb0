"""Functions of each kind of runtime, deployed and called through the vendor's SDK."""

from __future__ import annotations

import base64
import json
import shlex
import sys
from typing import Any

import pytest

from tests.acceptance.sdk import SDK_WARNINGS, Platform, call, create, deploy, ended, invoke
from tests.support.programs import needs

pytestmark = SDK_WARNINGS

PYTHON = {
    "app/__init__.py": "",
    "app/main.py": """
from . import texts

greeting = None


def prepare(context):
    global greeting
    greeting = texts.load("texts/greeting.txt")


def handler(event, context):
    context.getLogger().info("greeting %s", event["name"])
    return greeting.format(event["name"], context.getUserData("mark", "?"))
""",
    "app/texts.py": "def load(path):\n    with open(path) as file:\n        return file.read()\n",
    "texts/greeting.txt": "hello {}{}",
}
NODE = {
    "src/index.js": """
const slug = require('slug');

exports.handler = (event, context, callback) => {
  context.getLogger().info('slug of %j', event.title);
  if (!event.title) return callback(new TypeError('there is no title'));
  callback(null, { slug: slug(event.title), greeting: context.getUserData('greeting') });
};
""",
    "node_modules/slug/package.json": '{"name": "slug", "main": "lib/slug.js"}',
    "node_modules/slug/lib/slug.js": "module.exports = (title) => title.toLowerCase().split(/\\W+/).join('-');\n",
}
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
LAMBDA = {
    "bootstrap": f"#!/bin/sh\nexec {shlex.quote(sys.executable)} -m awslambdaric $_HANDLER\n",
    "app.py": """
def lambda_handler(event, context):
    if "bad" in event:
        raise ValueError("it is bad")
    print("hello from", context.function_name)
    return {"got": event, "region": context.invoked_function_arn.split(":")[3]}
""",
}
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
#: Runtime, files of the package, and further fields of the function, by kind.
FUNCTIONS: dict[str, tuple[str, dict[str, str], dict[str, Any]]] = {
    "python": (
        "Python3.10",
        PYTHON,
        {
            "handler": "app/main.handler",
            "initializer_handler": "app/main.prepare",
            "initializer_timeout": 30,
            "user_data": '{"mark": "!"}',
        },
    ),
    "node": ("Node.js18.15", NODE, {"handler": "src/index.handler", "user_data": '{"greeting": "hej"}'}),
    "shell": ("Custom", {"bootstrap": SHELL}, {"user_data": '{"greeting": "you"}'}),
    "lambda": ("Lambda", LAMBDA, {"handler": "app.lambda_handler"}),
}
NEEDS_NODE = needs("node")


@pytest.mark.parametrize(
    ("kind", "event", "result", "line"),
    [
        ("python", {"name": "Zoë"}, "hello Zoë!", "INFO greeting Zoë"),
        pytest.param(
            "node",
            {"title": "Hello, Node World"},
            '{"slug":"hello-node-world","greeting":"hej"}',
            'INFO slug of "Hello, Node World"',
            marks=NEEDS_NODE,
        ),
        ("shell", {"n": 1}, 'got {"n": 1}', "processing for you"),
        ("lambda", {"n": 1}, '{"got": {"n": 1}, "region": "local-1"}', "hello from lambda"),
    ],
    ids=FUNCTIONS,
)
def test_a_package_is_run_with_its_files_variables_and_log(
    platform: Platform, kind: str, event: dict[str, Any], result: str, line: str
) -> None:
    runtime, files, fields = FUNCTIONS[kind]
    deploy(platform, kind, runtime, files, **fields)

    response = call(platform, kind, event)

    assert response.result == result
    assert line in response.log


@pytest.mark.parametrize(
    ("kind", "event", "text", "error_type", "frame"),
    [
        pytest.param("node", {"n": 1}, "there is no title", "TypeError", "src/index.js:6:", marks=NEEDS_NODE),
        ("shell", {"n": "bad"}, "it is bad", "BadEvent", ""),
        ("lambda", {"bad": 1}, "it is bad", "ValueError", "lambda_handler"),
    ],
    ids=["node", "shell", "lambda"],
)
def test_an_error_of_an_asynchronous_invocation_is_in_its_record(
    platform: Platform, kind: str, event: dict[str, Any], text: str, error_type: str, frame: str
) -> None:
    runtime, files, fields = FUNCTIONS[kind]
    deploy(platform, f"failing-{kind}", runtime, files, **fields)

    record = ended(platform, f"failing-{kind}", invoke(platform, f"failing-{kind}", event))

    body = json.loads(record["result"])
    assert (record["status"], record["error_code"]) == ("FAIL", 4002)
    assert (body["errorMessage"], body["errorType"]) == (text, error_type)
    assert frame in "".join(body["stackTrace"][:1])


def test_a_runtime_that_is_not_installed_is_served_by_the_nearest(platform: Platform) -> None:
    create(platform, "old", "import sys\ndef handler(e, c): return list(sys.version_info[:2])", runtime="Python3.6")

    assert json.loads(call(platform, "old", {}).result) >= [3, 9]


@NEEDS_NODE
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
    body = json.loads(base64.b64decode(reply["body"]))
    assert body == {"body": "straße", "id": response.request_id, "host": "example.com"}
    assert "POST /missing" in response.log
