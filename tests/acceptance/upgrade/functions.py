"""Functions, with at least one of everything that the API stores about functions."""

from __future__ import annotations

import json

from tests.acceptance.engine_process import BASE, PROJECT, EngineProcess, to, to_function, urn_of
from tests.acceptance.upgrade.replies import FGS, OTHER, ROOT, call, function
from tests.support.http_app import HELLO, encoded, zipped

ECHO = """
import json

print("module loaded")

def handler(event, context):
    print("said", json.dumps(event))
    words = [context.getUserData("greeting"), context.getUserData("secret")]
    return {"event": event, "words": words, "memory": context.getMemorySize()}
"""
SPEAK = 'def handler(event, context):\n    print("said " * 2_000, "to the end ß")\n    return "x" * 3000\n'
FAIL = "def handler(event, context):\n    raise ValueError(f\"no {event['n']}\")\n"
#: Fails at the first attempt of an event, and succeeds at the next in the same instance.
FLAKY = """
seen = set()

def handler(event, context):
    if event["n"] not in seen:
        seen.add(event["n"])
        raise ValueError("first attempt")
    return "second attempt"
"""
#: Sleeps as long as a folder exists. The folder is gone when the next engine runs the invocation again.
SLEEP = """
import os, time

def handler(event, context):
    while os.path.exists(event["folder"]):
        time.sleep(0.02)
    return "awake"
"""
HANG = "import time\n\ndef handler(event, context):\n    time.sleep(3600)\n"
#: Takes long enough that no two invocations start in the same millisecond.
SLOW = "import time\n\ndef handler(event, context):\n    time.sleep(0.01)\n    return event\n"
PLAIN = "def handler(event, context):\n    return event\n"
#: Functions with a plain handler, by their use.
PLAIN_ONES = ("aged", "ordered", "reports", "strays", "stored", "ticks", "clicks", "lines", "pushed", "served")
GREETING, SECRET = "grüß dich, 世界 🎈", "sésame"
FIELDS = {
    "description": "everything that a function can have, ß",
    "user_data": json.dumps({"greeting": GREETING}),
    "encrypted_user_data": json.dumps({"secret": SECRET}),
    "timeout": 30,
    "memory_size": 256,
    "initializer_timeout": 20,
    "pre_stop_timeout": 5,
    "xrole": "role",
    "enable_dynamic_memory": True,
    "enterprise_project_id": "enterprise",
    "func_vpc": {"vpc_id": "v", "subnet_id": "s"},
    "log_config": {"group_id": "g", "group_name": "group", "stream_id": "s", "stream_name": "stream"},
    "tags": json.dumps({"first": "1"}),
    "functiond": {"priority_cap": 8, "weight": 2.5},
    "strategy_config": {"concurrency": 20, "concurrent_num": 1},
}


def create_functions(engine: EngineProcess) -> dict[str, str]:
    """Create all functions, and those resources that have ids. Return the ids."""
    engine.create("echo", ECHO, **FIELDS)
    engine.create("speaks", SPEAK)
    engine.create("fails", FAIL)
    engine.create("hopeless", FAIL)
    engine.create("flaky", FLAKY)
    engine.create("sleeps", SLEEP, strategy_config={"concurrency": 1})
    engine.create("crashes", HANG)
    engine.create("held", SLOW)
    for name in PLAIN_ONES:
        engine.create(name, PLAIN)
    call(engine, "POST", BASE.replace(PROJECT, OTHER), _plain("elsewhere"))
    _create_versions(engine)
    _configure(engine)
    _set_switches(engine)
    ids = {**_create_zipped(engine), **_create_events(engine)}
    engine.create("gone", PLAIN)  # last, so that its id would be used again if ids were
    return {**ids, "gone": call(engine, "GET", f"{function('gone')}/config")["func_id"]}


def _plain(name: str, **fields: object) -> dict[str, object]:
    return {**HELLO, "func_name": name, "timeout": 30, "func_code": {"file": encoded(PLAIN)}, **fields}


