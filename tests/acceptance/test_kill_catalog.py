"""Repeated kill -9 during changes of the catalog: each change is stored completely or not at all.

A model computes the state after every change. After each kill the engine must show the state before or after the
change that was being made.
"""

from __future__ import annotations

import http.client
from collections.abc import Callable
from copy import deepcopy
from random import Random
from threading import Timer
from typing import Any, NamedTuple

import pytest

from tests.acceptance.engine_process import BASE, EngineProcess, rows, urn_of
from tests.support.http_app import HELLO

SEED = 23
NAMES = ("a", "b", "c")
VERSIONS = ("v1", "v2", "v3")
ALIASES = ("prod", "test")
#: Rows whose function no longer exists.
ORPHANS = """
SELECT 'version', function_id FROM function_version WHERE function_id NOT IN (SELECT function_id FROM function)
UNION ALL
SELECT 'settings', function_id FROM async_settings a WHERE NOT EXISTS
    (SELECT 1 FROM function_version v WHERE v.function_id = a.function_id AND v.version = a.version)
UNION ALL
SELECT kind, owner FROM resource WHERE owner NOT IN (SELECT 'function:' || function_id FROM function)
"""

State = dict[str, dict[str, Any]]  #: ``versions`` and ``aliases`` by function name


class Change(NamedTuple):
    ask: Callable[[EngineProcess], int]  #: sends the change; returns the HTTP status
    apply: Callable[[State], object]


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_change_is_there_whole_or_not_at_all_whenever_the_engine_is_killed(engine: EngineProcess, kills: int) -> None:
    random, state, done, torn = Random(SEED), State(), 0, 0
    for _ in range(kills):
        timer = Timer(random.uniform(0.005, 0.3), engine.kill)  # the random moment of the kill, not a wait for a result
        timer.start()
        before, after, count = change_until_killed(engine, state, random)
        timer.join()
        engine.start()

        state = shown(engine)
        assert state in (before, after)
        assert rows(engine.data, ORPHANS) == []
        done, torn = done + count, torn + (state == after)
    print(f"{kills} kills, {done} changes acknowledged, {torn} done but not acknowledged")
    assert done > 0


def change_until_killed(engine: EngineProcess, state: State, random: Random) -> tuple[State, State, int]:
    """Make changes until the engine is killed.

    Return the states before and after the last change, and the number of acknowledged changes.
    """
    acknowledged = 0
    while True:
        change = random.choice(CHANGES)(random)
        after = deepcopy(state)
        try:
            change.apply(after)
        except KeyError:
            continue  # not possible in this state
        try:
            status = change.ask(engine)
        except (OSError, http.client.HTTPException):
            return state, after, acknowledged
        if status < 300:
            state, acknowledged = after, acknowledged + 1


def shown(engine: EngineProcess) -> State:
    """Return the state of all functions as the API shows it."""
    functions = engine.ask("GET", BASE).json["functions"]
    return {function["func_name"]: show_function(engine, function["func_name"]) for function in functions}


def show_function(engine: EngineProcess, name: str) -> dict[str, Any]:
    path = f"{BASE}/{urn_of(name)}"
    versions = engine.ask("GET", f"{path}/versions").json["versions"]
    aliases = engine.ask("GET", f"{path}/aliases").json
    return {
        "versions": {item["version"]: _version(item) for item in versions},
        "aliases": {item["name"]: (item["version"], item.get("additional_version_weights", {})) for item in aliases},
    }


def _version(item: dict[str, Any]) -> tuple[int, int, int | None]:
    settings = item.get("function_async_config", {})
    return item["timeout"], item["strategy_config"]["concurrency"], settings.get("max_async_retry_attempts")


# --- changes ------------------------------------------------------------------------------------------------


def create(random: Random) -> Change:
    name = random.choice(NAMES)
    body = {**HELLO, "func_name": name}

    def apply(state: State) -> None:
        state.setdefault(name, {"versions": {"latest": (3, 400, None)}, "aliases": {}})

    return Change(lambda engine: engine.ask("POST", BASE, body).status, apply)


def delete(random: Random) -> Change:
    name = random.choice(NAMES)
    return Change(_asking("DELETE", name, "", qualifier=""), lambda state: state.pop(name))


