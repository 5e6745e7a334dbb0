"""Facts that runs know about themselves, hooks around runs, and timers that functions and programs set."""

from __future__ import annotations

import base64
import json
import shlex
import shutil
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from functiond import Client, instance

from bench.django_orm import kill_again
from bench.harness import Options
from engine.isolation.detect import can_map_ports
from engine.runtimes.interpreters import own_interpreter
from tests.acceptance.engine_process import BASE, PROJECT, EngineProcess, engine_on, until, urn_of
from tests.acceptance.test_calls_in_functions import INDEX, children, run, zipped
from tests.acceptance.test_trace_context import TRACE

PYTHON = """
def handler(event, run):
    assert run.attempt > 1 and run.deadline == run.deadline
    known = run.attempt, run.max_attempts, run.trigger, run.parent, run.traceparent
    return [*known, str(run.accepted_at), str(run.deadline)]
def starting(run):
    assert (run.attempt, run.parent, run.accepted_at) == (0, "", None) and run.deadline.tzinfo
"""
NODE = """
exports.handler = async (event, { attempt, maxAttempts, trigger, parent, traceparent, acceptedAt, deadline }) => {
  if (attempt < 2 || process.env.TRACEPARENT !== traceparent) throw new Error("again");
  return [attempt, maxAttempts, trigger, parent, traceparent, acceptedAt, deadline];
};
"""
BOOTSTRAP = """
import http.client, http.server, json, os
def facts(headers):
    first, most, *known = [headers["X-Cff-" + name] for name in "Attempt Max-Attempts Trigger Parent".split()]
    known += [headers[name] for name in ("traceparent", "X-Cff-Accepted-At", "X-Cff-Deadline")]
    return os._exit(1) if first == "1" else json.dumps([int(first), int(most), *known]).encode()
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.wfile.write(b"HTTP/1.0 200 OK\\r\\n\\r\\n" + facts(self.headers))
if "RUNTIME_API_ADDR" not in os.environ:
    http.server.HTTPServer(("127.0.0.1", 8000), Handler).serve_forever()
def ask(*request):
    api.request(*request)
    reply = api.getresponse()
    return reply.headers, json.loads(reply.read() or b"null")
api, root = http.client.HTTPConnection(os.environ["RUNTIME_API_ADDR"]), "/v1/runtime/invocation/"
while True:
    headers, _ = ask("GET", root + "request")
    request_id, known = headers["X-Cff-Request-Id"], json.loads(facts(headers))
    calls = json.dumps({"calls": [{"function": "parent"}] * 2})
    queued, wrong = (ask("POST", root + "calls/" + each, calls)[1] for each in (request_id, "none"))
    known[:0] = [each["request_id"] for each in queued["results"]], wrong["errorType"]
    ask("POST", root + "response/" + request_id, json.dumps(known))
"""
PARENT = """
import os
def handler(event, run):
    http = {"httpMethod": "GET", "path": "/", "headers": {"x-cff-attempt": "7"}}
    known = [run.parent, run.trigger, run.traceparent, os.environ.get("TRACEPARENT")]
    return known + [run.enqueue(name, http) for name in event or ()]
"""
HOOKS = """
import asyncio, threading
from functiond import App, get_context
app, seen, state = App(), [], {"way": ""}
def note(word, *error):
    thread = threading.current_thread().name.partition("_")[0]
    seen.append("@".join([word, *(type(one).__name__ for one in error), thread]))
@app.startup
async def connect():
    state["loop"] = asyncio.get_running_loop()
app.startup(lambda: 1 / (get_context().getUserData("broken") != "yes"))
def hook(register, word, *fails):
    @register
    def plain(context, *error):
        note(word, *error)
        if state["way"] in fails:
            state["way"] = ""
            raise OSError(word)
def async_hook(register, word):
    @register
    async def later(context, *error):
        await asyncio.sleep(0)
        assert context is get_context() and asyncio.get_running_loop() is state["loop"]
        note(word, *error)
hook(app.after, "last")
async_hook(app.before, "first")
hook(app.after, "middle", "after", "both")
hook(app.before, "second", "arm")
async_hook(app.after, "inner")
@app.function()
def plain(way: str) -> list:
    note(way)
    state["way"] = way
    if way in ("error", "both"):
        raise ValueError(way)
    timer = {"crontab": "* * * * * *", "event": plain.event("seen")} if way == "schedule" else {}
    if way.endswith("schedule"):
        getattr(app, way)("soon", **timer)
    return seen if way == "seen" else []
@app.function()
async def later(way: str) -> list:
    await asyncio.sleep(0)
    return plain(way)
"""
#: Hooks and ways of handlers in the order in which they run, with errors and threads (1: of async hooks).
ORDER = """
first@{1} second@{0} error@{0} inner@ValueError@{1} middle@ValueError@{0} last@ValueError@{0}
first@{1} second@{0} after@{0} inner@NoneType@{1} middle@NoneType@{0} last@OSError@{0}
first@{1} second@{0} both@{0} inner@ValueError@{1} middle@ValueError@{0} last@ValueError@{0}
first@{1} second@{0} arm@{0} inner@NoneType@{1} middle@NoneType@{0} last@NoneType@{0}
first@{1} second@{0} middle@OSError@{0} last@OSError@{0}
first@{1} second@{0} seen@{0}
"""
INDEX += "\nstartup = functiond.startup_of('tasks:app')\n"
CODE = zipped({"functiond.py": Path(instance.__file__).read_text(), "tasks.py": HOOKS, "index.py": INDEX})


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    with engine_on(tmp_path_factory.mktemp("runs") / "data", FUNCTIOND_EXECUTOR__FUNCTION_ROLE="admin") as engine:
        yield engine