def _create_versions(engine: EngineProcess) -> None:
    call(engine, "POST", f"{function('echo')}/versions", {"version": "v1", "description": "the first"})
    changed = {"code_type": "inline", "func_code": {"file": encoded(ECHO.replace("said", "v2 said"))}}
    call(engine, "PUT", f"{function('echo')}/code", changed)
    call(engine, "POST", f"{function('echo')}/versions", {"version": "v2", "description": "the second"})
    aliases = f"{function('echo')}/aliases"
    weighted = {"name": "live", "version": "v1", "additional_version_weights": {"v2": 30}, "description": "30 % v2"}
    call(engine, "POST", aliases, weighted)
    rule = {"rule_type": "header", "param": "x-try", "op": "in", "value": "a,b"}
    strategy = {"v1": {"combine_type": "or", "rules": [rule]}}
    call(engine, "POST", aliases, {"name": "canary", "version": "v2", "additional_version_strategy": strategy})


def _configure(engine: EngineProcess) -> None:
    """Store asynchronous settings, of versions as well."""
    late = to("DIS", stream_name="late")
    bucket = to("OBS", bucket="outcomes", prefix="of/stored", expires=3)
    custom = {"log_group_id": "g", "log_stream_id": "s"}
    engine.configure("fails", max_async_retry_attempts=1, destination_config={"on_failure": to_function("served")})
    engine.configure("flaky", max_async_retry_attempts=2, enable_async_status_log=True, **custom)
    engine.configure("hopeless", max_async_retry_attempts=3, max_async_event_age_in_seconds=86_400)
    rule = {"error_type": "ThrottledError", "max_retries": 8, "base": 5}
    engine.configure("ordered", max_async_retry_attempts=1, retry_rules=[rule], enable_async_status_log=True)
    engine.configure("aged", max_async_event_age_in_seconds=1)
    engine.configure("reports", destination_config={"on_success": late})
    engine.configure("strays", destination_config={"on_success": to_function("missing")})
    engine.configure("stored", destination_config={"on_success": bucket, "on_failure": late})
    version = f"{function('echo').removesuffix(':latest')}:v1/async-invoke-config"
    call(engine, "PUT", version, {"max_async_retry_attempts": 2, "max_async_event_age_in_seconds": 7200})


def _set_switches(engine: EngineProcess) -> None:
    call(engine, "PUT", f"{function('echo')}/tracing", {"tracing_ak": "access", "tracing_sk": "secret"})
    call(engine, "PUT", f"{function('echo')}/collect/true")
    tags = {"tags": [{"key": "owner", "value": "größer"}], "sys_tags": [{"key": "_sys", "value": "s"}]}
    call(engine, "POST", f"{ROOT}/functions/{urn_of('echo')}/tags/create", tags)
    noon = {"name": "noon", "cron": "0 0 12 * * ?", "count": 2, "start_time": 1, "expired_time": 4_000_000_000}
    call(engine, "PUT", f"{function('speaks')}/reservedinstances", {"count": 1, "idle_mode": True})
    later = {"count": 0, "tactics_config": {"cron_configs": [noon]}}
    for qualifier in ("v1", "!live"):
        path = f"{function('echo').removesuffix(':latest')}:{qualifier}/reservedinstances"
        call(engine, "PUT", path, later)


def _create_zipped(engine: EngineProcess) -> dict[str, str]:
    """Create a function from a zip package that uses the second version of a dependency."""
    for value in ("one", "two"):
        package = encoded(zipped(shared__py=f"VALUE = {value!r}\n"))
        body = {"name": "shared", "runtime": "Python3.10", "depend_type": "zip", "depend_file": package}
        dependency = call(engine, "POST", f"{FGS}/dependencies/version", {**body, "description": f"says {value}"})
    source = "import shared\n\ndef handler(event, context):\n    return [shared.VALUE, event]\n"
    code = {"code_type": "zip", "code_filename": "zipped.zip", "func_code": {"file": encoded(zipped(index__py=source))}}
    call(engine, "POST", BASE, _plain("zipped", depend_version_list=[dependency["id"]], **code))
    return {"dependency": dependency["dep_id"]}


def _create_events(engine: EngineProcess) -> dict[str, str]:
    body = {"name": "first", "content": encoded('{"k": "é"}')}
    return {"event": call(engine, "POST", f"{function('echo')}/events", body)["id"]}
