"""Calls that running functions queue: Python and Node.js, threads and tasks, apps, chains, groups."""

from __future__ import annotations

import base64
import io
import json
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from functiond import instance

from tests.acceptance.engine_process import BASE, ECHO, PROJECT, EngineProcess, engine_on, urn_of
from tests.acceptance.test_nodes import cluster
from tests.support.ports import free_port
from tests.support.programs import needs

#: Handler whose event says in which way it queues. Errors are results.
CALLER = """
import asyncio, json, os, threading
from concurrent.futures import ThreadPoolExecutor
from functiond import Client, ClientError
def attempt(call):
    try:
        return call()
    except (RuntimeError, ClientError) as error:
        return f"{type(error).__name__}: {error}"
def by_client(*event):
    return Client().enqueue("echo", *event, priority=3).request_id
at_import, pool, left, seen = attempt(by_client), ThreadPoolExecutor(2), {}, set()
def handler(event, context):
    given = event.get("given", [])
    ways = dict(
        plain=lambda: [context.enqueue("echo", one) for one in given],
        client=lambda: list(map(by_client, given)),
        many=lambda: [handle.request_id for handle in Client().enqueue_many("echo", given)],
        keys=lambda: [context.enqueue("echo", 0, key=key) for key in given],
        pool=lambda: list(pool.map(by_client, given * 2)),
        threads=lambda: threads(given),
        tasks=lambda: asyncio.run(tasks(context, given)),
        left=lambda: leave(context),
        late=lambda: [left["gate"].set(), left["thread"].join(), left["said"]][-1],  # while another request runs
        fork=lambda: fork(context),
        early=lambda: at_import,
        refused=lambda: context.enqueue("missing"),
    )
    if event["way"] == "twice":
        ids = ways["plain"]()
        if context.getRequestID() not in seen:
            seen.add(context.getRequestID())
            raise ValueError("once more")
        return ids
    return json.dumps(attempt(ways[event["way"]]))
def threads(given):
    ids = []
    started = [threading.Thread(target=lambda one=one: ids.append(by_client(one))) for one in given]
    return [[thread.start() for thread in started], [thread.join() for thread in started], ids][-1]
async def tasks(context, given):
    async def one(number):
        return await context.enqueue_async("echo", number), (await Client().enqueue_async("echo", number)).request_id
    return [id for ids in await asyncio.gather(*map(one, given)) for id in ids]
def leave(context):
    def queue():
        left["gate"].wait()
        left["said"] = [attempt(lambda: context.enqueue("echo")), attempt(by_client)]
    left.update(gate=threading.Event(), thread=threading.Thread(target=queue))
    left["thread"].start()
def fork(context):
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.write(writer, attempt(lambda: context.enqueue("echo")).encode())
        os._exit(0)
    os.wait()
    return os.read(reader, 500).decode()
"""
SHARED = """
import threading
from concurrent.futures import ThreadPoolExecutor
from functiond import Client
here, pool = threading.Barrier(2), ThreadPoolExecutor(4)
def handler(event, context):
    here.wait(20)
    queue = lambda: Client().enqueue("echo", event).request_id
    return [queue(), pool.submit(queue).result()]
"""
SHARED_ASYNC = """
import asyncio
from functiond import Client
waiting = []
async def handler(event, context):
    waiting.append(event)
    while len(waiting) < 2:
        await asyncio.sleep(0.01)
    first, second = await asyncio.gather(Client().enqueue_async("echo", event), context.enqueue_async("echo", event))
    return [first.request_id, second]
"""
NODE = """
let go, late;
exports.handler = async (event, context) => {
  if (event.late) return [go() ?? await late];
  const ids = [];
  for (const given of event.given) ids.push(await context.enqueue("echo", given, { priority: 2 }));
  ids.push(await context.enqueue("echo", 1, { key: "node" }), await context.enqueue("echo", 1, { key: "node" }));
  late = new Promise((resolve) => { go = resolve; }).then(() => context.enqueue("echo")).catch((e) => e.message);
  return [...ids, await context.enqueue("missing").catch((error) => error.code)];
};
"""
APP = """
from datetime import timedelta
from pathlib import Path
from functiond import App, group
app = App()
def said(use):
    try:
        use()
    except (TypeError, RuntimeError) as error:
        return str(error)
@app.function()
def resize(path: Path, width: int = 100) -> str:
    if path.name == "bad":
        raise ValueError("bad")
    return f"{path.name}@{width}"
@app.function(name="stored")
def store(text: str, place: str) -> str:
    return f"{text} in {place}"
@app.function()
def index(images: object, title: str) -> list:
    return [title, images.counts, [[one.state, one.result, "bad" in one.error] for one in images.members()]]
@app.function()
async def fan(names: list[Path], way: str) -> object:
    if way == "chain":
        call = resize.event(names[0], width=5).then(store.options(expires=timedelta(seconds=60)), place="box")
        return (await call.enqueue_async()).request_id
    if way == "many":
        later = resize.options(expires=timedelta(seconds=60), priority=1)
        return [handle.request_id for handle in await later.enqueue_many_async(map(resize.event, names))]
    if way == "wrong":
        waits = said(lambda: resize.call(names[0])), said(lambda: resize.enqueue(names[0]).result())
        return [said(lambda: resize.enqueue(5)), said(lambda: resize.enqueue_many([5])), *waits]
    handle = await group(map(resize.event, names), require="ended").then(index, title="all").enqueue_async()
    return [handle.id, handle.request_id]
"""
SANDBOX = {"FUNCTIOND_EXECUTOR__ISOLATION": "auto"} if shutil.which("bwrap") else {}
INDEX = "import functiond\n\ndef __getattr__(name):\n    return functiond.handler_of('tasks:app', name)\n"


