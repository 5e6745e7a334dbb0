"""Functions from code: deployed with ``functiond deploy module:app``, then called here and on a real engine."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from engine.cli.commands import make_app
from engine.deploy.apps import describe
from engine.errors import UsageError
from tests.support.distributions import add_wheel
from tests.support.engine_process import CLEAN, ROOT, EngineProcess, engine_process

CLIENT = ROOT / "engine" / "client"
WHEEL = "answers-1.0-py3-none-any.whl"
TASKS = """
from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from pathlib import Path
from typing import NamedTuple

from functiond import App, Client, Handle, InvocationFailed, get_context

import helper

app = App(Client())


class Mode(Enum):
    FAST = "fast"


@dataclass
class Image:
    path: Path
    width: int
    at: datetime
    mode: Mode = Mode.FAST


class Point(NamedTuple):
    x: int
    y: float


@app.function(retries=0, timeout=20, memory=256, per_key=3)
def resize(path: Path, width: int = 100, *, at: datetime) -> Image:
    assert isinstance(path, Path) and isinstance(at, datetime)
    print("resizing", path.name)
    return Image(path.with_suffix(helper.SUFFIX), width, at)


@app.function(name="moves", on_failure="default:seen")
async def move(*points: Point, by: dict[str, tuple[int, ...]] | None = None) -> list[Point]:
    assert all(isinstance(one, Point) for one in points)
    steps = (by or {}).get("x", (0,))
    assert isinstance(steps, tuple)
    return [Point(one.x + sum(steps), one.y) for one in points]


@app.function(retries=0, on_failure=move)
def fail(image: Image, wait: timedelta) -> None:
    raise ValueError(f"{image.mode.name} {wait.total_seconds()}")


@app.function(schedule="0 3 * * 1-7", zone="Europe/Berlin")
def seen(event: dict) -> str:
    return str(get_context().getRequestID()) + str(sorted(event))


def first(handle: Handle[Image]) -> Image:
    return handle.result()
"""
PROGRAM = """
import asyncio
from datetime import datetime, timedelta, timezone
from pathlib import Path

from functiond import AsyncClient, App, BadArgument, InvocationFailed
from tasks import Image, Mode, Point, fail, move, resize, seen

AT = datetime(2026, 1, 31, 12, 30, tzinfo=timezone.utc)
expected = Image(Path("a.jpg"), 200, AT)
assert resize(Path("a.png"), 200, at=AT) == expected
handle = resize.enqueue(Path("a.png"), 200, at=AT)
assert handle.result(60) == expected, handle.result()
assert [one.text for one in handle.logs()] == ["resizing a.png"]
assert resize.handle(handle.request_id).result(60) == expected
assert resize.call(path=Path("a.png"), at=AT).width == 100

later = resize.options(key="once", delay=3600)
assert later.enqueue(Path("a"), at=AT).request_id == later.enqueue(Path("a"), at=AT).request_id

for wrong, words in [
    (lambda: resize.enqueue("a.png", "200", at=AT), "argument `width` is '200': Expected `int`, got `str`"),
    (lambda: resize.enqueue(Path("a.png")), "missing a required argument: 'at'"),
    (lambda: resize.enqueue(1, at=AT), "argument `path` is 1"),
    (lambda: resize.enqueue(Path("a"), at=AT, depth=1), "unexpected keyword argument 'depth'"),
]:
    try:
        wrong()
    except BadArgument as error:
        assert words in str(error) and str(error).startswith("resize: "), error
    else:
        raise AssertionError(words)

try:
    fail.enqueue(expected, timedelta(seconds=1.5)).result(60)
except InvocationFailed as error:
    assert "ValueError: FAST 1.5" in error.message, error.message
    assert "in fail" in error.traceback
else:
    raise AssertionError("no failure")


async def main():
    moved = await move.enqueue_async(Point(1, 0.5), Point(2, 1), by={"x": (1, 2)})
    assert await moved.result(60) == [Point(4, 0.5), Point(5, 1.0)]
    assert await move.call_async() == []
    assert await move(Point(1, 2)) == [Point(1, 2)]


asyncio.run(main())
asyncio.run(main())


async def other():
    async with AsyncClient() as client:
        app = App(client)

        @app.function(name="moves")
        async def move(*points: Point) -> list[Point]: ...

        assert await (await move.enqueue_async(Point(1, 2))).result(60) == [Point(1, 2)]
        (one,) = await move.enqueue_many_async([move.event(Point(3, 4))])
        assert await one.result(60) == move.call(Point(3, 4)) == [Point(3, 4)]


