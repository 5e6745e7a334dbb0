"""States of the disk that a crash may leave, also between a write and its sync: every promise is kept in each."""

from __future__ import annotations

import http.client
import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from random import Random

import pytest

from bench.proof import promises as p
from bench.proof.checker import check, recover
from bench.proof.clients import ECHO, path_of
from bench.proof.disk import Disk, Image, Kind, write_image
from bench.proof.lives import ENVIRONMENT
from bench.proof.recording import Calls, Recorder
from bench.proof.states import Point, Recording, check_all, choose, keep, load, main, start_all
from bench.server import Engine

STATES, STARTS = 300, 2


def test_every_promise_is_kept_in_every_crash_state(recording: Recording) -> None:
    states, starts = choose(recording, STATES, STARTS)

    checked = [*check_all(recording, states), *start_all(recording, starts)]
    violations = [str(violation) for broken in checked for violation in broken]

    assert len(checked) == STATES + STARTS
    assert violations == [], f"kept in {keep(recording)}"


def test_the_states_are_of_all_kinds_and_follow_all_promises(recording: Recording) -> None:
    states, _ = choose(recording, STATES)
    kinds = {type(promise) for point in states for promise in p.due(recording.promises, point.position)}

    assert {point.kind for point in states} == set(Kind)
    assert kinds == {p.Accepted, p.Put, p.Line, p.Published, p.Uploaded, p.Deleted}


def test_the_recording_ends_with_the_files_on_the_disk(recording: Recording) -> None:
    image = {path: bytes(content) for path, content in last_image(recording).items() if content is not None}
    data = Path(recording.data)
    files = {str(file.relative_to(data)): file.read_bytes() for file in data.rglob("*") if file.is_file()}

    assert {path: image[path] for path in image if durable(path)} == {
        path: files[path] for path in files if durable(path)
    }


def durable(path: str) -> bool:
    """Return whether the engine itself writes the file, and syncs it; functions write to ``__pycache__``."""
    return path.startswith(("journal.db", "code/")) and not path.endswith("-shm") and "__pycache__" not in path


def last_image(recording: Recording, kind: Kind = Kind.ALL) -> Image:
    disk = Disk()
    for operation in recording.operations():
        disk.apply(operation)
    return disk.image(kind, Random(0))


# --- the checker --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recovered(recording: Recording, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("recovered") / "data"
    write_image(last_image(recording), directory)
    assert recover(directory) == ""
    return directory


def remove_package(data: Path) -> None:
    next(path for path in (data / "code").iterdir() if path.suffix == ".package").unlink()


def remove_folder(data: Path) -> None:
    shutil.rmtree(next(path for path in (data / "code").iterdir() if path.is_dir()))


def change_code(data: Path) -> None:
    for file in (data / "code").glob("*/index.py"):
        file.write_text("")


OF = "WHERE key = (SELECT max(key) FROM invocation JOIN function USING (function_id) WHERE name = '{}')"
PUT = "plugin = 'dis' AND name = 'records'"
#: Sets the last record of each cursor.
MOVE = "UPDATE cursor SET position = json_set(CAST(position AS TEXT), '$.after', '{}')"
#: Damage by statements or a function, and the begin or a part of the violation that must be found.
DAMAGE: dict[str, tuple[str | Callable[[Path], None], str]] = {
    "an invocation": (f"DELETE FROM invocation {OF.format('plain')}", " of plain is lost"),
    "its payload": (f"DELETE FROM payload {OF.format('plain')}", "invocations without a payload"),
    "a part of a payload": (
        f"UPDATE payload SET body = substr(body, 2) {OF.format('plain')}",
        " of plain has another function or payload",
    ),
    "an idempotency key": ("DELETE FROM idempotency", "the idempotency key"),
    "a record": (f"DELETE FROM plugin_row WHERE {PUT} AND key LIKE '%0000003'", "record 3 of partition"),
    "the data of a record": (
        f"UPDATE plugin_row SET value = (SELECT max(value) FROM plugin_row WHERE {PUT}) WHERE {PUT}",
        "has other data",
    ),
    "a step of a cursor": (MOVE.format(0), "the cursor of partition"),
    "a cursor that is ahead": (MOVE.format(9999), "the cursor of partition"),
    "the cursors": ("DELETE FROM cursor", "the cursor of partition"),
    "the lines": ("DELETE FROM plugin_row WHERE plugin = 'lts' AND name = 'lines'", "the line token-"),
    "a message": (f"UPDATE payload SET body = CAST('{{}}' AS BLOB) {OF.format('listener')}", "the message token-"),
    "the outcome of a chain": (
        "DELETE FROM invocation WHERE function_id = (SELECT function_id FROM function WHERE name = 'sink')",
        "neither delivered nor owed",
    ),
    "a count of the tally": ("UPDATE tally SET rows = rows + 1", "the tally is"),
    "a function": ("DELETE FROM function_version WHERE CAST(body AS TEXT) LIKE '%\"f-%'", "is lost"),
    "a package": (remove_package, "the package of"),
    "an unpacked package": (remove_folder, "the code of"),
    "the code of functions": (change_code, "has other code"),
    "a deletion": (
        "UPDATE function_version SET body = json_set(CAST(body AS TEXT), '$.name', '{deleted}')",
        "the deleted function {deleted} is back",
    ),
}


