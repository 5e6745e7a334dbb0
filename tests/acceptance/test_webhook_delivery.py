"""Deliveries to an external webhook: signed, repeated until accepted, always with the same id."""

from __future__ import annotations

import json
from pathlib import Path

from plugins.webhook.signatures import check_standard
from tests.acceptance.engine_process import PROJECT, engine_on, to, until
from tests.acceptance.two_keys import TOKEN, two_keys
from tests.support.webhooks import webhook_receiver

SECRET = "whsec_YSBrZXkgb2Ygc29tZSBsZW5ndGg="
KEY = b"a key of some length"


def test_an_outcome_is_posted_until_it_is_taken(tmp_path: Path) -> None:
    with (
        webhook_receiver(500, 503) as hook,
        engine_on(tmp_path / "data", FUNCTIOND_PLUGINS__WEBHOOK__SECRETS__MAIN=SECRET) as engine,
    ):
        engine.create("one", "def handler(event, context):\n    return event['n'] + 1\n")
        target = to("WEBHOOK", url=f"{hook.url}outcomes", secret="main")
        engine.configure("one", destination_config={"on_success": target})
        request_id = engine.accepted("one", {"n": 1})
        tries = until(lambda: len(hook.requests) == 3 and hook.requests)

    ids = {
        check_standard(KEY, request.headers, request.body, int(request.headers[b"webhook-timestamp"]))
        for request in tries
    }
    assert len(ids) == 1
    record = json.loads(tries[-1].body)
    assert (record["request_context"]["request_id"], record["response_payload"]) == (request_id, "2")


def test_no_outcome_is_posted_to_this_machine_by_a_tenant(tmp_path: Path) -> None:
    with (
        webhook_receiver() as hook,
        engine_on(tmp_path / "data", **two_keys(tmp_path)) as engine,
    ):
        engine.headers["X-Auth-Token"] = TOKEN
        engine.create("one", "def handler(event, context):\n    return 1\n")
        for url in (hook.url, f"http://localhost:{engine.port}/healthz"):
            engine.configure("one", destination_config={"on_success": to("WEBHOOK", url=url)})
            engine.accepted("one", {})
        waiting = until(
            lambda: (
                len(listed := engine.ask("GET", f"/v2/{PROJECT}/fgs/deliveries").json["retrying"]) == 2
                and all(each["error"] for each in listed)
                and listed
            )
        )

    assert ["is no public address" in each["error"] for each in waiting] == [True, True]
    assert hook.requests == []


def test_a_destination_without_a_whole_url_is_refused(tmp_path: Path) -> None:
    with engine_on(tmp_path / "data") as engine:
        engine.create("one", "def handler(event, context):\n    return 1\n")
        body = {"destination_config": {"on_failure": to("WEBHOOK", url="/x")}}
        path = "/v2/project1/fgs/functions/one/async-invoke-config"

        refused = engine.ask("PUT", path, body)

        assert refused.status == 400
        assert "destination_config.on_failure.param.url is '/x': must be a complete one" in refused.json["error_msg"]