def deploy(engine: EngineProcess, name: str, attribute: str, **fields: object) -> None:
    fields |= {"handler": f"index.{attribute}", "initializer_handler": "index.startup", "initializer_timeout": 30}
    engine.create(name, "", code_type="zip", func_code=CODE, **fields)


def test_a_run_knows_its_attempt_times_parent_and_trigger(engine: EngineProcess) -> None:
    script = f"#!/bin/sh\nexec {shlex.quote(own_interpreter().path)} serve.py\n"
    code = {"code_type": "zip", "func_code": zipped({"bootstrap": script, "serve.py": BOOTSTRAP})}
    engine.create("python", PYTHON, timeout=30, initializer_handler="index.starting", initializer_timeout=9)
    if shutil.which("node"):
        engine.create("node", NODE, timeout=30, runtime="Node.js18.15")
    for name in (bootstraps := ["Custom", *["http"] * can_map_ports()]):
        engine.create(name, "", timeout=30, runtime=name, handler="-", **code)
    engine.create("parent", PARENT)
    engine.create("shared", PARENT, strategy_config={"concurrency": 1, "concurrent_num": 4})
    names = ["python", *bootstraps, *["node"] * bool(shutil.which("node"))]
    for name in names:
        rules = [{"code": 4010, "max_retries": 4}] if name == "node" else []
        engine.configure(name, max_async_retry_attempts=2, max_async_event_age_in_seconds=600, retry_rules=rules)
    request_id = engine.accepted("parent", names, traceparent=TRACE)
    outcome = json.loads(engine.record("parent", request_id, wait=40)["result"])
    assert outcome[:4] == ["", "API", TRACE, TRACE]
    assert run(engine, "parent", [])[1] == ["", "API", "", None]
    shared = engine.accepted("shared", [], traceparent=TRACE)
    assert json.loads(engine.record("shared", shared, wait=40)["result"])[2:] == [TRACE, None]
    for name, child in zip(names, outcome[4:], strict=True):
        result = json.loads(engine.record(name, child, wait=40)["result"])
        if name == "Custom":
            queued, wrong, *result = result
            assert (children(engine, child), wrong) == (queued, "Forbidden")
        *known, accepted, deadline = json.loads(base64.b64decode(result["body"])) if name == "http" else result
        assert known == [2, 5 if name == "node" else 3, "CALL", request_id, TRACE], name
        begin, end = (datetime.fromisoformat(one.replace("Z", "+00:00")).timestamp() for one in (accepted, deadline))
        assert (round(begin - int(child[:8] + child[9:13], 16) / 1000, 3), 30 <= end - begin < 90) == (0, True)


@pytest.mark.parametrize(("name", "at_once"), [("plain", 1), ("plain", 4), ("later", 1), ("later", 4)])
def test_hooks_run_around_each_handler_in_its_thread(engine: EngineProcess, name: str, at_once: int) -> None:
    deploy(engine, f"{name}{at_once}", name, strategy_config={"concurrency": 1, "concurrent_num": at_once})
    path, ways = f"{BASE}/{urn_of(f'{name}{at_once}')}/invocations", ("error", "after", "both", "arm", "any", "seen")
    *errors, seen = [engine.ask("POST", path, {"way": way}).json for way in ways]
    assert [error and error["errorMessage"] for error in errors] == ["error", "middle", "both", [], "second"]
    threads = ("request", "loop") if (name, at_once) == ("plain", 4) else ("MainThread", "MainThread")
    assert seen == ORDER.format(*threads).split()


def test_a_startup_hook_that_fails_ends_the_start(engine: EngineProcess) -> None:
    deploy(engine, "broken", "plain", user_data='{"broken": "yes"}')
    record = engine.record("broken", engine.accepted("broken", {"way": "ok"}), wait=40)

    assert (record["error_code"], "ZeroDivisionError" in record["error_message"]) == (4009, True), record


def test_functions_and_programs_set_timers(engine: EngineProcess) -> None:
    def timers() -> list[Any]:
        found = [engine.ask("GET", f"/v2/{PROJECT}/fgs/triggers/{urn_of(name)}").json for name in ("plain", "later")]
        return [one["event_data"]["schedule"] for timers in found for one in timers]

    deploy(engine, "plain", "plain")
    deploy(engine, "later", "later")
    run(engine, "plain", "schedule")
    until(lambda: engine.ask("GET", f"{BASE}/{urn_of('plain')}/async-invocations?status=SUCCESS").json["count"] > 1)
    exec(HOOKS, program := dict[str, Any]())
    program["app"].connect(Client(engine.url, project=PROJECT))
    for _ in range(2):
        program["app"].schedule("soon", crontab="0 3 * * 5-7", zone="UTC", event=program["later"].event("é"))
    assert timers() == ["CRON_TZ=UTC 0 0 3 * * 5-6,0"]
    with pytest.raises(TypeError, match="from-code"):
        program["app"].unschedule("from-code")
    with pytest.raises(TypeError, match="without options"):
        program["app"].schedule("soon", crontab="0 3 * * *", event=program["later"].options(priority=3).event("a"))
    run(engine, "plain", "unschedule")
    assert timers() == []


def test_a_django_project_leaves_no_connection_open(tmp_path: Path) -> None:
    pytest.importorskip("django", reason="needs django: pip install django")
    figures = kill_again(Options(directory=str(tmp_path)), calls=40, kills=2, seed=1, progress=print)

    assert (figures["violations"], figures["connections left open"], figures["instances at the end"] > 1) == (0, 0, 1)
