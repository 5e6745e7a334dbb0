"""Sources follow their triggers independently. A failing source does not stop the engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from anyio.abc import TaskStatus
from msgspec import Struct
from structlog.testing import capture_logs

from engine import Event, Plugin, PluginContext, SourceIdentity, TriggerContext, TriggerRules
from engine.app.collectors import MOST_LAGS
from engine.cli.commands import run
from engine.errors import CursorMoved, InvalidField, SourceReplaced, Unavailable
from engine.protocols import EVENT_LIMIT
from engine.resources.bound_trigger import BoundTrigger
from engine.triggers import supervisor
from tests.support.http_app import PROJECT
from tests.support.triggering import House, api_client, house, until
from tests.support.waiting import in_own_task


class FeedOptions(Struct, frozen=True, kw_only=True):
    name: str


class Feed:
    """Source that a test drives. It records its runs and submits events that the test provides."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.contexts: dict[str, TriggerContext] = {}
        self.fails: dict[str, BaseException] = {}

    def trigger(self, options: FeedOptions) -> FeedTrigger:
        return FeedTrigger(self, options.name)

    def plugin(self, **rules: Any) -> Plugin:
        rules.setdefault("start_before_stop", False)
        return Plugin(
            kinds=("FEED",), options=FeedOptions, trigger=self.trigger, seek=self.seek, rules=TriggerRules(**rules)
        )

    def seek(self, options: FeedOptions, cursors: Mapping[str, bytes], positions: Mapping[str, str]) -> Any:
        if positions.keys() - cursors.keys():
            raise InvalidField("positions", "x", "must be a cursor")
        return {name: text.encode() for name, text in positions.items()}


class FeedTrigger:
    def __init__(self, feed: Feed, name: str) -> None:
        self._feed, self._name = feed, name

    async def run(self, context: TriggerContext, *, task_status: TaskStatus[None]) -> None:
        feed = self._feed
        feed.log.append(f"+{self._name}")
        if error := feed.fails.pop(self._name, None):
            raise error
        feed.contexts[self._name] = context
        task_status.started()
        try:
            await anyio.sleep_forever()
        finally:
            feed.log.append(f"-{self._name}")


@pytest.fixture
def feed() -> Feed:
    return Feed()


async def running(place: House, name: str = "a", state: str = "running") -> BoundTrigger:
    trigger = await place.create("FEED", name=name)
    await until(lambda: place.state(trigger).state == state)
    return trigger


async def renamed(place: House, trigger: BoundTrigger, feed: Feed, name: str = "b") -> None:
    await place.update(trigger, name=name)
    await until(lambda: f"+{name}" in feed.log)


@pytest.fixture
async def place(tmp_path: Path, feed: Feed) -> AsyncIterator[House]:
    async with in_own_task(house(tmp_path, [feed.plugin()])) as place:
        yield place


async def test_each_source_starts_stops_and_changes_with_its_trigger(place: House, feed: Feed) -> None:
    one, two = await running(place, "a"), await running(place, "b")
    await place.update(one, status="DISABLED")
    await until(lambda: place.state(one).state == "disabled")
    await place.update(one, status="ACTIVE", name="c")
    await until(lambda: "+c" in feed.log)
    await place.delete(one)
    await until(lambda: "-c" in feed.log)

    assert feed.log == ["+a", "+b", "-a", "+c", "-c"]
    assert place.state(two).state == "running"


async def test_a_source_knows_at_its_end_whether_its_trigger_was_deleted(tmp_path: Path, feed: Feed) -> None:
    async with house(tmp_path, [feed.plugin()]) as place:
        one, _ = await running(place, "a"), await running(place, "b")
        await renamed(place, one, feed, "c")
        await place.delete(one)
        await until(lambda: "-c" in feed.log)

    assert {name: context.deleted for name, context in feed.contexts.items()} == {"a": False, "b": False, "c": True}


async def test_a_deleted_function_takes_its_sources_along(place: House, feed: Feed) -> None:
    await running(place)
    await place.engine.catalog.delete(place.urn)

    await until(lambda: feed.log == ["+a", "-a"])
    await until(lambda: place.engine.sources.statistics().states == {})


async def test_a_failing_source_starts_again_and_reports_the_reason(tmp_path: Path, feed: Feed) -> None:
    feed.fails["a"] = ExceptionGroup("lost", [OSError("refused by the broker"), OSError("refused by the broker")])
    async with house(tmp_path, [feed.plugin()], retry__base=0.3) as place:
        trigger = await running(place, state="failing")
        failed = place.state(trigger)
        await until(lambda: place.state(trigger).state == "running")

        assert (failed.problem, failed.failures) == ("OSError: refused by the broker", 1)
        assert (place.state(trigger).problem, place.state(trigger).next_try) == ("", 0.0)
        assert place.engine.sources.statistics().states == {"running": 1}