def test_an_undamaged_directory_has_no_violation(recovered: Path, recording: Recording) -> None:
    assert check(recovered, p.due(recording.promises, p.NEVER - 1)) == []


@pytest.mark.parametrize("what", DAMAGE)
def test_the_checker_finds(what: str, recovered: Path, recording: Recording, tmp_path: Path) -> None:
    data = Path(shutil.copytree(recovered, tmp_path / "data"))
    damage, expected = DAMAGE[what]
    promises = p.due(recording.promises, p.NEVER - 1)
    deleted = next(promise.function for promise in promises if isinstance(promise, p.Deleted))
    if isinstance(damage, str):
        with closing(sqlite3.connect(data / "journal.db")) as database, database:
            assert database.execute(damage.replace("{deleted}", deleted)).rowcount > 0
    else:
        damage(data)

    violations = check(data, promises)

    assert [violation for violation in violations if expected.replace("{deleted}", deleted) in violation] != []


@pytest.mark.parametrize("name", ["journal.db", "journal.db-wal"])
def test_the_checker_finds_a_lost_file(name: str, recording: Recording, tmp_path: Path) -> None:
    image = last_image(recording)
    del image[name]
    write_image(image, tmp_path / "data")

    problem = recover(tmp_path / "data")

    assert problem or check(tmp_path / "data", recording.promises) != []


def test_a_sync_that_did_nothing_is_found(recording: Recording, tmp_path: Path) -> None:
    disk = Disk()
    for operation in recording.operations():
        if operation.type != "F" or operation.position < recording.promises[9].position:
            disk.apply(operation)
    write_image(disk.image(Kind.ORDERED, Random(0)), tmp_path / "data")

    problem = recover(tmp_path / "data")

    assert problem or check(tmp_path / "data", p.due(recording.promises, p.NEVER - 1)) != []


def test_a_state_can_be_checked_alone(recording: Recording, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = load(keep(recording).rename(tmp_path / "copy"))
    promises = [p.Accepted(request_id="01a218f8-d546-7000-849c-85c91ec0d579", function="plain", payload="")]
    p.save(promises, copy.folder / "promises.json")
    point = Point(position=max(operation.position for operation in copy.operations()), kind=Kind.ORDERED, seed=1)
    [[violation]] = check_all(copy, [point])

    code = main(str(copy.folder), *str(point).split())

    assert str(violation) in capsys.readouterr().out
    assert code == 1


PAYLOAD = '{"order": 1}'


def send(port: int) -> str:
    """Send a request with an idempotency key, and return its id. Raises OSError if the engine is killed meanwhile."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        headers = {"Content-Type": "application/json", "Idempotency-Key": "k", "X-Functiond-Delay": "3600"}
        connection.request("POST", f"{path_of('plain')}/invocations-async", PAYLOAD, headers)
        reply = connection.getresponse()
        assert reply.status == 202
        request_id: str = json.loads(reply.read())["request_id"]
        return request_id


@pytest.fixture
def repeated(tmp_path: Path) -> Recording:
    """Kill an engine in place of the sync of a request, and repeat the request at the next engine."""
    data = tmp_path / "data"
    recorder = Recorder(tmp_path, data)
    server = Engine(data, **ENVIRONMENT, **recorder.environment)
    try:
        server.wait_until_serving()
        server.deploy("plain", ECHO)
        recorder.fail(Calls.SYNC, 1, 0)
        with suppress(OSError, http.client.HTTPException):
            send(server.port)
        server.kill()
        recorder.restart()
        server = Engine(data, **ENVIRONMENT, **recorder.environment)
        server.wait_until_serving()
        request_id = send(server.port)
        position = recorder.position
    finally:
        server.kill()
        recorder.close()
    promise = p.Accepted(position=position, request_id=request_id, function="plain", payload=PAYLOAD, key="k")
    p.save([promise], tmp_path / "promises.json")
    return Recording(folder=tmp_path, data=str(data), seed=1)


def test_a_repeated_request_is_durable_although_the_first_was_not_synced(repeated: Recording) -> None:
    [promise] = repeated.promises
    points = [Point(position=promise.position, kind=kind, seed=1) for kind in Kind]

    assert [str(violation) for violations in check_all(repeated, points) for violation in violations] == []