asyncio.run(other())
many = resize.enqueue_many(resize.event(Path("a"), width, at=AT) for width in (1, 2))
assert [one.result(60).width for one in many] == [1, 2]
print("done")
"""


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    with engine_process(tmp_path_factory.mktemp("app")) as running:
        yield running


@pytest.fixture(scope="module")
def project(engine: EngineProcess, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of an app that has been deployed."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "tasks.py").write_text(TASKS)
    (folder / "helper.py").write_text('SUFFIX = ".jpg"\n')
    (folder / "other.py").write_text("raise SystemExit('not a part of the app')\n")
    (folder / "requirements.txt").write_text("functiond[client]\n")
    deployed = {row["func_name"]: row["action"] for row in deploy(engine, folder)["functions"]}
    assert deployed == dict.fromkeys(("resize", "moves", "fail", "seen"), "created")
    return folder


def run(engine: EngineProcess, folder: Path, *arguments: str, path: Path = CLIENT) -> subprocess.CompletedProcess[str]:
    environ = {**CLEAN, "FUNCTIOND_URL": engine.url, "PYTHONPATH": os.pathsep.join(map(str, (ROOT, CLIENT, path)))}
    environ |= {"PIP_NO_INDEX": "1", "UV_NO_INDEX": "1", "XDG_CACHE_HOME": str(folder / "cache")}
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environ, cwd=folder, timeout=120, check=False)


def deploy(engine: EngineProcess, folder: Path, *options: str) -> Any:
    done = run(engine, folder, "-m", "engine", "deploy", "tasks:app", *options, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def get(engine: EngineProcess, path: str) -> Any:
    return httpx.get(f"{engine.url}/v2/default/fgs/{path}", trust_env=False, timeout=60).raise_for_status().json()


def timers(engine: EngineProcess, name: str) -> list[Mapping[str, Any]]:
    return [trigger["event_data"] for trigger in get(engine, f"triggers/{name}")]


def test_functions_run_here_and_on_the_engine(engine: EngineProcess, project: Path) -> None:
    done = run(engine, project, "-c", PROGRAM)
    assert (done.returncode, done.stdout) == (0, "resizing a.png\ndone\n"), done.stderr
    config = get(engine, "functions/resize/config")
    assert (config["timeout"], config["memory_size"]) == (20, 256)
    assert config["functiond"] == {"app": "tasks", "per_key": 3}
    assert config["handler"] == "functiond_apps/tasks/app.resize"
    settings = get(engine, "functions/fail/async-invoke-config")
    assert settings["max_async_retry_attempts"] == 0
    assert settings["max_async_event_age_in_seconds"] == 86_400
    assert ":moves" in settings["destination_config"]["on_failure"]["param"]


@pytest.mark.usefixtures("project")
def test_events_without_the_client_are_checked_by_the_annotations(engine: EngineProcess) -> None:
    def call(event: object) -> Any:
        return httpx.post(
            f"{engine.url}/v2/default/fgs/functions/resize/invocations", json=event, trust_env=False, timeout=60
        ).json()

    event = {"path": "a.png", "width": 5, "at": "2026-01-31T12:30:00Z"}
    assert call(event)["path"] == "a.jpg"
    refused = call({**event, "width": "5"})
    assert refused["errorType"] == "BadArgument"
    assert "argument `width` is '5': '5' is no int; send an object of arguments by name" in refused["errorMessage"]


def test_a_schedule_becomes_a_timer_and_goes_with_it(engine: EngineProcess, project: Path) -> None:
    timer = {"name": "from-code", "schedule_type": "Cron"}
    assert timers(engine, "seen") == [{**timer, "schedule": "CRON_TZ=Europe/Berlin 0 0 3 * * 1-6,0"}]

    source = TASKS.replace('"0 3 * * 1-7", zone="Europe/Berlin"', '"@daily"')
    (project / "tasks.py").write_text(source)
    due = {function["func_name"]: function["due"] for function in deploy(engine, project)["functions"]}
    assert re.fullmatch(r"(\d{4}-\d\d-\d\d 00:00:00,? ){3}\(UTC\)", due["seen"])
    assert timers(engine, "seen") == [{**timer, "schedule": "0 0 0 * * *"}]

    (project / "tasks.py").write_text(source.replace('schedule="@daily"', ""))
    deploy(engine, project)
    assert timers(engine, "seen") == []


def test_a_package_is_deployed_with_its_data_and_dependencies(engine: EngineProcess, tmp_path: Path) -> None:
    package = tmp_path / "src" / "shop"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("from functiond import App\napp = App()\n")
    (package / "text.txt").write_text("data")
    (package / "jobs.py").write_text(
        "import pathlib\nfrom shop import app\nprint('imported')\n"
        "@app.function()\ndef read() -> list[str]:\n    import answers\n"
        "    return [pathlib.Path(__file__).with_name('text.txt').read_text(), answers.VALUE]\n"
    )
    add_wheel(tmp_path, "answers", text="VALUE = 'installed'\n")
    (tmp_path / "pyproject.toml").write_text(
        f'[project]\nname = "shop"\ndependencies = ["functiond[client]", "answers @ {(tmp_path / WHEEL).as_uri()}"]\n'
    )
    done = run(engine, tmp_path, "-m", "engine", "deploy", "shop.jobs:app", path=tmp_path / "src")
    assert done.returncode == 0, done.stderr

    called = run(engine, tmp_path, "-m", "engine", "invoke", "read")
    assert (json.loads(called.stdout), called.stderr) == (["data", "installed"], "")


APP = "from functiond import App\napp = App()\n"


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("import functiond\n", "tasks has no app named 'app', and no ASGI or WSGI application: write"),
        (APP, "the app tasks:app has no function"),
        ("1 / 0\n", "cannot import tasks:app: ZeroDivisionError"),
        (f"{APP}@app.function(schedule='daily')\ndef f(): ...\n", "schedule is 'daily': give five fields"),
        (f"{APP}for name in 'ab':\n    @app.function()\n    def f(): ...\n", "two functions f: give one another name"),
        (f"{APP}@app.function(schedule='1h')\ndef f(a, b): ...\n", "it may need one argument only"),
        (f"{APP}@app.function\ndef f(): ...\n", "write @app.function() with parentheses"),
        (
            f"{APP}@app.function(retries='3')\ndef f(): ...\n",
            "function f: Expected `int | null`, got `str` - at `$.retries`",
        ),
        (
            "from functiond import App\napp = App(name='a shop')\n@app.function()\ndef f(): ...\n",
            "name is 'a shop': give",
        ),
        (
            f"{APP}@app.function(retry_rules={{'E': None}})\ndef f(): ...\n",
            "retry_rules has 'E': None: give an exception",
        ),
    ],
)
def test_a_bad_app_is_explained(source: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tasks.py").write_text(source)
    monkeypatch.chdir(tmp_path)

    with pytest.raises(UsageError, match=re.escape(words)):
        describe("tasks:app")


def test_a_module_that_does_not_exist_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tasks.py").write_text(APP)
    for target in ("tasks.py:app", "absent:app"):
        with pytest.raises(UsageError, match=f"no module {target[:-4]}, neither in {tmp_path} nor installed"):
            describe(target)


@pytest.mark.parametrize(
    ("functions", "words", "end"),
    [
        (
            "@app.function()\ndef good(): ...\n@app.function(per_key=0)\ndef hasty(): ...\n",
            "functiond: FSS.0400 cannot create function hasty: functiond.per_key is ",
            "; 1 of 2 changes are made: deploy again for the others\n",
        ),
        (
            "@app.function()\ndef unsent(): ...\n@app.function(on_success='nobody')\ndef sender(): ...\n",
            "functiond: functions.sender.async_invoke_config.destination_config.on_success.param: no function nobody: ",
            "",
        ),
    ],
    ids=["a value is refused", "a destination is unknown and what comes before is not stored"],
)
def test_an_error_names_the_function_and_what_is_made(
    engine: EngineProcess, tmp_path: Path, functions: str, words: str, end: str
) -> None:
    (tmp_path / "tasks.py").write_text(f"{APP}{functions}")
    done = run(engine, tmp_path, "-m", "engine", "deploy", "tasks:app")

    assert (done.returncode > 0, done.stderr[: len(words)]) == (True, words)
    assert done.stderr.endswith(end)
    assert "unsent" not in {row["func_name"] for row in get(engine, "functions")["functions"]}


def test_options_of_the_code_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tasks.py").write_text(f"{APP}@app.function()\ndef f(): ...\n")
    monkeypatch.chdir(tmp_path)
    for options in (["--timeout", "5"], ["--name", "x"], ["--retries", "1"]):
        with pytest.raises(UsageError, match=r"@app\.function\(\)"):
            make_app(["deploy"])(["deploy", "tasks:app", *options], exit_on_error=False)
    with pytest.raises(UsageError, match="--prune needs an app"):
        make_app(["deploy"])(["deploy", ".", "--prune"], exit_on_error=False)