def zipped(files: dict[str, str]) -> dict[str, str]:
    with zipfile.ZipFile(written := io.BytesIO(), "w") as archive:
        for name, text in files.items():
            entry = zipfile.ZipInfo(name)
            entry.external_attr = 0o755 << 16
            archive.writestr(entry, text)
    return {"file": base64.b64encode(written.getvalue()).decode()}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    """Run an engine whose functions have no network at all, if the machine has a sandbox."""
    settings = {**SANDBOX, "FUNCTIOND_EXECUTOR__NETWORK": "none"} if SANDBOX else {}
    with engine_on(tmp_path_factory.mktemp("calls") / "data", **settings) as engine:
        engine.create("echo", ECHO)
        engine.create("caller", CALLER)
        yield engine


def run(engine: EngineProcess, name: str, event: object) -> tuple[str, Any]:
    """Run a function. Return its request id and its result."""
    request_id = engine.accepted(name, event)
    record = engine.record(name, request_id, wait=40)
    assert record["status"] == "SUCCESS", record
    return request_id, json.loads(record["result"])


def children(engine: EngineProcess, parent: str) -> list[str]:
    path = f"/v2/{PROJECT}/fgs/async-invocations/{parent}/children"
    return [child["request_id"] for child in engine.ask("GET", path).json["invocations"]]


@pytest.mark.parametrize("way", ["plain", "client", "many", "threads", "tasks", "pool"])
def test_a_function_queues_others_as_its_children(engine: EngineProcess, way: str) -> None:
    given = [{"a": 1}, {"a": 1}, {"é": None}, [5]]
    parent, ids = run(engine, "caller", {"way": way, "given": given})

    assert sorted(children(engine, parent)) == sorted(ids)
    assert len(ids) == (4 if way not in ("tasks", "pool") else 8)
    if way in ("plain", "client", "many"):
        assert [json.loads(engine.record("echo", id, wait=30)["result"]) for id in ids] == given


def test_a_repeated_run_queues_nothing_twice(engine: EngineProcess) -> None:
    engine.configure("caller", max_async_retry_attempts=2)
    parent, ids = run(engine, "caller", {"way": "twice", "given": [1, 1, 2, 3]})

    assert engine.record("caller", parent)["attempt"] == 2
    assert children(engine, parent) == ids
    x, same, y = run(engine, "caller", {"way": "keys", "given": ["x", "x", "y"]})[1]
    assert x == same != y


