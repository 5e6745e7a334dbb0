"""Engines inside programs: on an event loop, on a thread, and in what the programs do beside them."""

from __future__ import annotations

import asyncio
import logging
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import structlog
from functiond import App, Client, ClientClosed, Engine, NotFound, Unavailable, Unreachable

from engine.deploy.packaging.tools import local_interpreter
from engine.embedded import RunningEngine
from engine.errors import DataDirectoryLocked, MembershipLost, SettingsError, UsageError
from engine.storage.data_directory import locked
from tests.acceptance.engine_process import descendants
from tests.support.engine_process import CLEAN, ROOT
from tests.support.ports import free_port

TASKS = """
from functiond import App

app = App()


@app.function()
def resize(path: str, width: int = 100) -> str:
    return f"{path} {width}"


@app.function()
def wait(folder: str) -> str:
    import os

    with open(f"{folder}/began", "w") as began:
        print(os.getpid(), file=began)
    with open(f"{folder}/go") as go:
        return go.read()


@app.function(timeout=600)
def sleep() -> None:
    import time

    print("sleeping", flush=True)
    time.sleep(600)
"""
#: Settings of programs: a function of theirs sees the files and process ids of the host.
HOST = {"executor.isolation": "process"}


@pytest.fixture(scope="module", autouse=True)
def _structlog() -> Iterator[None]:
    """Undo what commands that ran in this process have configured, and what engines configure here."""
    structlog.reset_defaults()
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("embedded")
    (folder / "embedded_tasks.py").write_text(TASKS)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        patch.chdir(folder)  # without requirements
        import embedded_tasks  # type: ignore[import-not-found]

        yield embedded_tasks


@pytest.fixture(scope="module")
def engine(tasks: Any) -> Iterator[RunningEngine]:
    with Engine.running(fast=True) as engine:
        engine.deploy(tasks.app)
        yield engine


async def test_an_engine_runs_on_the_event_loop_of_its_program(tmp_path: Path, tasks: Any) -> None:
    async with Engine(settings={**HOST, "storage.data_dir": str(tmp_path)}) as engine:
        await engine.deploy(tasks.app)
        handle = await tasks.resize.enqueue_async("a.png", width=5)
        with pytest.raises(RuntimeError, match="would block the event loop that runs the engine"):
            tasks.resize.enqueue("a.png")
        assert (await asyncio.to_thread(getattr, tasks.app, "client")).configuration.url == engine.url
        earlier = await tasks.resize.handle_async(handle.request_id)
        results = await earlier.result(60), await engine.client().call("resize", {"args": ["b"], "kwargs": {}})

    assert results == ("a.png 5", "b 100")
    assert not answers(engine.url)
    async with Engine(settings={**HOST, "storage.data_dir": str(tmp_path)}) as later:
        assert await later.client().handle("resize", handle.request_id).status() == "SUCCESS"


def test_threads_share_an_engine(engine: RunningEngine, tasks: Any) -> None:
    with ThreadPoolExecutor(4) as threads:
        shared = list(threads.map(lambda number: tasks.resize.enqueue("a", number).result(60), range(8)))
        own = list(threads.map(lambda name: engine.client().call("resize", _call(name)), "bc"))

    assert shared == [f"a {number}" for number in range(8)]
    assert own == ["b 100", "c 100"]


async def test_after_its_end_the_clients_of_an_engine_say_so(tasks: Any) -> None:
    local_interpreter.cache_clear()  # the next deployment looks for it in the thread of this event loop
    with Engine.running(fast=True) as engine:
        engine.deploy(tasks.app)
        handle = tasks.resize.enqueue("a")
    async with Engine(fast=True) as other:
        aclient = other.client()

    for send in (handle.status, lambda: tasks.resize.call("a")):
        with pytest.raises(ClientClosed, match="that of its embedded engine"):
            send()
    with pytest.raises(ClientClosed, match=f"client of {other.url}"):
        await aclient.enqueue("resize")


