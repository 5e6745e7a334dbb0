"""Functions of a Django project, with its ORM, while their instances and the engine are killed again and again.

Hooks of the app close the connections of each run, as Django does after each HTTP request. At the end each call must
have run and stored its row once, and no instance may have the database open.
"""

from __future__ import annotations

import base64
import io
import os
import sqlite3
import subprocess
import sys
import time
import zipfile
from collections.abc import Generator, Iterator
from contextlib import closing, suppress
from importlib.util import find_spec
from pathlib import Path
from random import Random
from urllib.parse import quote

from functiond import instance

from bench.groups import BASE
from bench.harness import Figure, Options, Progress, Round, Scenario, scratch
from bench.kills import KilledEngine, killed_engine
from bench.server import PROJECT, ServerFailed
from bench.soak.remains import children, kill_one

CALLS, KILLS = 1_000, 20
RETRIES = {"max_async_retry_attempts": 3, "max_async_event_age_in_seconds": 86_400}
FILES = {
    "functiond.py": Path(instance.__file__).read_text(),
    "index.py": "from functiond import handler_of, startup_of\n\nplain = handler_of('tasks:app', 'plain')\n"
    "shared = handler_of('tasks:app', 'shared')\nstartup = startup_of('tasks:app')\n",
    "settings.py": """
import sys
sys.path.append(%r)  # that of the benchmark, in place of a package with dependencies
INSTALLED_APPS = ["shop"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": %r, "OPTIONS": {
    "timeout": 30, "transaction_mode": "IMMEDIATE",
    "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL"}}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
""",
    "shop/__init__.py": "",
    "shop/models.py": """
from django.db import models

class Order(models.Model):
    number = models.IntegerField(unique=True)
    request_id = models.CharField(max_length=36)

class Run(models.Model):
    order = models.ForeignKey(Order, models.CASCADE)
    connections = models.IntegerField()
""",
    "tasks.py": """
import os
from functiond import App, get_context

app = App()

@app.startup
def set_up():
    os.environ["DJANGO_SETTINGS_MODULE"] = "settings"
    import settings
    import django
    django.setup()

@app.before
def begin(context):
    from django import db
    db.reset_queries()
    db.close_old_connections()

@app.after
def end(context, error):
    from django import db
    db.close_old_connections()

def connections():
    files = [os.path.realpath(f"/proc/self/fd/{each}") for each in os.listdir("/proc/self/fd")]
    return sum(file.endswith("/shop.db") for file in files)

def store(number):
    from django.db import transaction
    from shop.models import Order, Run
    context = get_context()
    with transaction.atomic():
        order, _ = Order.objects.get_or_create(number=number, defaults={"request_id": context.getRequestID()})
        Run.objects.create(order=order, connections=connections())
    return order.id

@app.function()
def plain(number: int) -> int:
    return store(number)

@app.function()
def shared(number: int) -> int:
    return store(number)
""",
}
#: Requests of an instance at a time, by function.
FUNCTIONS = {"plain": 1, "shared": 4}


def rounds(options: Options, progress: Progress) -> Generator[Round, None, None]:
    seed = options.seed
    while True:
        yield kill_again(options, options.scaled(CALLS), options.scaled(KILLS), seed, progress)
        seed += 1


