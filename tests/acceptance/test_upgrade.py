"""Data directories of earlier engines: the present engine migrates them, finds everything, and continues all work."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from time import time
from typing import Any

import pytest

from tests.acceptance.engine_process import EngineProcess, rows, until
from tests.acceptance.upgrade import SETTINGS, archive, earlier_clock, functions, sources, work
from tests.acceptance.upgrade.__main__ import write_archive
from tests.acceptance.upgrade.replies import (
    FGS,
    ROOT,
    call,
    function,
    invocations,
    limit,
    lost,
    read,
    stream_records,
)

#: Seconds from the kill to the start by the engine's clock. Retries and delays of 20 s and 30 s have passed by then.
PAUSE = 60
#: Archives of engines without ordering keys and controls, which knew messages of GitHub by their unsigned ids.
OLDEST = {"7ebede0", "87a9dcb"}


class Upgraded(EngineProcess):
    """Present engine on the data directory of an earlier one, with a clock of that time."""

    def __init__(self, folder: Path, name: str) -> None:
        data, self.manifest = archive.unpack(name, folder)
        self.objects = folder / "objects"
        self.objects.mkdir()
        settings = {"FUNCTIOND_PLUGINS__OBS__FOLDER": str(self.objects), "FUNCTIOND_PLUGINS__TIMER__CATCH_UP": "all"}
        super().__init__(data, **SETTINGS, **settings)
        self.program = [earlier_clock.__file__, str(time() - self.manifest.stopped_at - PAUSE)]

    def run_ordered(self) -> list[Any]:
        """Resume the function "ordered", if it exists. Return its invocations as they ended."""
        if self.manifest.engine in OLDEST:
            return []
        call(self, "POST", f"{function('ordered')}/resume")
        return [
            self.record("ordered", invocation["request_id"], wait=30) for invocation in invocations(self, "ordered")
        ]

    def read(self) -> None:
        """Read everything that the manifest has, before tests change it."""
        self.replies = {path: read(self, path) for path in self.manifest.replies}
        self.records = stream_records(self, "clicks", sources.SHARD)
        self.deliveries = work.deliveries(self)


@pytest.fixture(scope="module", params=archive.names())
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upgraded]:
    with closing(Upgraded(tmp_path_factory.mktemp(request.param), request.param)) as engine:
        engine.start()
        engine.read()
        yield engine


def test_all_that_was_readable_is_unchanged(engine: Upgraded) -> None:
    earlier = engine.manifest
    due_later = {delivery["delivery_id"] for delivery in earlier.deliveries}  # others arrive meanwhile
    deliveries = [delivery for delivery in engine.deliveries if delivery["delivery_id"] in due_later]
    states = {reply.get("status") for reply in earlier.replies.values() if isinstance(reply, dict)}

    change_as_the_api(earlier.replies)
    assert list(lost(earlier.replies, engine.replies)) == []
    assert list(lost(earlier.records, engine.records)) == []
    for entry in (delivery for delivery in earlier.deliveries if delivery["next_try"]):
        del entry["next_try"], entry["tries"]  # the present engine may have tried it again
    assert list(lost(earlier.deliveries, deliveries)) == []
    assert states >= {"SUCCESS", "FAIL", "DISCARD", "WAIT"}
    assert (len(earlier.records), len(earlier.deliveries)) == (5, 2)


def change_as_the_api(replies: dict[str, Any]) -> None:
    """Change replies of earlier engines in the places where the API has changed since."""
    for dependency in replies[f"{FGS}/dependencies"]["dependencies"]:
        dependency["id"] = dependency["dep_id"]  # was the id of the newest version
    for path, reply in replies.items():
        if "/events" in path:
            for event in [reply, *reply.get("events", [])]:
                event.pop("last_modified", None)  # is absent until the first change
        if path.endswith("/lts-log-detail") and reply.get("group_name") == "functiond":
            del reply["group_name"], reply["stream_name"]  # a function's log has only names of its configuration
        if isinstance(reply, dict) and reply.get("start_time", "") is None and reply.get("attempt") == 1:
            reply["attempt"] = 0  # was the number of the next one
    move_added_fields(replies)


def move_added_fields(reply: Any) -> None:
    """Move the engine's own fields of triggers out of ``event_data``, where earlier engines showed them."""
    if isinstance(reply, dict):
        data = reply.get("event_data", {})
        if data.get("path", "").startswith("/triggers/"):
            reply["path"] = data.pop("path")
        if "subscription_status" in data:
            reply["subscription_status"] = data.pop("subscription_status")
    for item in [*reply.values()] if isinstance(reply, dict) else reply if isinstance(reply, list) else ():
        move_added_fields(item)