def test_only_the_run_of_a_request_queues(engine: EngineProcess) -> None:
    (left, _), *told = (run(engine, "caller", {"way": way}) for way in ("left", "late", "fork", "early", "refused"))
    late, fork, early, refused = (result for _, result in told)

    assert [f"{left} has ended" in text for text in late] == [True, True]
    assert ("a process that the handler has started" in fork, "no request runs" in early) == (True, True)
    assert "Not found the function missing" in refused


@pytest.mark.parametrize("source", [SHARED, SHARED_ASYNC])
def test_requests_of_one_instance_queue_children_of_their_own(engine: EngineProcess, source: str) -> None:
    name = f"shared-{len(source)}"
    engine.create(name, source, strategy_config={"concurrency": 1, "concurrent_num": 2})
    parents = [engine.accepted(name, number) for number in (1, 2)]

    for parent in parents:
        first, second = json.loads(engine.record(name, parent, wait=40)["result"])
        assert sorted(children(engine, parent)) == sorted([first, second])


@needs("node")
def test_a_function_of_node_queues(engine: EngineProcess) -> None:
    engine.create("node", NODE, runtime="Node.js18.15")
    parent, (*ids, code) = run(engine, "node", {"given": [{"a": 1}, {"a": 1}, "é"]})

    assert sorted(children(engine, parent)) == sorted(set(ids))
    assert (len(set(ids)), ids[3], code) == (4, ids[4], "FSS.1051")
    assert f"{parent} has ended" in run(engine, "node", {"late": True})[1][0]


def test_functions_of_an_app_queue_chains_and_groups(engine: EngineProcess) -> None:
    code = zipped({"functiond.py": Path(instance.__file__).read_text(), "tasks.py": APP, "index.py": INDEX})
    for attribute, name in {"resize": "resize", "store": "stored", "index": "index", "fan": "fan"}.items():
        engine.create(name, "", handler=f"index.{attribute}", code_type="zip", func_code=code)

    def fan(way: str) -> Any:
        return run(engine, "fan", {"names": ["a", "bad", "c"], "way": way})[1]

    assert engine.record("stored", fan("chain"), wait=30)["result"] == '"a@5 in box"'
    assert [engine.record("resize", id, wait=30)["status"] for id in fan("many")] == ["SUCCESS", "FAIL", "SUCCESS"]
    group, request_id = fan("group")
    title, counts, members = json.loads(engine.record("index", request_id, wait=30)["result"])
    assert (title, counts) == ("all", {"total": 3, "done": 3, "failed": 1})
    assert members == [["SUCCESS", "a@100", False], ["FAIL", None, True], ["SUCCESS", "c@100", False]]
    assert engine.ask("GET", f"/v2/{PROJECT}/fgs/groups/{group}").json["state"] == "SUCCESS"
    *wrong, call, result = fan("wrong")
    assert ["argument `path` is 5" in wrong[0], "takes results of resize.event" in wrong[1]] == [True, True]
    assert all("group(...).then(...)" in text for text in (call, result))


def test_a_run_waits_for_room_in_the_queue_and_then_gets_an_error(tmp_path: Path) -> None:
    source = "def handler(event, context):\n    return [context.enqueue('echo', n, delay=600) for n in range(event)]\n"
    with engine_on(tmp_path / "data", FUNCTIOND_QUEUE__FUNCTION_ROWS="8") as engine:
        engine.create("echo", ECHO)
        engine.create("many", source, timeout=4)
        record = engine.record("many", engine.accepted("many", 20), wait=40)

    assert "Overloaded" in record["error_message"], record


def test_a_function_on_a_node_queues(tmp_path: Path) -> None:
    with cluster(tmp_path, free_port(), **SANDBOX) as engine:
        engine.create("echo", ECHO)
        engine.create("caller", CALLER)
        parent, ids = run(engine, "caller", {"way": "plain", "given": [1, 2]})
        assert children(engine, parent) == ids


def test_without_rights_no_function_queues(tmp_path: Path) -> None:
    with engine_on(tmp_path / "data", FUNCTIOND_EXECUTOR__FUNCTION_ROLE="none") as engine:
        engine.create("caller", CALLER)
        said = engine.ask("POST", f"{BASE}/{urn_of('caller')}/invocations", {"way": "plain", "given": [1]}).json

    assert "executor.function_role" in said