def update(random: Random) -> Change:
    name, timeout = random.choice(NAMES), random.randint(3, 900)
    body = {"func_name": name, "runtime": "Python3.10", "handler": "index.handler", "memory_size": 128}

    def apply(state: State) -> None:
        versions = state[name]["versions"]
        versions["latest"] = (timeout, *versions["latest"][1:])

    return Change(_asking("PUT", name, "/config", {**body, "timeout": timeout}), apply)


def limit(random: Random) -> Change:
    name, number = random.choice(NAMES), random.randint(1, 1000)

    def apply(state: State) -> None:
        versions = state[name]["versions"]
        versions.update({version: (old[0], number, old[2]) for version, old in versions.items()})

    return Change(_asking("PUT", name, "/config-max-instance", {"max_instance_num": number}), apply)


def configure(random: Random) -> Change:
    name, retries = random.choice(NAMES), random.randint(0, 3)

    def apply(state: State) -> None:
        versions = state[name]["versions"]
        versions["latest"] = (*versions["latest"][:2], retries)

    return Change(_asking("PUT", name, "/async-invoke-config", {"max_async_retry_attempts": retries}), apply)


def publish(random: Random) -> Change:
    name, version = random.choice(NAMES), random.choice(VERSIONS)

    def apply(state: State) -> None:
        versions = state[name]["versions"]
        versions.setdefault(version, versions["latest"])

    return Change(_asking("POST", name, "/versions", {"version": version}), apply)


def unpublish(random: Random) -> Change:
    """Delete a version, and with it the aliases whose main version it is."""
    name, version = random.choice(NAMES), random.choice(VERSIONS)

    def apply(state: State) -> None:
        del state[name]["versions"][version]
        aliases = state[name]["aliases"]
        state[name]["aliases"] = {alias: to for alias, to in aliases.items() if to[0] != version}

    return Change(_asking("DELETE", name, "", qualifier=f":{version}"), apply)


def point(random: Random) -> Change:
    """Change an existing alias."""
    name, alias = random.choice(NAMES), random.choice(ALIASES)
    version, other = random.sample(VERSIONS, 2)
    body = {"version": version, "additional_version_weights": {other: random.randint(0, 100)}}
    return Change(_asking("PUT", name, f"/aliases/{alias}", body), _pointing(name, alias, body, there=True))


def name_it(random: Random) -> Change:
    name, alias = random.choice(NAMES), random.choice(ALIASES)
    body = {"version": random.choice(VERSIONS), "additional_version_weights": {}}
    return Change(_asking("POST", name, "/aliases", {"name": alias, **body}), _pointing(name, alias, body, there=False))


def unname(random: Random) -> Change:
    name, alias = random.choice(NAMES), random.choice(ALIASES)
    return Change(_asking("DELETE", name, f"/aliases/{alias}"), lambda state: state[name]["aliases"].pop(alias))


def unpublish_named(random: Random) -> Change:
    """Delete a version by its alias, and both with it. A version that other aliases use is kept, with its alias."""
    name, alias = random.choice(NAMES), random.choice(ALIASES)

    def apply(state: State) -> None:
        version, _ = state[name]["aliases"].pop(alias)
        del state[name]["versions"][version]

    return Change(_asking("DELETE", name, "", qualifier=f":!{alias}"), apply)


SEVERAL_ROWS = (limit, limit, publish, publish, unpublish, unpublish_named)
CHANGES = (*SEVERAL_ROWS * 4, *(create, update, update, configure, configure, point, name_it, unname) * 2, delete)


def _pointing(name: str, alias: str, body: dict[str, Any], *, there: bool) -> Callable[[State], None]:
    def apply(state: State) -> None:
        aliases = state[name]["aliases"]
        if there:
            aliases[alias]
        aliases[alias] = (body["version"], body["additional_version_weights"])

    return apply


def _asking(
    method: str, name: str, path: str, body: object = None, *, qualifier: str = ":latest"
) -> Callable[[EngineProcess], int]:
    urn = urn_of(name).removesuffix(":latest") + qualifier
    return lambda engine: engine.ask(method, f"{BASE}/{urn}{path}", body).status