def test_running_waiting_and_delayed_invocations_end(engine: Upgraded) -> None:
    limit(engine, "held", 1)
    for request_id, entry in engine.manifest.unended.items():
        record = engine.record(entry.function, request_id, wait=30)
        earlier = {name: entry.record[name] for name in work.FIXED}

        assert list(lost({**earlier, **entry.end}, record)) == []
        for attempt, before in zip(record["attempts"], entry.record["attempts"], strict=False):
            assert {**attempt, **before} == attempt  # later versions have further fields
        assert len(record["attempts"]) >= len(entry.record["attempts"])
        assert entry.function != "echo" or json.loads(record["result"])["memory"] == 512  # chosen by the caller


def test_invocations_of_a_function_run_by_their_earlier_rank(engine: Upgraded) -> None:
    limit(engine, "held", 1)
    held = [request_id for request_id, entry in engine.manifest.unended.items() if entry.function == "held"]
    ends = [engine.record("held", request_id, wait=30) for request_id in held]

    assert [end["priority"] for end in sorted(ends, key=lambda end: end["start_time"])] == [2, 1, 0]


@pytest.mark.parametrize("engine", sorted({*archive.names()} - OLDEST), indirect=True)
def test_a_paused_function_goes_on_in_the_order_of_its_key(engine: Upgraded) -> None:
    before = [reply for path, reply in engine.manifest.replies.items() if "ordered:latest/async-invocations/" in path]
    ends = engine.run_ordered()

    assert [reply["held"] for reply in before if isinstance(reply, dict)] == [False, True, True]
    assert [end["status"] for end in ends] == ["SUCCESS"] * 3
    assert all(earlier["end_time"] <= next_["start_time"] for earlier, next_ in pairwise(ends))


def test_the_backlog_is_counted_on(engine: Upgraded) -> None:
    limit(engine, "held", 1)
    engine.run_ordered()
    left = [
        invocation
        for name in ("hopeless", "crashes")
        for invocation in invocations(engine, name)
        if invocation["status"] == "WAIT"
    ]

    until(lambda: engine.metric("functiond_backlog_invocations") == len(left))
    until(lambda: engine.metric("functiond_backlog_bytes") == sum(len(invocation["payload"]) for invocation in left))
    assert left != []


def test_outcomes_arrive_once_their_destinations_are_there(engine: Upgraded) -> None:
    call(engine, "POST", f"{ROOT}/streams", {"stream_name": "late", "partition_count": 1})
    engine.create("missing", functions.PLAIN)
    pending = {delivery["delivery_id"]: delivery["request_id"] for delivery in engine.manifest.deliveries}
    redriven = call(engine, "POST", f"{FGS}/deliveries/redrive", {"delivery_ids": list(pending)})["redriven"]
    until(lambda: work.deliveries(engine) == [])

    arrived = [json.loads(b64decode(record["data"])) for record in stream_records(engine, "late", sources.SHARD)]
    arrived += [json.loads(invocation["payload"]) for invocation in invocations(engine, "missing")]
    [stored] = engine.objects.glob("outcomes/of/stored/*.json")
    [expected] = [invocation["request_id"] for invocation in invocations(engine, "stored")]
    assert sorted(redriven) == sorted(pending)
    assert sorted(outcome["request_context"]["request_id"] for outcome in arrived) == sorted(pending.values())
    assert json.loads(stored.read_bytes())["request_context"]["request_id"] == expected


def test_a_retry_that_fails_is_delivered_with_its_history(engine: Upgraded) -> None:
    [failed] = [request_id for request_id, entry in engine.manifest.unended.items() if entry.function == "fails"]
    engine.record("fails", failed, wait=30)
    until(lambda: len(_outcomes(engine)) == 2)

    assert _outcomes(engine)[-1]["request_context"]["request_id"] == failed
    assert _outcomes(engine)[-1]["request_context"]["approximate_invoke_count"] == 1


def _outcomes(engine: Upgraded) -> list[Any]:
    """Return the outcomes of ``fails`` that its destination received."""
    received = [invocation for invocation in invocations(engine, "served") if invocation["source"] == "FunctionGraph"]
    return [json.loads(invocation["payload"]) for invocation in received]


