"""Calls and groups on the command line: the tree below an invocation, its cancellation, progress of groups."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.acceptance.engine_process import BASE, PROJECT, EngineProcess, engine_on, until
from tests.support.cli import Cli
from tests.support.functions_that_call import CALLING

FGS = BASE.removesuffix("/functions")


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    with engine_on(tmp_path_factory.mktemp("calls") / "data") as engine:
        engine.create("calling", CALLING)
        yield engine


@pytest.fixture
def cli(engine: EngineProcess, capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(engine.url, capsys, PROJECT)


def tree(engine: EngineProcess, *levels: int, **event: Any) -> str:
    """Let the function queue calls on several levels. Return the request id of the first when the last are stored."""
    root = engine.accepted("calling", {"levels": levels, **event})

    def is_whole(request_id: str, left: tuple[int, ...]) -> bool:
        below = engine.ask("GET", f"{FGS}/async-invocations/{request_id}/children").json["invocations"]
        whole = len(below) == (left[0] if left else 0)
        return whole and all(is_whole(child["request_id"], left[1:]) for child in below)

    until(lambda: is_whole(root, levels))
    return root


def grouped(engine: EngineProcess, *events: Any, **group: Any) -> Any:
    made = engine.ask("POST", f"{FGS}/groups", group).json
    calls = [{"function": "calling", "event": event} for event in events]
    engine.ask("POST", f"{FGS}/calls", {"calls": calls, "group": {"id": made["group_id"], "first": 0}})
    return made


def test_an_invocation_is_shown_with_its_parent_and_the_tree_of_its_calls(engine: EngineProcess, cli: Cli) -> None:
    root = tree(engine, 2, 3)
    lines = cli("show", root).splitlines()
    children, begin = [line.split()[0] for line in lines if line.startswith("    0")], lines.index("  calls     2")

    assert len(children) == 2
    assert [len(line) - len(line.lstrip()) for line in lines[begin + 1 : begin + 9]] == [4, 6, 6, 6, 4, 6, 6, 6]
    assert lines[begin + 1].split()[1:] == ["calling", "SUCCESS"]
    assert f"  parent    {root}" in cli("show", children[0])
    assert {item["request_id"] for item in cli.json("invocations", "--parent", root)} == set(children)


def test_a_large_tree_is_shown_in_part_with_the_number_of_the_rest(engine: EngineProcess, cli: Cli) -> None:
    wide = cli("show", tree(engine, 70)).splitlines()
    assert (len(wide) < 75, wide[-1].strip()) == (True, "… 20 more")

    deep = cli("show", tree(engine, 1, 1, 1, 1, 1, 2))
    assert "2 calls" in deep
    assert "more" not in deep


def test_a_tree_is_cancelled_with_all_that_wait_in_it(engine: EngineProcess, cli: Cli) -> None:
    root = tree(engine, 2, 3, delay=3600)
    assert cli.json("cancel", root, "--tree") == {"cancelled": 6}

    assert cli("show", root).count("FAIL  4208") == 6
    assert cli.json("cancel", root, "--tree") == {"cancelled": 0}


def test_the_progress_of_a_group_is_shown_with_and_without_a_continuation(engine: EngineProcess, cli: Cli) -> None:
    alone = grouped(engine, {"levels": []}, {"levels": "x"}, {"levels": []})["group_id"]
    until(lambda: "3 / 3 so far ended" in cli("show", alone))
    assert "0 failed" not in cli("show", alone)
    engine.ask("POST", f"{FGS}/groups/{alone}/seal", {"total": 3})
    assert cli("show", alone).startswith(f"{alone} ")
    assert cli.json("show", alone)["total"] == 3

    joined = grouped(engine, {"levels": []}, then=[{"function": "calling"}])
    shown = cli.json("show", joined["request_id"])
    assert (shown["held"], shown["waits_for"]["group_id"]) == (True, joined["group_id"])
    assert "it runs after others" in cli("explain", joined["request_id"])
    until(lambda: "waits for 1 / 1 so far ended" in cli("show", joined["group_id"]))
    [member] = engine.ask("GET", f"{FGS}/groups/{joined['group_id']}/members").json["members"]
    assert f"  group     {joined['group_id']}, place 0" in cli("show", member["request_id"])