async def test_a_notice_is_shown_while_there_is_no_problem_until_the_trigger_is_changed(
    tmp_path: Path, feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "CALM", 0.02)
    async with house(tmp_path, [feed.plugin()]) as place:
        trigger = await running(place)
        context, shown = feed.contexts["a"], list[str]()
        context.report_notice("begun again")
        await context.accept_batch([Event(payload=b"1")], {"0": b"1"})
        shown.append(place.state(trigger).problem)
        for problem in ("slow", ""):
            context.report_problem(problem)
            shown.append(place.state(trigger).problem)
        await until(lambda: place.state(trigger).problem == "begun again")
        await renamed(place, trigger, feed)

        assert shown == ["begun again", "slow", "slow (over)"]
        assert place.state(trigger).problem == ""


async def test_problems_and_losses_stay_in_the_state_while_events_go_on(tmp_path: Path, feed: Feed) -> None:
    async with house(tmp_path, [feed.plugin()]) as place, api_client(place) as api:
        trigger = await running(place)
        context = feed.contexts["a"]
        with capture_logs() as logs:
            for problem in ("slow", "", "slow", ""):
                context.report_problem(problem)
            for _ in range(2):
                context.report_lost("the queue was deleted", 3)
        await context.accept_batch([Event(payload=b"1")], {"0": b"1"})
        reply = (await api.get(f"/v2/{PROJECT}/fgs/triggers/hello/FEED/{trigger.id}/state")).json()
        figures = (await api.get("/metrics")).text

        assert (reply["state"], reply["problem"]) == ("running", "slow (over); the queue was deleted")
        assert (reply["accepted"], reply["lost"]) == (1, 6)
        assert "functiond_trigger_events_lost_total 6.0" in figures
        assert [(line["event"], line["problem"]) for line in logs] == [
            ("service has a problem", "slow"),
            ("events lost", "the queue was deleted"),
        ]

        await renamed(place, trigger, feed)
        assert (place.state(trigger).problem, place.state(trigger).lost) == ("", 6)
        await place.delete(trigger)
        await until(lambda: place.engine.sources.state(trigger.id) is None)
        assert place.engine.sources.statistics().lost == 6


async def test_a_source_starts_again_at_once_when_what_it_reads_was_made_anew(tmp_path: Path, feed: Feed) -> None:
    feed.fails["a"] = ExceptionGroup("readers", [SourceReplaced("queue 1", "queue 2")])
    async with house(tmp_path, [feed.plugin()], retry__base=3600.0, retry__longest=3600.0) as place:
        trigger = await running(place)

        assert feed.log == ["+a", "+a"]
        assert (place.state(trigger).problem, place.state(trigger).failures) == ("", 0)


@pytest.mark.parametrize(("rules", "longest"), [({}, 30), ({"longest_delay": 4.0}, 4)])
async def test_a_source_that_keeps_failing_starts_again_within_half_a_minute_or_as_its_kind_demands(
    tmp_path: Path, feed: Feed, rules: dict[str, Any], longest: float
) -> None:
    feed.fails["a"] = OSError("refused by the broker")
    async with house(tmp_path, [feed.plugin(**rules)], retry__base=300.0) as place:
        trigger = await running(place, state="failing")

        assert place.state(trigger).next_try - place.state(trigger).since == pytest.approx(longest, abs=0.1)


async def test_a_batch_that_waited_is_given_up_if_its_queue_is_another_now(tmp_path: Path, feed: Feed) -> None:
    queues = ["queue 1"]

    async def look() -> str:
        return queues[-1]

    async with house(tmp_path, [feed.plugin()], queue__function_rows=1) as place:
        trigger, identity = await running(place), SourceIdentity("queue 1", look)
        context, refused = feed.contexts["a"], list[str]()
        [first] = await context.accept_batch([Event(payload=b"1")], {identity.text: b"1"}, check=identity.check)

        async def accept() -> None:
            try:
                await context.accept_batch([Event(payload=b"2")], {identity.text: b"2"}, check=identity.check)
            except SourceReplaced as error:
                refused.append(str(error))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(accept)
            await until(lambda: "paused" in place.state(trigger).problem)
            queues.append("queue 2")
            await place.engine.dispatcher.cancel(place.engine.storage.identity.key_of(first) or 0)

        assert refused == ["queue 1 was deleted and is queue 2 now: the source starts again"]
        assert await place.cursors(trigger) == {"queue 1": b"1"}
        assert (await place.events(), place.state(trigger).problem) == ([1], "")


