"""Typical Node.js functions, each invoked with an event in its trigger's shape."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from engine.executors.pool import Pool
from engine.logs.lines import decode
from engine.model import Code, Outcome
from tests.support.executing import function, invocation, pool
from tests.support.instances import value
from tests.support.programs import needs

pytestmark = [
    needs("node"),
    pytest.mark.asyncio(loop_scope="module"),
]

SAMPLES = Path(__file__).parents[2] / "support" / "functions" / "node_samples"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def opened(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Pool]:
    folder = tmp_path_factory.mktemp("samples")
    async with pool(folder, "", memory=1024) as opened:
        shutil.copytree(SAMPLES, folder / "code", dirs_exist_ok=True)
        yield opened


async def call(opened: Pool, sample: str, event: Any, **fields: Any) -> Outcome:
    asked = function(f"{sample}.handler", runtime="Node.js18.15", name="sample", **fields)
    return await opened.execute(asked, invocation(json.dumps(event)))


def request(method: str, path: str, body: str = "") -> dict[str, Any]:
    return {
        "httpMethod": method,
        "path": path,
        "headers": {"user-agent": "curl"},
        "queryStringParameters": {},
        "pathParameters": {},
        "requestContext": {"apiId": "a", "requestId": "r", "stage": "RELEASE"},
        "body": base64.b64encode(body.encode()).decode(),
        "isBase64Encoded": True,
    }


async def test_an_api_behind_a_gateway(opened: Pool) -> None:
    asked = [
        request("POST", "/items", '{"name": "Süßholz"}'), request("POST", "/items", "{}"),
        request("GET", "/items/2"), request("GET", "/items/9"), request("PUT", "/items"),
    ]  # fmt: skip

    outcomes = [await call(opened, "rest_api", event) for event in asked]

    answers = [value(outcome) for outcome in outcomes]
    assert [answer["statusCode"] for answer in answers] == [201, 422, 200, 404, 405]
    assert json.loads(answers[2]["body"]) == {"id": "2", "name": "Süßholz"}
    assert outcomes[0].log.decode().endswith("INFO POST /items from curl\n")


async def test_a_subscriber_of_a_topic_with_a_package(opened: Pool) -> None:
    messages = ['{"lines": [{"price": "0.10", "count": 3}, {"price": 19.99, "count": 1}]}', "no json"]
    event = {"record": [{"smn": {"message_id": f"m{n}", "message": text}} for n, text in enumerate(messages)]}

    outcome = await call(opened, "orders", event, user_data={"currency": "SEK"})

    assert value(outcome) == {"function": "sample", "total": "20.29", "currency": "SEK"}
    (line,) = decode(outcome.log)
    assert (line.stream, line.text.startswith("skipped message m1: ")) == ("stderr", True)


async def test_a_worker_on_the_objects_of_a_bucket(opened: Pool) -> None:
    objects = [{"key": "in%2Fcat+1.jpg", "size": 3}, {"key": "é", "size": 100_000}]

    outcome = await call(opened, "archive", {"Records": [{"s3": {"object": one}} for one in objects]})

    assert [(one["key"], one["bytes"]) for one in value(outcome)] == [("in/cat 1.jpg", 36), ("é", 200_000)]


async def test_a_timer_with_a_connection_made_by_the_initializer(opened: Pool) -> None:
    events = [{"version": "v1.0", "time": f"t{n}", "user_event": '{"job": "purge"}'} for n in range(2)]

    outcomes = [await call(opened, "store", event, initializer_handler="store.initializer") for event in events]

    assert [outcome.result for outcome in outcomes] == [b"purge 1", b"purge 2"]
    assert outcomes[0].log.endswith(b"INFO connected for sample\n")


async def test_a_module_that_reads_a_batch_of_messages(opened: Pool) -> None:
    outcome = await call(opened, "esm/stats", {"records": [{"messages": ["3", "x", "1.5"]}, {"messages": ["20", "2"]}]})

    assert value(outcome) == {"count": 4, "median": "2.5 °C"}


async def test_threads_and_programs(opened: Pool) -> None:
    assert value(await call(opened, "parallel", [10, 20])) == {"numbers": [55, 6765], "shell": "sample in code"}


async def test_what_a_compiler_wrote(opened: Pool) -> None:
    fine, wrong = [await call(opened, "compiled", {"email": email}) for email in ("a@b", None)]

    error = json.loads(wrong.result)
    assert value(fine)["ok"]
    assert (wrong.code, error["errorType"], error["errorMessage"]) == (
        Code.USER_EXCEPTION, "ValidationError", "email is not valid",
    )  # fmt: skip


async def test_calls_of_other_services_at_once(opened: Pool) -> None:
    assert value(await call(opened, "gather", {"paths": ["/a", "/slow", "/b"]})) == [
        "200 seen /a", "AbortError", "200 seen /b",
    ]  # fmt: skip
