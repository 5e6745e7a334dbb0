"""Batches of a real engine: a full backlog, kill -9, and the command that sends the lines of a file."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.cli.commands import run as run_command
from tests.acceptance.engine_process import BASE, ECHO, PROJECT, EngineProcess, Reply, engine_on, rows, urn_of
from tests.support.cli import functiond_here

ROOM = 2_000
STORED = "SELECT count(*) FROM invocation"


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[EngineProcess]:
    with engine_on(tmp_path / "data", FUNCTIOND_QUEUE__ROWS=str(ROOM)) as engine:
        engine.create("hello", ECHO)
        control(engine, "pause")
        yield engine


def control(engine: EngineProcess, action: str) -> None:
    assert engine.ask("POST", f"{BASE}/{urn_of('hello')}/{action}").status == 200


def send(engine: EngineProcess, count: int, name: str = "key") -> Reply:
    events = [{"event": {"n": number}, "key": f"{name}-{number}"} for number in range(count)]
    return engine.ask("POST", f"{BASE}/{urn_of('hello')}/invocations-async/batch", {"events": events})


def arguments(engine: EngineProcess, *options: str) -> list[str]:
    return ["invoke", "hello", "--async", "--url", engine.url, "--project", PROJECT, *options]


def test_a_batch_is_on_disk_when_it_is_answered_and_a_repeat_gives_the_same_ids(engine: EngineProcess) -> None:
    first = send(engine, 1000)
    engine.kill()
    engine.start()
    again = send(engine, 1000)

    assert (first.status, first.json["accepted"]) == (again.status, again.json["accepted"]) == (202, 1000)
    assert first.json == again.json
    assert len({result["request_id"] for result in first.json["results"]}) == 1000
    assert rows(engine.data, STORED) == [(1000,)]


def test_as_many_events_are_accepted_as_have_room(engine: EngineProcess) -> None:
    send(engine, 1000, "others")
    send(engine, 997, "more")

    part, none = send(engine, 5), send(engine, 5, "late")

    assert (part.status, part.json["accepted"], part.json["refused"], part.headers["retry-after"]) == (202, 3, 2, "5")
    assert [result.get("error_code", "") for result in part.json["results"]] == ["", "", "", "FSS.0429", "FSS.0429"]
    assert (none.status, none.json["error_code"], none.headers["retry-after"]) == (429, "FSS.0429", "5")
    assert none.json["refused"] == len(none.json["results"]) == 5
    assert rows(engine.data, STORED) == [(ROOM,)]


def test_the_lines_of_a_file_are_sent_once_each_past_a_full_backlog_and_a_restart(
    engine: EngineProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = tmp_path / "events.jsonl"
    lines.write_text("".join(f'{{"n": {number}}}\n\n' for number in range(ROOM + 500)))
    waits: list[float] = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        engine.kill()
        engine.asked_port = engine.port
        engine.start()
        control(engine, "resume")
        time.sleep(0.2)  # lets some of the backlog run

    sleep = time.sleep
    monkeypatch.setattr("engine.cli.invoke_batch.sleep", lambda seconds: sleep(0.2) if waits else wait(seconds))
    code = run_command(arguments(engine, "--batch", str(lines)))

    shown = capsys.readouterr()
    assert code == 0, shown.err
    assert waits == [5.0]
    assert "the backlog of all functions has reached its limit" in shown.err
    assert shown.err.endswith(f"{ROOM + 500:,} accepted, 0 refused\n")
    ids = shown.out.split()
    assert len(ids) == len(set(ids)) == ROOM + 500
    assert rows(engine.data, STORED) == [(ROOM + 500,)]


def test_lines_that_cannot_be_events_are_told_by_number(engine: EngineProcess) -> None:
    text = '{"n": 1}\n{"n": \n"' + "x" * (256 << 10) + '"\n[]\n"' + "x" * (6 << 20) + '"\n'

    run = functiond_here(*arguments(engine, "--batch", "-", "--delay", "60", "--json"), stdin=text)
    shown = {entry.pop("line"): entry for entry in map(json.loads, run.stdout.splitlines())}
    repeat = functiond_here(*arguments(engine, "--batch", "-", "--idempotency-key", "import"), stdin="1\n2\n")
    again = functiond_here(*arguments(engine, "--batch", "-", "--idempotency-key", "import"), stdin="1\n2\n3\n")

    assert run.returncode == 1
    assert [sorted(shown[line]) for line in (1, 4)] == [["request_id"], ["request_id"]]
    assert (shown[2]["error_code"], shown[3]["error_code"]) == ("", "FSS.0413")
    assert "not JSON" in shown[2]["error_msg"]
    assert "larger than a batch" in shown[5]["error_msg"]
    assert again.stdout.split()[:2] == repeat.stdout.split()
    assert rows(engine.data, "SELECT count(*) FROM invocation WHERE state = 1") == [(2,)]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--batch", "nothing.jsonl"], "cannot read nothing.jsonl"),
        (["--batch", "-", "--data", "{}"], "--batch has the events"),
        (["--batch", "-", "--wait"], "omit it with --batch"),
    ],
)
def test_options_that_do_not_fit_a_batch_are_refused(
    options: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = run_command(["invoke", "hello", "--async", *options])

    assert code == 2
    assert words in capsys.readouterr().err