async def test_the_lag_of_a_source_is_shown_until_its_trigger_is_changed(tmp_path: Path, feed: Feed) -> None:
    async with house(tmp_path, [feed.plugin()]) as place, api_client(place) as api:
        trigger = await running(place)
        feed.contexts["a"].report_lag({f"t/{number}": number for number in range(1, MOST_LAGS + 10)})
        figures = (await api.get("/metrics")).text
        feed.contexts["a"].report_lag({"t/0": 7})
        told = (await api.get(f"/v2/{PROJECT}/fgs/triggers/hello/FEED/{trigger.id}/state")).json()
        await renamed(place, trigger, feed)

        assert told["lag"] == {"t/0": 7}
        assert place.state(trigger).lag == {}
        lags = [line for line in figures.splitlines() if line.startswith("functiond_trigger_lag{")]
        assert len(lags) == MOST_LAGS
        assert f'functiond_trigger_lag{{trigger="{trigger.id}",partition="t/1009"}} 1009' in lags


async def test_a_position_that_a_user_sets_is_where_the_source_starts_again(tmp_path: Path, feed: Feed) -> None:
    async with house(tmp_path, [feed.plugin()]) as place, api_client(place) as api:
        trigger = await running(place)
        earlier = feed.contexts["a"]
        await earlier.accept_batch([Event(payload=b"1")], {"0": b"1", "1": b"1"})
        path = f"/v2/{PROJECT}/fgs/triggers/hello/FEED/{trigger.id}/seek"
        active = await api.post(path, json={"positions": {"0": "5"}})
        await place.update(trigger, status="DISABLED")
        bodies: list[Any] = [{"positions": {"0": "5"}}, {"positions": {"2": "5"}}, {}]
        replies = [await api.post(path, json=body) for body in bodies]

        assert (active.status_code, "disable the trigger first" in active.text) == (400, True)
        assert [reply.status_code for reply in replies] == [200, 400, 400]
        assert replies[0].json()["state"] == "disabled"
        with pytest.raises(CursorMoved):
            await earlier.accept_batch([Event(payload=b"2")], {"0": b"2"})
        await place.update(trigger, status="ACTIVE")
        await until(lambda: feed.log == ["+a", "-a", "+a"])
        assert feed.contexts["a"].cursors == await place.cursors(trigger) == {"0": b"5", "1": b"1"}
        await feed.contexts["a"].accept_batch([Event(payload=b"2")], {"0": b"6"})

        await place.update(trigger, status="DISABLED")
        command = ["trigger", "seek", trigger.id, "0=earliest", "1=7", "--url", str(api.base_url), "--project", PROJECT]
        assert await anyio.to_thread.run_sync(run, command) == 0
        assert await place.cursors(trigger) == {"0": b"earliest", "1": b"7"}


async def test_the_api_and_the_figures_tell_how_a_source_does(tmp_path: Path, feed: Feed) -> None:
    feed.fails["a"] = OSError("refused by the broker")
    async with (
        house(tmp_path, [feed.plugin()], retry__base=3600.0, retry__longest=3600.0) as place,
        api_client(place) as api,
    ):
        trigger = await running(place, state="failing")

        told = (await api.get(f"/v2/{PROJECT}/fgs/triggers/hello/FEED/{trigger.id}/state")).json()
        figures = (await api.get("/metrics")).text

        assert (told["state"], told["problem"], told["failures"]) == ("failing", "OSError: refused by the broker", 1)
        assert (told["accepted"], told["refused"]) == (0, 0)
        assert told["next_try"] > told["since"]
        assert 'functiond_triggers{state="failing"} 1.0' in figures


async def test_a_source_that_is_cancelled_by_its_own_library_starts_again(tmp_path: Path, feed: Feed) -> None:
    feed.fails["a"] = asyncio.CancelledError()
    async with house(tmp_path, [feed.plugin()]) as place:
        trigger = await running(place)

        assert feed.log == ["+a", "+a"]
        await place.delete(trigger)
        await until(lambda: place.engine.sources.state(trigger.id) is None)


async def test_a_failing_source_can_be_changed_at_once(tmp_path: Path, feed: Feed) -> None:
    feed.fails["a"] = OSError("no")
    async with house(tmp_path, [feed.plugin()], retry__base=3600.0, retry__longest=3600.0) as place:
        trigger = await running(place, state="failing")
        await place.update(trigger, name="b")

        await until(lambda: place.state(trigger).state == "running")
        assert feed.log == ["+a", "+b"]