def kill_again(options: Options, calls: int, kills: int, seed: int, progress: Progress) -> Round:
    random = Random(seed)
    began, killed_instances = time.perf_counter(), 0
    with scratch(options) as folder, killed_engine(folder / "data", random, FUNCTIOND_RETRY__BASE="0.1") as killed:
        database, names = folder / "shop.db", list(FUNCTIONS)
        paths = _deploy(killed, folder / "project", database)
        made = [{"function": names[number % 2], "event": {"number": number}} for number in range(calls)]
        ids = [one["request_id"] for one in killed.call("POST", f"{BASE}/calls", {"calls": made})["results"]]

        def ended() -> int:
            return sum(
                int(killed.call("GET", f"{path}/async-invocations?limit=1&status=SUCCESS")["count"]) for path in paths
            )

        for number in range(kills):
            killed.wait(random.randint(number * calls // kills, (number + 1) * calls // kills), ended)
            if random.random() < 0.5 and kill_one(killed.server.pid, random):
                killed_instances += 1
            else:
                killed.kill_within(0.1)
        killed.settle()
        killed.wait(calls, ended)
        for number, path in enumerate(paths):  # so that each function has an instance that has used the database
            killed.call("POST", f"{path}/invocations", {"number": number})
        pids = [pid for pid in children(killed.server.pid) if _is_instance(pid)]
        problems, runs = _check(database, ids)
        left = sum(name.endswith(f"/{database.name}") for pid in pids for name in _open_files(pid))
    for problem in problems[:20]:
        progress(f"django_orm: seed {seed}: {problem}")
    return {
        "violations": len(problems),
        "connections left open": left,
        "instances at the end": len(pids),
        "runs": runs,
        "kills of the engine": killed.kills,
        "kills of its processes": killed_instances,
        "kills": killed.kills + killed_instances,
        "seconds": time.perf_counter() - began,
    }


def _deploy(killed: KilledEngine, folder: Path, database: Path) -> list[str]:
    """Write the project, make its database, and deploy its functions. Return their paths in the API."""
    if (django := find_spec("django")) is None:
        raise ServerFailed("django is not installed: pip install django")
    site = str(Path(str(django.origin)).parents[1])
    with zipfile.ZipFile(written := io.BytesIO(), "w") as archive:
        for name, text in FILES.items():
            file = folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text % (site, str(database)) if name == "settings.py" else text)
            archive.write(file, name)
    migrate = [sys.executable, "-m", "django", "migrate", "--run-syncdb", "--verbosity", "0"]
    subprocess.run(migrate, cwd=folder, env={**os.environ, "DJANGO_SETTINGS_MODULE": "settings"}, check=True)
    paths = []
    for name, at_once in FUNCTIONS.items():
        body = {
            "func_name": name,
            "package": "default",
            "runtime": f"Python3.{sys.version_info.minor}",
            "handler": f"index.{name}",
            "initializer_handler": "index.startup",
            "initializer_timeout": 60,
            "timeout": 60,
            "memory_size": 256,
            "code_type": "zip",
            "func_code": {"file": base64.b64encode(written.getvalue()).decode()},
            "strategy_config": {"concurrency": 2, "concurrent_num": at_once},
        }
        killed.call("POST", f"{BASE}/functions", body)
        path = f"{BASE}/functions/{quote(f'urn:fss:local-1:{PROJECT}:function:default:{name}', safe=':')}"
        killed.call("PUT", f"{path}/async-invoke-config", RETRIES)
        paths.append(path)
    return paths


def _check(database: Path, ids: list[str]) -> tuple[list[str], int]:
    """Return what is wrong with the rows of calls with these request ids, and the number of runs."""
    with closing(sqlite3.connect(database)) as db:
        orders = dict(db.execute("SELECT number, request_id FROM shop_order").fetchall())
        runs, seen = db.execute("SELECT count(*), min(connections) FROM shop_run").fetchone()
    wrong = [number for number, request_id in enumerate(ids) if orders.pop(number, "") != request_id]
    problems = [f"call {number} has not run" for number in wrong] + [f"row {row} is of no call" for row in orders]
    return problems + ["a run has seen no connection"] * (not seen), runs


def _is_instance(pid: int) -> bool:
    with suppress(OSError):
        return "/_sqlite3." in Path(f"/proc/{pid}/maps").read_text()  # Django has loaded it
    return False


def _open_files(pid: int) -> Iterator[str]:
    for file in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            yield os.readlink(file)


SCENARIO = Scenario(
    name="django_orm",
    title=f"{CALLS:,} calls of functions with Django's ORM, over {KILLS} kills of instances and the engine",
    figures=(
        Figure(name="violations", unit="of calls and their rows", at_most=0, required=True),
        Figure(name="connections left open", unit="in instances", at_most=0, required=True),
        Figure(name="instances at the end", unit=""),
        Figure(name="runs", unit=f"that stored, of {CALLS:,} calls"),
        Figure(name="kills", unit="kill -9 at random moments", at_least=KILLS),
        Figure(name="kills of the engine", unit=""),
        Figure(name="kills of its processes", unit="instances and what starts them"),
        Figure(name="seconds", unit="s, starts included"),
    ),
    rounds=rounds,
    note="the moments of the kills are drawn by --seed; needs django",
)
