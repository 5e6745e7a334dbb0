"""Functions of each kind of runtime, deployed and called through the vendor's SDK."""

from __future__ import annotations

import shlex
import sys
from typing import Any

import pytest

from tests.acceptance.sdk import SDK_WARNINGS, Platform, call, deploy
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
  curl -sS -X POST "http://$RUNTIME_API_ADDR/v1/runtime/invocation/response/$REQUEST_ID" -d "got $EVENT_DATA"
done
"""
LAMBDA = {
    "bootstrap": f"#!/bin/sh\nexec {shlex.quote(sys.executable)} -m awslambdaric $_HANDLER\n",
    "app.py": """
def lambda_handler(event, context):
    print("hello from", context.function_name)
    return {"got": event, "region": context.invoked_function_arn.split(":")[3]}
""",
}
#: Runtime, files of the package, further fields of the function, an event, its result, and a line of the log.
FUNCTIONS: dict[str, tuple[str, dict[str, str], dict[str, Any], dict[str, Any], str, str]] = {
    "python": (
        "Python3.10",
        PYTHON,
        {
            "handler": "app/main.handler",
            "initializer_handler": "app/main.prepare",
            "initializer_timeout": 30,
            "user_data": '{"mark": "!"}',
        },
        {"name": "Zoë"},
        "hello Zoë!",
        "INFO greeting Zoë",
    ),
    "node": (
        "Node.js18.15",
        NODE,
        {"handler": "src/index.handler", "user_data": '{"greeting": "hej"}'},
        {"title": "Hello, Node World"},
        '{"slug":"hello-node-world","greeting":"hej"}',
        'INFO slug of "Hello, Node World"',
    ),
    "shell": (
        "Custom",
        {"bootstrap": SHELL},
        {"user_data": '{"greeting": "you"}'},
        {"n": 1},
        'got {"n": 1}',
        "processing for you",
    ),
    "lambda": (
        "Lambda",
        LAMBDA,
        {"handler": "app.lambda_handler"},
        {"n": 1},
        '{"got": {"n": 1}, "region": "local-1"}',
        "hello from lambda",
    ),
}


@pytest.mark.parametrize("kind", ["python", pytest.param("node", marks=needs("node")), "shell", "lambda"])
def test_a_package_is_run_with_its_files_variables_and_log(platform: Platform, kind: str) -> None:
    runtime, files, fields, event, result, line = FUNCTIONS[kind]
    deploy(platform, kind, runtime, files, **fields)

    response = call(platform, kind, event)

    assert response.result == result
    assert line in response.log