async def test_a_push_source_is_replaced_without_a_gap(tmp_path: Path, feed: Feed) -> None:
    async with house(tmp_path, [feed.plugin(start_before_stop=True)]) as place:
        trigger = await running(place)
        await place.update(trigger, name="b")

        await until(lambda: feed.log == ["+a", "+b", "-a"])


async def test_a_batch_and_its_cursor_are_there_after_a_restart(tmp_path: Path, feed: Feed) -> None:
    async with house(tmp_path, [feed.plugin()]) as place:
        trigger = await running(place)
        ids = await feed.contexts["a"].accept_batch([Event(payload=b"1"), Event(payload=b"2")], {"0": b"2"})
        assert len(set(ids)) == 2
        assert place.state(trigger).accepted == 2

    async with house(tmp_path, [feed.plugin()]) as place:
        await until(lambda: feed.log == ["+a", "-a", "+a"])
        await until(lambda: place.state(trigger).state == "running")
        assert feed.contexts["a"].cursors == {"0": b"2"}
        assert await place.events() == [1, 2]


async def test_cursors_outlive_a_change_but_the_old_source_cannot_move_them(place: House, feed: Feed) -> None:
    trigger = await running(place)
    old = feed.contexts["a"]
    await old.accept_batch([Event(payload=b"1")], {"0": b"1"})
    await renamed(place, trigger, feed)

    with pytest.raises(CursorMoved):
        await old.accept_batch([Event(payload=b"2")], {"0": b"2"})
    assert feed.contexts["b"].cursors == {"0": b"1"}
    assert (feed.contexts["b"].generation, old.generation) == (2, 1)
    assert await place.events() == [1]


async def test_cursors_pass_what_is_refused_for_good_and_duplicates(place: House, feed: Feed) -> None:
    trigger = await running(place)
    large = b'"' + b"x" * EVENT_LIMIT + b'"'
    events = [
        Event(payload=b"1", idempotency_key="k"),
        Event(payload=large),
        Event(payload=b"2", idempotency_key="k"),
        Event(payload=b"1", idempotency_key="k"),
        Event(payload=b"3"),
    ]

    first, too_large, conflict, duplicate, last = await feed.contexts["a"].accept_batch(events, {"0": b"5"})

    assert (too_large, conflict, duplicate) == ("", "", first)
    assert last not in ("", first)
    assert await place.events() == [1, 3]
    assert (await place.cursors(trigger), place.state(trigger).refused) == ({"0": b"5"}, 2)


async def test_a_full_backlog_pauses_pull_sources_until_there_is_room(tmp_path: Path, feed: Feed) -> None:
    async with house(tmp_path, [feed.plugin()], queue__function_rows=2) as place, anyio.create_task_group() as tasks:
        trigger = await running(place)
        first, _ = await feed.contexts["a"].accept_batch([Event(payload=b"1"), Event(payload=b"2")], {"0": b"2"})
        tasks.start_soon(feed.contexts["a"].accept_batch, [Event(payload=b"3")], {"0": b"3"})
        await until(lambda: "paused" in place.state(trigger).problem)
        before = await place.cursors(trigger)
        await place.engine.dispatcher.cancel(place.engine.storage.identity.key_of(first) or 0)

        await until(lambda: place.state(trigger).problem == "")
        assert (before, await place.cursors(trigger)) == ({"0": b"2"}, {"0": b"3"})
        assert await place.events() == [1, 2, 3]


async def test_figures_do_not_go_back_when_a_trigger_goes(place: House, feed: Feed) -> None:
    trigger = await running(place)
    await feed.contexts["a"].accept_batch([Event(payload=b"1"), Event(payload=b"x" * (EVENT_LIMIT + 1))])
    await place.delete(trigger)
    await until(lambda: place.engine.sources.state(trigger.id) is None)

    figures = place.engine.sources.statistics()
    assert (figures.accepted, figures.refused, figures.states) == (1, 1, {})


async def test_a_function_that_is_switched_off_pauses_its_pull_sources(tmp_path: Path, feed: Feed) -> None:
    async with house(tmp_path, [feed.plugin()]) as place, anyio.create_task_group() as tasks:
        trigger = await running(place)
        await place.engine.catalog.limit(place.urn, 0)
        tasks.start_soon(feed.contexts["a"].accept_batch, [Event(payload=b"1")], {"0": b"1"})
        await until(lambda: "Disabled" in place.state(trigger).problem)
        await place.engine.catalog.limit(place.urn, 5)

        await until(lambda: place.state(trigger).accepted == 1)