def test_idempotency_keys_return_the_earlier_ids(engine: Upgraded) -> None:
    again = work.send(engine, "echo", work.ONCE, Idempotency_Key=work.KEY)
    other = engine.send("echo", {"once": False}, Idempotency_Key=work.KEY)

    assert f"{function('echo')}/async-invocations/{again}" in engine.manifest.replies
    assert other.status == 409


def test_messages_received_before_call_nothing(engine: Upgraded) -> None:
    before = [invocation["request_id"] for invocation in invocations(engine, "pushed")]
    message_id = sources.push(engine, engine.manifest.ids)
    # Messages of GitHub are now known by their bodies: to the oldest archives, one is new.
    repeated = [invocation["request_id"] for invocation in invocations(engine, "pushed")]
    sources.push(engine, engine.manifest.ids)

    assert message_id == engine.manifest.ids["message"]
    assert set(before) <= set(repeated)
    assert len(repeated) == len(before) + (engine.manifest.engine in OLDEST)
    assert [invocation["request_id"] for invocation in invocations(engine, "pushed")] == repeated
    assert len(before) == sources.MESSAGES


def test_new_request_ids_sort_after_all_earlier_ones(engine: Upgraded) -> None:
    earlier = [path.rpartition("/")[2] for path in engine.manifest.replies if "/async-invocations/" in path]
    new = [work.send(engine, "aged", {}) for _ in range(3)]

    assert sorted(new) == new
    assert min(new) > max(*engine.manifest.unended, *(key for key in earlier if key != "logs"))


def test_triggers_continue_at_their_cursors(engine: Upgraded) -> None:
    for name in ("clicks", "lines"):
        limit(engine, name, 1)
    until(lambda: len(sources.records_read(engine)) >= 5 and len(sources.lines_read(engine)) >= 4)

    assert sources.records_read(engine) == ["one", "two", "three", "four", "fünf"]
    assert sources.lines_read(engine) == ["line one", "line two", "line three", "line vier ✓"]


def test_a_timer_misses_no_due_time_and_repeats_none(engine: Upgraded) -> None:
    until(lambda: len(sources.due_times(engine)) >= PAUSE // sources.EVERY)
    times = [datetime.fromisoformat(text) for text in sources.due_times(engine)]

    assert {later - earlier for earlier, later in pairwise(times)} == {timedelta(seconds=sources.EVERY)}
    assert times[0].timestamp() < engine.manifest.stopped_at


def test_code_runs_as_before(engine: Upgraded) -> None:
    for version, said in (("latest", "v2 said"), ("v1", "said"), ("v2", "v2 said")):
        end = engine.record("echo", work.send(engine, f"echo:{version}", {"n": 9}), wait=30)
        result = json.loads(end["result"])

        assert result["words"] == [functions.GREETING, functions.SECRET]
        assert f'{said} {{"n": 9}}' in end["log"].splitlines()

    assert json.loads(engine.record("zipped", engine.accepted("zipped", {}), wait=30)["result"]) == ["two", {}]


def test_a_new_function_does_not_inherit_from_a_deleted_one_of_its_name(engine: Upgraded) -> None:
    engine.create("gone", functions.PLAIN)
    new = call(engine, "GET", f"{function('gone')}/config")

    assert invocations(engine, "gone") == []
    assert int(new["func_id"]) > int(engine.manifest.ids["gone"])


def test_an_invocation_that_three_crashes_met_before_fails_at_the_next(engine: Upgraded) -> None:
    [crashed] = invocations(engine, "crashes")
    limit(engine, "crashes", 1)
    until(lambda: (1,) in rows(engine.data, "SELECT begun FROM invocation WHERE state = 2 AND deaths = 3"))
    engine.kill(children=True)
    engine.start()
    end = engine.record("crashes", crashed["request_id"], wait=30)

    assert (crashed["status"], end["status"], end["error_code"]) == ("WAIT", "FAIL", 150500)


@pytest.mark.long
def test_the_next_archive_would_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "FOLDER", tmp_path)
    write_archive(tmp_path, "present")
    folder = tmp_path / "unpacked"
    folder.mkdir()
    with closing(Upgraded(folder, "present")) as engine:
        engine.start()
        engine.read()
        test_all_that_was_readable_is_unchanged(engine)
        test_running_waiting_and_delayed_invocations_end(engine)
