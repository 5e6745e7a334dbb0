"""Shapes of Python functions: packages, files, native code, threads, processes, loops, signals."""

from __future__ import annotations

import shutil
import sysconfig
from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine.runtimes.interpreters import WORKERS
from tests.support.python_process import PythonProcess


def test_modules_of_a_package_import_each_other(tmp_path: Path) -> None:
    files = {
        "app/__init__.py": "VERSION = '1'",
        "app/api/__init__.py": "",
        "app/api/main.py": (
            "from . import tools\nfrom .. import VERSION\nfrom app.api.tools import double\nimport shared\n"
            "def handler(event, context): return [tools.double(event), VERSION, double is tools.double, shared.NAME]"
        ),
        "app/api/tools.py": "def double(n): return 2 * n",
        "shared.py": "NAME = __name__",
    }
    with PythonProcess(tmp_path, "", files=files, handler="app/api/main.handler") as instance:
        assert instance.call(2) == [4, "1", True, "shared"]


def test_a_folder_without_init_serves_as_well(tmp_path: Path) -> None:
    files = {"src/main.py": "from . import near\ndef handler(event, context): return near.X", "src/near.py": "X = 1"}
    with PythonProcess(tmp_path, "", files=files, handler="src/main.handler") as instance:
        assert instance.call() == 1


def test_the_code_is_the_working_folder_and_on_the_path(tmp_path: Path) -> None:
    source = """
import importlib.resources, os, sys


def handler(event, context):
    texts = [open(name).read() for name in ("data.txt", "./sub/more.txt", os.path.join(os.getcwd(), "data.txt"))]
    return [*texts, __file__ == os.path.join(sys.path[0], "index.py"), __name__]
"""
    with PythonProcess(tmp_path, source, files={"data.txt": "data", "sub/more.txt": "more"}) as instance:
        assert instance.call() == ["data", "more", "data", True, "index"]


def test_layers_come_behind_the_code_and_may_have_the_handler(tmp_path: Path) -> None:
    for name, modules in (("first", ("one", "mine")), ("second", ("one", "two"))):
        (tmp_path / name).mkdir()
        for module in modules:
            (tmp_path / name / f"{module}.py").write_text(f"WHERE = {name!r}")
    source = "import mine, one, two\ndef handler(event, context): return [m.WHERE for m in (mine, one, two)]"
    (tmp_path / "second" / "tools.py").write_text(source)
    setup: Any = {"layers": [str(tmp_path / "first"), str(tmp_path / "second")], "handler": "tools.handler"}
    with PythonProcess(tmp_path, "", files={"mine.py": "WHERE = 'code'"}, **setup) as instance:
        assert instance.call() == ["code", "first", "second"]


@pytest.mark.parametrize("concurrency", [1, 2])
def test_modules_named_like_those_of_the_worker_are_the_users(tmp_path: Path, concurrency: int) -> None:
    names = [file.stem for file in WORKERS.glob("python_*.py")]
    files = {f"{name}.py": "MINE = True" for name in names}
    source = f"import {', '.join(names)}\ndef handler(event, context): return [{names[0]}.MINE, {names[-1]}.MINE]"
    with PythonProcess(tmp_path, source, files=files, concurrency=concurrency) as instance:
        assert instance.call() == [True, True]