async def test_an_engine_that_can_accept_nothing_for_a_while_pauses_pull_sources(
    place: House, feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    trigger, problems = await running(place), list[str]()
    accept = place.engine.intake.accept_batch

    async def refuse_once(*batch: Any) -> Sequence[str]:
        problems.append(place.state(trigger).problem)
        if len(problems) == 1:
            raise Unavailable("the disk has no room", retry_after=0)
        return await accept(*batch)

    monkeypatch.setattr(place.engine.intake, "accept_batch", refuse_once)
    await feed.contexts["a"].accept_batch([Event(payload=b"1")], {"0": b"1"})

    assert (problems, place.state(trigger).problem) == (["", "paused: the disk has no room"], "")
    assert (await place.events(), await place.cursors(trigger)) == ([1], {"0": b"1"})


async def test_a_source_may_wait_for_the_end_of_what_it_started(tmp_path: Path, feed: Feed) -> None:
    async with house(tmp_path, [feed.plugin()]) as place, anyio.create_task_group() as tasks:
        await running(place)
        context, ended = feed.contexts["a"], list[str]()
        request_id = await context.accept(Event(payload=b"1"))

        async def wait() -> None:
            await context.ended(request_id)
            ended.append(request_id)

        tasks.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        before = list(ended)
        await place.engine.dispatcher.cancel(place.engine.storage.identity.key_of(request_id) or 0)

        await until(lambda: ended == [request_id])
        assert before == []
        await context.ended("of nobody")


async def test_stopping_keeps_what_was_handed_over_and_nothing_else(tmp_path: Path, feed: Feed) -> None:
    async with house(tmp_path, [feed.plugin()]) as place, anyio.create_task_group() as tasks:
        trigger = await running(place)
        await feed.contexts["a"].accept_batch([Event(payload=b"1")], {"0": b"1"})
        place.engine.intake.close()
        tasks.start_soon(feed.contexts["a"].accept_batch, [Event(payload=b"2")], {"0": b"2"})
        await anyio.wait_all_tasks_blocked()

        assert (await place.events(), await place.cursors(trigger)) == ([1], {"0": b"1"})
        tasks.cancel_scope.cancel()


class Lamp:
    """Plugin service."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error, self.on, self.log = error, False, list[str]()

    async def run(self, context: PluginContext, *, task_status: TaskStatus[None]) -> None:
        error, self.error = self.error, None
        if error is not None:
            raise error
        self.on = True
        await context.store.write("lamp", {"on": b"1"})
        task_status.started()
        await anyio.sleep_forever()


def with_service(feed: Feed, lamp: Lamp) -> Plugin:
    return Plugin(kinds=("FEED",), options=FeedOptions, trigger=feed.trigger, serve=lambda settings: lamp)


async def test_an_engine_whose_events_are_counted_runs_none_of_them_after_a_restart(tmp_path: Path, feed: Feed) -> None:
    async with house(tmp_path, [feed.plugin()]) as place:
        await place.create("FEED", name="a")
        await until(lambda: "a" in feed.contexts)
        await feed.contexts["a"].accept_batch([Event(payload=b"1")])

    async with house(tmp_path, [feed.plugin()]) as place:
        assert await place.engine.dispatcher.cancel((await place.keys())[0])
        assert place.engine.dispatcher.statistics().started == 0


async def test_a_service_of_a_plugin_runs_before_its_triggers_and_is_theirs(tmp_path: Path, feed: Feed) -> None:
    lamp = Lamp()
    async with house(tmp_path, [with_service(feed, lamp)]) as place:
        assert lamp.on
        await running(place)

        plugin = feed.contexts["a"].plugin
        assert plugin.service is lamp
        assert await plugin.store.get("lamp", "on") == b"1"


async def test_a_service_that_fails_is_started_again(tmp_path: Path, feed: Feed) -> None:
    lamp = Lamp(OSError("address in use"))
    async with house(tmp_path, [with_service(feed, lamp)], retry__base=3.0) as place:
        failed = place.engine.sources.statistics().services["feed"]
        await until(lambda: lamp.on)

        assert (failed.state, failed.problem) == ("failing", "OSError: address in use")
        await until(lambda: place.engine.sources.statistics().services["feed"].state == "running")


async def test_changes_after_the_end_of_the_sources_start_nothing(tmp_path: Path, feed: Feed) -> None:
    async with house(tmp_path, [feed.plugin()]) as place:
        trigger = await running(place)
    place.engine.sources.follow(trigger.id, None)
    assert feed.log == ["+a", "-a"]
