"""Python functions of several runtimes and with several requests at a time, through the vendor's SDK."""

from __future__ import annotations

import json
import warnings
from typing import Any

import pytest

from tests.acceptance.test_sdk import Platform, create, encoded, ended, invoke, platform, refused, urn_of
from tests.support.http_app import zipped

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # warnings of the SDK's own code
    from huaweicloudsdkfunctiongraph import v2 as fg

__all__ = ["platform"]  # fixture

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Unable to convert string to datetime:ImportWarning"),
]

#: An invocation returns when three run in the same instance.
MEETING = """
import asyncio

here, together = [], None


async def handler(event, context):
    global together
    together = together or asyncio.Event()
    here.append(context.getRequestID())
    print("I am", event["name"])
    if len(here) == 3:
        together.set()
    await together.wait()
    print("met as", event["name"])
    return {"instance": context.getInstanceID(), "met": len(here)}
"""
PACKAGE = {
    "app/__init____py": "",
    "app/main__py": """
from . import texts

greeting = None


def prepare(context):
    global greeting
    greeting = texts.load("texts/greeting.txt")


def handler(event, context):
    context.getLogger().info("greeting %s", event["name"])
    return greeting.format(event["name"], context.getUserData("mark", "?"))
""",
    "app/texts__py": "def load(path):\n    with open(path) as file:\n        return file.read()\n",
    "texts/greeting__txt": "hello {}{}",
}


def call(platform: Platform, name: str, event: dict[str, Any]) -> Any:
    request = fg.InvokeFunctionRequest(
        function_urn=urn_of(name), x_cff_log_type="tail", x_cff_request_version="v1", body=event
    )
    return platform.client.invoke_function(request)


def test_a_package_with_its_files_and_initializer_is_run(platform: Platform) -> None:
    code = {"code_type": "zip", "code_filename": "g.zip", "func_code": fg.FuncCode(file=encoded(zipped(**PACKAGE)))}
    code |= {"initializer_handler": "app/main.prepare", "initializer_timeout": 30, "user_data": '{"mark": "!"}'}
    create(platform, "greeter", handler="app/main.handler", **code)

    response = call(platform, "greeter", {"name": "Zoë"})

    assert response.result == "hello Zoë!"
    assert f"{response.request_id} INFO greeting Zoë" in response.log


def test_invocations_of_one_instance_run_at_a_time_with_logs_of_their_own(platform: Platform) -> None:
    create(platform, "meeting", MEETING)
    config = fg.UpdateFunctionConfigRequestBody(
        func_name="meeting",
        runtime="Python3.10",
        handler="index.handler",
        timeout=30,
        memory_size=128,
        strategy_config=fg.StrategyConfig(concurrency=1, concurrent_num=3),
    )
    platform.client.update_function_config(fg.UpdateFunctionConfigRequest(function_urn=urn_of("meeting"), body=config))

    ids = [invoke(platform, "meeting", {"name": name}) for name in ("Ada", "Bob", "Cleo")]
    records = [ended(platform, "meeting", one) for one in ids]

    results = [json.loads(record["result"]) for record in records]
    assert [result["met"] for result in results] == [3, 3, 3]
    assert len({result["instance"] for result in results}) == 1
    assert ["met as Ada" in record["log"] for record in records] == [True, False, False]


def test_a_runtime_that_is_not_installed_is_served_by_the_nearest(platform: Platform) -> None:
    create(platform, "old", "import sys\ndef handler(e, c): return list(sys.version_info[:2])", runtime="Python3.6")

    assert json.loads(call(platform, "old", {}).result) >= [3, 9]


@pytest.mark.parametrize("runtime", ["Java11", "Go1.x", "Custom Image", "Python"])
def test_a_runtime_that_nothing_here_runs_is_refused(platform: Platform, runtime: str) -> None:
    with refused(400, "FSS.1005"):
        create(platform, "foreign", runtime=runtime)