def test_native_modules_in_the_package_are_loaded(tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    shutil.copytree(Path(msgspec.__file__).parent, tmp_path / "code" / "msgspec")
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    source = """
import msgspec, msgspec._core


def handler(event, context):
    return [msgspec.json.decode(msgspec.json.encode(event)), msgspec._core.__file__]
"""
    with PythonProcess(tmp_path, source) as instance:
        assert instance.call({"a": 1}) == [{"a": 1}, str(tmp_path / "code" / "msgspec" / f"_core{suffix}")]


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing_works(tmp_path: Path, method: str) -> None:
    source = """
import multiprocessing


def square(n):
    return n * n


def handler(event, context):
    with multiprocessing.get_context(event).Pool(2) as pool:
        return pool.map(square, [1, 2, 3])
"""
    with PythonProcess(tmp_path, source) as instance:
        assert [instance.call(method) for _ in range(2)] == [[1, 4, 9]] * 2


def test_threads_and_subprocesses_work(tmp_path: Path) -> None:
    source = """
import concurrent.futures, subprocess, sys


def handler(event, context):
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        squares = list(pool.map(lambda n: n * n, range(4)))
    child = subprocess.run([sys.executable, "-c", "print(input())"], input="hi", capture_output=True, text=True)
    return [squares, child.stdout, child.returncode]
"""
    with PythonProcess(tmp_path, source) as instance:
        assert instance.call() == [[0, 1, 4, 9], "hi\n", 0]


@pytest.mark.parametrize("concurrency", [1, 2])
def test_a_plain_handler_may_run_a_loop_of_its_own(tmp_path: Path, concurrency: int) -> None:
    source = """
import asyncio


async def job(n):
    process = await asyncio.create_subprocess_exec("echo", str(n), stdout=asyncio.subprocess.PIPE)
    return (await process.communicate())[0].decode()


async def jobs():
    return await asyncio.gather(job(1), job(2))


def handler(event, context):
    return asyncio.run(jobs())
"""
    with PythonProcess(tmp_path, source, concurrency=concurrency) as instance:
        assert [instance.call() for _ in range(2)] == [["1\n", "2\n"]] * 2


def test_tasks_live_on_between_the_requests_of_a_loop(tmp_path: Path) -> None:
    source = """
import asyncio


async def handler(event, context):
    if event == "start":
        global task
        task = asyncio.create_task(asyncio.sleep(0, "kept"))
        return "started"
    return await task
"""
    with PythonProcess(tmp_path, source) as instance:
        instance.ask("start")
        instance.answer()
        instance.ask("go on")

        assert instance.answer().result == b"kept"


def test_a_function_may_time_itself_by_signals(tmp_path: Path) -> None:
    source = """
import signal, time


class TooLate(Exception): pass


def ring(*unused):
    raise TooLate


def handler(event, context):
    signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    try:
        time.sleep(30)
    except TooLate:
        return "in time"
"""
    with PythonProcess(tmp_path, source) as instance:
        instance.ask()

        assert instance.answer().result == b"in time"


def test_a_daemon_that_lets_go_of_everything_costs_the_function_nothing(tmp_path: Path) -> None:
    source = """
import os


def handler(event, context):
    if os.fork() == 0:
        os.setsid()
        os.closerange(0, 256)
        os._exit(0)
    os.wait()
    return 1
"""
    with PythonProcess(tmp_path, source) as instance:
        assert [instance.call(), instance.call()] == [1, 1]


def test_dataclasses_enums_and_pickles_find_their_module(tmp_path: Path) -> None:
    source = """
import dataclasses, enum, pickle, typing


class Colour(enum.Enum):
    RED = 1


@dataclasses.dataclass
class Order:
    number: int
    colour: "Colour"


def handler(event, context):
    order = pickle.loads(pickle.dumps(Order(event, Colour.RED)))
    return [order.number, order.colour.name, typing.get_type_hints(Order)["colour"] is Colour]
"""
    with PythonProcess(tmp_path, source) as instance:
        assert instance.call(7) == [7, "RED", True]


def test_an_initializer_sees_its_own_time_and_no_request(tmp_path: Path) -> None:
    source = """
seen = []


def prepare(context):
    left = context.getRemainingTimeInMilliSeconds()
    seen.extend([50_000 < left <= 60_000, context.getRequestID(), context.getRunningTimeInSeconds()])


def handler(event, context):
    return [*seen, context.getRemainingTimeInMilliSeconds() <= 30_000]
"""
    with PythonProcess(tmp_path, source, initializer="index.prepare", initializer_timeout=60, timeout=30) as instance:
        assert instance.call() == [True, "", 30, True]


@pytest.mark.parametrize("name", ["getMemorySize", "getCPUNumber"])
def test_figures_serve_as_numbers_and_as_text(tmp_path: Path, name: str) -> None:
    source = f"""
import json


def handler(event, context):
    n = context.{name}()
    texts = ["n=" + n, n + "!", "%s %d" % (n, n), f"{{n}}", json.dumps(n)]
    return [*texts, n + 1, 1 + n, n * 2, int(n), n == str(n), n > 1]
"""
    number = {"getMemorySize": 128, "getCPUNumber": 300}[name]
    with PythonProcess(tmp_path, source) as instance:
        text = str(number)
        texts = ["n=" + text, text + "!", f"{text} {text}", text, text]

        assert instance.call() == [*texts, number + 1, number + 1, number * 2, number, True, True]
