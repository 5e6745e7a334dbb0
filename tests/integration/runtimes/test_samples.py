"""Typical functions for FunctionGraph, run unmodified with the documented events of its triggers."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from engine.executors.pool import Pool
from engine.logs.lines import decode
from engine.model import Code, Outcome
from tests.support.executing import function, invocation, pool
from tests.support.instances import value
from tests.support.programs import program

SAMPLES = Path(__file__).parents[2] / "support" / "functions"


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Pool]:
    async with pool(tmp_path, "", memory=1024) as opened:
        for samples in ("python_samples", "node_samples"):
            shutil.copytree(SAMPLES / samples, tmp_path / "code", dirs_exist_ok=True)
        yield opened


async def call(opened: Pool, handler: str, event: Any, **fields: Any) -> Outcome:
    return await opened.execute(function(handler, **fields), invocation(json.dumps(event)))


async def node(opened: Pool, sample: str, event: Any, **fields: Any) -> Outcome:
    """Run a sample of Node.js; skip the test if that is not installed."""
    program("node")
    return await call(opened, f"{sample}.handler", event, runtime="Node.js18.15", name="sample", **fields)


def request(method: str, path: str, body: str = "") -> dict[str, Any]:
    encoded = base64.b64encode(body.encode()).decode()
    return {
        "httpMethod": method,
        "path": path,
        "headers": {"user-agent": "curl"},
        "body": encoded,
        "isBase64Encoded": True,
    }


def upload(key: str, name: str = "ObjectCreated:Put") -> dict[str, Any]:
    return {"eventName": name, "s3": {"bucket": {"name": "photos"}, "object": {"key": key, "size": 1}}}


def texts(outcome: Outcome) -> list[str]:
    return [line.text for line in decode(outcome.log)]


async def test_uploads_are_worked_on_with_a_client_of_the_initializers(opened: Pool) -> None:
    event = {"Records": [upload("in%2Fmy+cat.jpg"), upload("gone", "ObjectRemoved:Delete")]}
    fields = {"user_data": {"target_bucket": "copies"}, "initializer_handler": "obs.initializer"}

    outcome = await call(opened, "obs.handler", event, **fields)

    assert json.loads(outcome.result) == [["copies", "in/my cat.jpg", "OBS.EXAMPLE.COM/PHOTOS/IN/MY CAT.JPG", True]]
    assert texts(outcome)[-1].endswith("WARN skipping ObjectRemoved:Delete of gone")


async def test_a_setting_that_is_missing_is_told_and_not_raised(opened: Pool) -> None:
    outcome = await call(opened, "obs.handler", {"Records": []}, initializer_handler="obs.initializer")

    assert (outcome.result, texts(outcome)[-1].endswith("ERROR target_bucket is not set")) == (b"ERROR", True)


async def test_a_timer_brings_its_user_event(opened: Pool) -> None:
    event = {
        "version": "v1.0",
        "time": "2026-03-01T06:30:00+08:00",
        "trigger_type": "TIMER",
        "trigger_name": "nightly",
        "user_event": '{"job":"purge"}',
    }

    outcome = await call(opened, "timer.handler", event, user_data={"DRY_RUN": "1"})

    assert json.loads(outcome.result) == {"job": "purge", "by": "nightly", "dry_run": True}
    assert texts(outcome) == ["INFO running purge at 2026-03-01T06:30:00+08:00", "memory: 128 MB, cpu: 300"]


# --- Node.js ---


async def test_an_api_behind_a_gateway(opened: Pool) -> None:
    asked = [
        request("POST", "/items", '{"name": "Süßholz"}'), request("POST", "/items", "{}"),
        request("GET", "/items/2"), request("GET", "/items/9"), request("PUT", "/items"),
    ]  # fmt: skip

    outcomes = [await node(opened, "rest_api", event) for event in asked]

    answers = [value(outcome) for outcome in outcomes]
    assert [answer["statusCode"] for answer in answers] == [201, 422, 200, 404, 405]
    assert json.loads(answers[2]["body"]) == {"id": "2", "name": "Süßholz"}
    assert outcomes[0].log.decode().endswith("INFO POST /items from curl\n")


async def test_a_worker_on_the_objects_of_a_bucket(opened: Pool) -> None:
    objects = [{"key": "in%2Fcat+1.jpg", "size": 3}, {"key": "é", "size": 100_000}]

    outcome = await node(opened, "archive", {"Records": [{"s3": {"object": stored}} for stored in objects]})

    assert [(entry["key"], entry["bytes"]) for entry in value(outcome)] == [("in/cat 1.jpg", 36), ("é", 200_000)]


async def test_what_a_compiler_wrote(opened: Pool) -> None:
    fine, wrong = [await node(opened, "compiled", {"email": email}) for email in ("a@b", None)]

    error = json.loads(wrong.result)
    assert value(fine)["ok"]
    assert (wrong.code, error["errorType"], error["errorMessage"]) == (
        Code.USER_EXCEPTION, "ValidationError", "email is not valid",
    )  # fmt: skip


async def test_calls_of_other_services_at_once(opened: Pool) -> None:
    assert value(await node(opened, "gather", {"paths": ["/a", "/slow", "/b"]})) == [
        "200 seen /a", "AbortError", "200 seen /b",
    ]  # fmt: skip


async def test_a_module_that_reads_a_batch_of_messages(opened: Pool) -> None:
    outcome = await node(opened, "esm/stats", {"records": [{"messages": ["3", "x", "1.5"]}, {"messages": ["20", "2"]}]})

    assert value(outcome) == {"count": 4, "median": "2.5 °C"}


async def test_threads_and_programs(opened: Pool) -> None:
    assert value(await node(opened, "parallel", [10, 20])) == {"numbers": [55, 6765], "shell": "sample in code"}