def test_an_engine_without_an_event_loop_names_the_way() -> None:
    with (
        pytest.raises(TypeError, match=r"use `async with Engine\(…\)`, or `with Engine\.running\(…\)`"),
        Engine(fast=True),
    ):
        pass


def test_the_clients_of_an_engine_ignore_the_environment(
    engine: RunningEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FUNCTIOND_PROJECT", "other")
    monkeypatch.setenv("FUNCTIOND_TOKEN", "secret")

    assert engine.client().call("resize", _call("a")) == "a 100"
    with pytest.raises(NotFound):
        engine.client(project="other").call("resize", _call("a"))


def test_a_function_that_leaves_the_code_leaves_the_engine(engine: RunningEngine, tasks: Any, tmp_path: Path) -> None:
    file = Path(tasks.__file__)
    file.write_text(TASKS.replace("def resize(", "def shrink("))
    try:
        engine.deploy(tasks.app)
        assert engine.client().call("shrink", _call("a")) == "a 100"
        with pytest.raises(NotFound):
            engine.client().call("resize", _call("a"))
    finally:
        file.write_text(TASKS)
        engine.deploy(tasks.app)


def test_an_app_without_a_name_is_refused(engine: RunningEngine) -> None:
    with pytest.raises(UsageError, match=r"write `app = App\(\)` at the top of a module"):
        engine.deploy(App())


READER = {"access": "r", "secret": "r" * 16, "project": "mine", "role": "read"}
KEY = {"access": "a", "secret": "s" * 16, "project": "mine"}
TOKEN = {"token": "t" * 16, "project": "mine"}


@pytest.mark.parametrize("auth", [{"auth.keys": [READER, KEY]}, {"auth.keys": [READER], "auth.tokens": [TOKEN]}])
async def test_credentials_of_the_settings_are_used(auth: dict[str, Any], tasks: Any) -> None:
    async with Engine(settings={**HOST, **auth}, fast=True) as engine:
        await engine.deploy(tasks.app)
        async with httpx.AsyncClient(trust_env=False, timeout=60) as stranger:
            refused = await stranger.get(f"{engine.url}/v2/mine/fgs/functions")

        assert await tasks.resize.call_async("a") == "a 100"
        assert refused.status_code == 401


def test_errors_of_the_start_reach_the_program(tmp_path: Path) -> None:
    port = free_port()
    with locked(tmp_path), pytest.raises(DataDirectoryLocked):
        Engine.running(settings={"storage.data_dir": str(tmp_path)}).__enter__()
    with pytest.raises(SettingsError, match="unknown setting"):
        Engine.running(settings={"no.such": 1}).__enter__()
    with (
        Engine.running(settings={"http.port": port}, fast=True),
        pytest.raises(SettingsError, match=str(port)),
        Engine.running(settings={"http.port": port}, fast=True),
    ):
        pytest.fail("two engines have one port")


async def test_errors_of_the_start_reach_the_event_loop(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(DataDirectoryLocked):
        async with Engine(settings={"storage.data_dir": str(tmp_path)}):
            pytest.fail("two engines have one data directory")


async def test_an_error_that_ends_the_engine_is_raised_at_the_end_of_the_block(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lost = asyncio.Event()
    monkeypatch.setattr("engine.storage.sqlite.database.SingleEngine.lost", lambda self: lost.wait())
    with pytest.raises(MembershipLost):
        async with Engine(fast=True) as engine:
            lost.set()

    assert not answers(engine.url)


async def test_a_second_cancellation_ends_the_wait_for_functions(tmp_path: Path, tasks: Any) -> None:
    fifos(tmp_path)
    running = asyncio.Event()

    async def program() -> None:
        async with Engine(settings={**HOST, "grace": 3600.0}, fast=True) as engine:
            await engine.deploy(tasks.app)
            await tasks.wait.enqueue_async(str(tmp_path))
            await asyncio.to_thread((tmp_path / "began").read_text)
            running.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(program())
    await running.wait()
    task.cancel()
    await asyncio.sleep(0)  # the program waits at the end of its block
    assert not task.done()
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task


def test_a_second_interrupt_ends_the_wait_for_functions(tmp_path: Path, tasks: Any) -> None:
    fifos(tmp_path)

    def interrupt_the_end(url: str) -> None:
        with Client(url, retries=0) as client, suppress(Unavailable, Unreachable):
            while True:  # until the engine stops
                client.call("resize", _call("a"))
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    def run() -> None:
        with Engine.running(settings={**HOST, "grace": 3600.0}, fast=True) as engine:
            engine.deploy(tasks.app)
            tasks.wait.enqueue(str(tmp_path))
            (tmp_path / "began").read_text()
            thread.append(threading.Thread(target=interrupt_the_end, args=(engine.url,)))
            thread[0].start()

    thread: list[threading.Thread] = []
    with pytest.raises(KeyboardInterrupt):
        run()
    thread[0].join()


def test_the_fast_mode_keeps_nothing_and_says_so(engine: RunningEngine, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "functiond"), Engine.running(fast=True) as other:
        health = httpx.get(f"{other.url}/healthz", trust_env=False, timeout=60).json()
        page = httpx.get(f"{other.url}/console/", trust_env=False, timeout=60).text
        folder = other.settings.storage.path

    assert f"nothing is kept data_dir={folder}" in caplog.text
    assert not folder.parent.exists()
    assert health["status"] == "degraded"
    assert health["durability"].startswith("fast mode for tests: nothing is synced to disk")
    assert "nothing is synced to disk, and all data ends with the engine" in page


@pytest.mark.parametrize("fast", [True, False])
async def test_only_the_fast_mode_does_without_sync(fast: bool, tmp_path: Path) -> None:
    settings = {} if fast else {"storage.data_dir": str(tmp_path)}
    async with Engine(settings=settings, fast=fast).run() as parts:
        [[level]] = await parts.storage.writer.call(lambda db: db.execute("PRAGMA synchronous").fetchall())  # type: ignore[attr-defined]

    assert level == (0 if fast else 2)


def test_the_fast_mode_leaves_data_directories_alone(tmp_path: Path) -> None:
    config = tmp_path / "functiond.toml"
    config.write_text(f'storage.data_dir = "{tmp_path}/data"\nhttp.port = 0\n')

    with pytest.raises(SettingsError, match=r"leave out storage\.data_dir, or fast"):
        Engine(settings={"storage.data_dir": str(tmp_path)}, fast=True)
    with pytest.raises(SettingsError, match="leave out fast"):
        Engine(fast=True).serve()
    with Engine.running(config=str(config), fast=True) as engine:
        assert engine.client().configuration.url == engine.url

    assert list(tmp_path.iterdir()) == [config]


@contextmanager
def program(text: str, folder: Path, **settings: Any) -> Iterator[subprocess.Popen[str]]:
    """Run a program in a process group of its own, as a terminal does, with ``settings`` and the folder."""
    (folder / "embedded_tasks.py").write_text(TASKS)
    head = (
        f"FOLDER, SETTINGS = {str(folder)!r}, { ({**HOST, 'storage.data_dir': str(folder / 'data'), **settings})!r}\n"
    )
    path = os.pathsep.join(map(str, (ROOT, ROOT / "engine" / "client", folder)))
    command, pipe = [sys.executable, "-c", head + text], subprocess.PIPE
    environment = {**CLEAN, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command, stdout=pipe, env=environment, cwd=folder, text=True, start_new_session=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def answers(url: str) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", urlsplit(url).port)) == 0


def fifos(folder: Path) -> None:
    for name in ("began", "go"):
        os.mkfifo(folder / name)


def lines(process: subprocess.Popen[str], end: str) -> list[str]:
    """Return the output of a program until the line ``end``."""
    assert process.stdout is not None
    output = []
    for line in process.stdout:
        output.append(line.rstrip("\n"))
        if output[-1] == end:
            return output
    raise AssertionError(f"the program ended: {output}")


WAITING = """
import signal
from functiond import Engine
from embedded_tasks import app, resize, wait

with Engine.running(settings=SETTINGS) as engine:
    engine.deploy(app)
    handle = wait.enqueue(FOLDER)
    try:
        print("waiting")
        while True:
            signal.pause()
    except KeyboardInterrupt:
        print("interrupted")
print("stopped")
with Engine.running(settings=SETTINGS) as engine:
    print(engine.client().handle("wait", handle.request_id).result(60))
"""


def test_an_interrupt_reaches_the_program_only(tmp_path: Path) -> None:
    fifos(tmp_path)
    with program(WAITING, tmp_path) as process:
        lines(process, "waiting")
        instance = int((tmp_path / "began").read_text())
        os.killpg(process.pid, signal.SIGINT)
        lines(process, "interrupted")
        (tmp_path / "go").write_text("finished")
        said = [*lines(process, "stopped"), *lines(process, "finished")]
        process.wait()

    assert said == ["stopped", "finished"]
    assert process.returncode == 0
    assert not Path("/proc", str(instance)).exists()


SLEEPING = """
import signal
from functiond import Engine
from embedded_tasks import app, sleep

with Engine.running(settings=SETTINGS) as engine:
    engine.deploy(app)
    next(sleep.enqueue().logs(follow=True))
    print("sleeping")
    signal.pause()
"""


@pytest.mark.parametrize(("isolation", "fork_server"), [("process", "off"), ("process", "start"), ("auto", "need")])
def test_a_killed_program_leaves_no_process(isolation: str, fork_server: str, tmp_path: Path) -> None:
    settings = {"executor.isolation": isolation, "executor.fork_server": fork_server}
    with program(SLEEPING, tmp_path, **settings) as process:
        lines(process, "sleeping")
        others = [os.pidfd_open(pid) for pid in descendants(process.pid)]
        process.kill()
        ended = [bool(select.select([other], [], [], 60)[0]) for other in others]

    assert ended
    assert all(ended)


FORKING = """
import multiprocessing, os, sys
from functiond import Client, Engine
from embedded_tasks import app, resize

def call(url, name, results):
    results.put(Client(url).call("resize", {"args": [name], "kwargs": {}}))

context = multiprocessing.get_context("fork")
with Engine.running(settings=SETTINGS) as engine:
    engine.deploy(app)
    staying = os.fork()
    if not staying:
        sys.stdin.readline()
        os._exit(0)
    leaving = os.fork()
    if not leaving:
        sys.exit(3)
    print(os.waitstatus_to_exitcode(os.waitpid(leaving, 0)[1]))
    results = context.Queue()
    workers = [context.Process(target=call, args=(engine.url, name, results)) for name in "ab"]
    for worker in workers:
        worker.start()
    print(sorted(results.get() for _ in workers))
    for worker in workers:
        worker.join()
    print(resize.call("c"))
with Engine.running(settings=SETTINGS) as engine:
    print(resize.name, engine.client().call("resize", {"args": ["d"], "kwargs": {}}))
print("stopped")
os.kill(staying, 9)
"""


def test_forks_of_the_program_do_not_disturb_its_engine(tmp_path: Path) -> None:
    """A fork that stays holds all descriptors of the engine: its port, its lock, and the sockets of its instances."""
    settings = {"executor.fork_server": "start", "http.port": free_port()}
    with program(FORKING, tmp_path, **settings) as process:
        said = lines(process, "stopped")

    assert said == ["3", "['a 100', 'b 100']", "c 100", "resize d 100", "stopped"]


def _call(*args: str) -> dict[str, object]:
    return {"args": list(args), "kwargs": {}}
