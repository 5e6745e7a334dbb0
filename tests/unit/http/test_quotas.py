"""Settings of the section ``limits``: numbers of what a project, a function and a version may have."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from engine.config.plugin_registry import load_plugins
from engine.errors import TooManyUsed
from tests.acceptance.triggering import GOOD
from tests.support.http_app import BASE, HELLO, PROJECT, encoded, urn_of, zipped
from tests.support.triggering import api_client, house

TRIGGER = {"trigger_type_code": "TIMER", "event_data": {**GOOD["TIMER"], "name": "t-{}"}}
PACKAGE = {"runtime": "Python3.10", "depend_type": "zip", "depend_file": encoded(zipped(index__py="A = 1"))}
GROUPS = f"/v2/{PROJECT}/groups"
#: By setting: path and body of a request that exceeds a limit of 2 the third time, and the code of the error.
CREATIONS: dict[str, tuple[str, dict[str, Any], str]] = {
    "functions": (BASE, {**HELLO, "func_name": "f-{}"}, "FSS.1041"),
    "versions": (f"{BASE}/{urn_of()}/versions", {"version": "v{}"}, "FSS.0403"),
    "aliases": (f"{BASE}/{urn_of()}/aliases", {"name": "a-{}", "version": "v{}"}, "FSS.1043"),
    "test_events": (f"{BASE}/{urn_of()}/events", {"name": "e-{}", "content": encoded("{}")}, "FSS.1068"),
    "triggers": (f"/v2/{PROJECT}/fgs/triggers/{urn_of()}", TRIGGER, "FSS.1123"),
    "dependencies": (f"/v2/{PROJECT}/fgs/dependencies/version", {**PACKAGE, "name": "d-{}"}, "FSS.1045"),
    "topics": (f"/v2/{PROJECT}/notifications/topics", {"name": "t-{}"}, "SMN.0004"),
    "log_groups": (GROUPS, {"log_group_name": "g-{}", "ttl_in_days": 1}, "LTS.0104"),
    "log_streams": (f"{GROUPS}/GROUP/streams", {"log_stream_name": "s-{}"}, "LTS.0206"),
}


async def test_each_limit_is_a_setting_that_its_error_names(tmp_path: Path) -> None:
    limits: dict[str, Any] = {f"limits__{name}": 2 for name in (*CREATIONS, "variables", "reserved_instances")}
    problems = []
    async with (
        house(tmp_path, load_plugins(), **limits, limits__function_dependencies=1) as place,
        api_client(place) as client,
    ):
        config = f"{BASE}/{urn_of()}/config"
        for name, (path, body, code) in CREATIONS.items():
            if name == "log_streams":
                groups = (await client.get(GROUPS)).json()["log_groups"]
                path = path.replace("GROUP", groups[-1]["log_group_id"])
            replies = []
            for number in range(3):
                if name == "versions":
                    await client.patch(config, json={"timeout": 10 + number})
                replies.append(await client.post(path, json=json.loads(json.dumps(body).replace("{}", str(number)))))
            created = 1 if name == "functions" else 2  # the function of the house is the first
            problems += [reply.text for reply in replies[:created] if reply.status_code >= 300]
            problems += _unlike(replies[-1], code, rf"\b2\b.*limits\.{name}")
        variables = {"user_data": json.dumps(dict.fromkeys("abc", ""))}
        problems += _unlike(await client.patch(config, json=variables), "FSS.1017", "2 .*limits.variables")
        quotas = (await client.get(f"/v2/{PROJECT}/fgs/quotas")).json()["quotas"]["resources"]
        with pytest.raises(TooManyUsed, match=r"1 .*limits.function_dependencies"):
            await place.engine.catalog.update(place.urn, {"details": {"depend_version_list": ["a", "b"]}})

    assert problems == []
    assert [quota["quota"] for quota in quotas if quota["type"] in ("fgs_func_num", "fgs_func_occurs")] == [2, 2]


def _unlike(reply: httpx.Response, code: str, pattern: str) -> list[str]:
    """Return the reply in a list unless it is the error of this code, with a text that matches."""

    return [] if code in reply.text and re.search(pattern, reply.text) else [f"{code}: {reply.text}"]
