"""Stored triggers: notifications, secrets, rules of plugins, and validation of ``event_data``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import anyio
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Meta, Struct

from engine.code.store import CodeSource, CodeStore
from engine.config.plugin_registry import Registry, load_plugins
from engine.errors import (
    InvalidField,
    InvalidTrigger,
    InvocationModeFixed,
    NotStored,
    TriggerExists,
    UnknownFunction,
    UnknownTrigger,
)
from engine.functions.catalog import Catalog
from engine.functions.versions import Versions
from engine.model import Function, Mode
from engine.model.clock import SystemClock
from engine.model.identity import Identity
from engine.model.text import MASK, without_nulls
from engine.model.urn import FunctionUrn, parse_urn
from engine.protocols import Plugin, TriggerRules
from engine.resources import trigger_rules
from engine.resources.bound_trigger import KIND, BoundTrigger, StoredTrigger
from engine.resources.trigger_rules import (
    check_mode,
    field_names,
    marked,
    masked,
    read_options,
    stored_form,
)
from engine.resources.triggers import TriggerDraft, Triggers
from plugins.cts.options import CtsOptions
from plugins.obs.options import ObsOptions, conflicts
from tests.acceptance.triggering import GOOD
from tests.doubles import MemoryStorage
from tests.support.builders import a_function
from tests.support.http_app import PROJECT, REGION, SOURCE, encoded
from tests.support.work import calls

TIMER: dict[str, Any] = {"name": "nightly", "schedule_type": "Rate", "schedule": "3m"}
KAFKA: dict[str, Any] = {
    "instance_id": "i",
    "topic_ids": ["t"],
    "batch_size": 10,
    "kafka_user": "u",
    "kafka_password": "secret",
}


class OwnOptions(Struct, frozen=True, kw_only=True):
    address: str
    token: Annotated[str, Meta(extra={"secret": True})] = ""


class NarrowOptions(OwnOptions, frozen=True, kw_only=True):
    address: Annotated[str, Meta(max_length=4)]


OWN = Plugin(kinds=("webhook",), options=OwnOptions, rules=TriggerRules(unique=("address",)))


class Bench:
    """Catalog with one function, and its triggers. ``again`` opens the triggers as the next engine does."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.storage, self.told = folder, MemoryStorage(), list[tuple[str, BoundTrigger | None]]()

    async def opened(self, *plugins: Plugin) -> tuple[Catalog, Triggers]:
        catalog = Catalog(self.storage.catalog, CodeStore(self.folder), SystemClock(), region=REGION)
        triggers = Triggers(self.storage.resources, catalog, Registry(plugins), SystemClock(), region=REGION)
        await catalog.load()
        catalog.changed.connect(triggers.follow)
        await triggers.load()
        return catalog, triggers

    async def again(self, *plugins: Plugin) -> Triggers:
        return (await self.opened(*plugins))[1]

    async def begin(self) -> None:
        self.catalog, self.triggers = await self.opened(*load_plugins(), OWN)
        self.triggers.changed.connect(lambda trigger_id, trigger: self.told.append((trigger_id, trigger)))
        await self.catalog.create(draft("hello"), CodeSource(kind="inline", file=encoded(SOURCE)))

    async def create(self, kind: str = "TIMER", urn: FunctionUrn | None = None, **data: Any) -> BoundTrigger:
        return await self.triggers.create(urn or hello(), TriggerDraft(kind=kind, data=data))


def hello(qualifier: str = "") -> FunctionUrn:
    text = f"urn:fss:{REGION}:{PROJECT}:function:default:hello{qualifier}"
    return parse_urn(text, region=REGION, project=PROJECT)


@pytest.fixture
async def bench(tmp_path: Path) -> Bench:
    bench = Bench(tmp_path)
    await bench.begin()
    return bench


def draft(name: str) -> Function:
    return a_function(function_id=0, project=PROJECT, name=name)


async def test_every_change_is_announced(bench: Bench) -> None:
    created = await bench.create(**TIMER)
    changed = await bench.triggers.update(hello(), "TIMER", created.id, [{"schedule": "4m"}])
    await bench.triggers.delete(hello(), "TIMER", created.id)

    assert bench.told == [(created.id, created), (created.id, changed), (created.id, None)]
    assert (created.stored.generation, changed.stored.generation) == (1, 2)
    assert changed.options.schedule == "4m"


async def test_a_trigger_knows_since_when_it_is_enabled(bench: Bench) -> None:
    created = await bench.create(**TIMER)
    generations = [(1, created.stored.enabled)]
    for status in ("", "DISABLED", "", "ACTIVE", ""):
        changed = await bench.triggers.update(hello(), "TIMER", created.id, status=status)
        generations.append((changed.stored.generation, changed.stored.enabled))

    assert [generation for generation in generations if generation[0] not in (3, 4)] == [(1, 1), (2, 1), (5, 5), (6, 5)]


async def test_a_trigger_that_cannot_be_stored_is_shown_nowhere(bench: Bench) -> None:
    created = await bench.create(**TIMER)
    bench.storage.fail()

    with pytest.raises(NotStored):
        await bench.create(**{**TIMER, "name": "other"})
    with pytest.raises(NotStored):
        await bench.triggers.update(hello(), "TIMER", created.id, [{"schedule": "4m"}])
    with pytest.raises(NotStored):
        await bench.triggers.delete(hello(), "TIMER", created.id)

    assert list(bench.triggers.all()) == [created]
    assert bench.told == [(created.id, created)]


async def test_a_refused_change_is_not_announced_and_changes_nothing(bench: Bench) -> None:
    created = await bench.create(**TIMER)

    with pytest.raises(InvalidTrigger):
        await bench.triggers.update(hello(), "TIMER", created.id, [{"schedule": "61m"}])

    assert bench.told == [(created.id, created)]
    assert bench.triggers.show(hello(), "TIMER", created.id) is created


async def test_triggers_deleted_with_their_function_are_announced(bench: Bench) -> None:
    created = await bench.create(**TIMER)

    await bench.catalog.delete(hello())

    assert bench.told[-1] == (created.id, None)
    assert list(bench.triggers.all()) == []


async def test_a_version_takes_its_own_triggers_along(bench: Bench) -> None:
    codes, bound_to = CodeStore(bench.folder), bench.triggers.bound_to
    versions = Versions(bench.catalog, bench.storage.catalog, codes, SystemClock(), Identity(1), bound_to)
    await versions.publish(hello(), name="v1")
    kept, gone = await bench.create(**TIMER), await bench.create(urn=hello(":v1"), **TIMER)

    await versions.delete(hello(":v1"))

    assert [trigger.id for trigger in bench.triggers.all()] == [kept.id]
    assert [resource.id for resource in await bench.storage.resources.load(KIND)] == [kept.id]
    assert bench.told[-1] == (gone.id, None)


async def test_a_trigger_created_while_its_function_goes_is_refused_or_goes_along(bench: Bench) -> None:
    refused: list[Exception] = []

    async def create() -> None:
        try:
            await bench.create(**TIMER)
        except UnknownFunction as error:
            refused.append(error)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(create)
        tasks.start_soon(bench.catalog.delete, hello())

    assert list(bench.triggers.all()) == []
    assert len(refused) + sum(trigger is None for _, trigger in bench.told) == 1


async def test_one_of_two_equal_triggers_created_at_once_is_refused(bench: Bench) -> None:
    refused: list[Exception] = []

    async def create() -> None:
        try:
            await bench.create(**TIMER)
        except TriggerExists as error:
            refused.append(error)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(create)
        tasks.start_soon(create)

    assert (len(refused), len(bench.triggers.list(hello()))) == (1, 1)


async def test_the_next_engine_finds_all_as_it_was(bench: Bench) -> None:
    created = await bench.create("KAFKA", **KAFKA)

    (trigger,) = (await bench.again(*load_plugins())).list(hello())

    assert trigger == created
    assert trigger.options.kafka_password == "secret"


async def test_a_trigger_that_no_plugin_knows_any_more_is_shown_and_can_be_deleted(bench: Bench) -> None:
    created = await bench.create("webhook", address="here", token="secret")

    triggers = await bench.again()

    (trigger,) = triggers.list(hello())
    assert (trigger.id, trigger.options, trigger.runnable) == (created.id, None, False)
    assert trigger.shown == {"address": "******", "token": "******"}
    await triggers.delete(hello(), "webhook", created.id)
    assert await bench.storage.resources.load(KIND) == []


async def test_a_trigger_that_its_plugin_takes_no_more_keeps_its_secrets_and_can_be_mended(bench: Bench) -> None:
    narrow = Plugin(kinds=("webhook",), options=NarrowOptions, rules=OWN.rules)
    created = await bench.create("webhook", address="far away", token="secret")

    triggers = await bench.again(narrow)

    (trigger,) = triggers.list(hello())
    mended = await triggers.update(hello(), "webhook", created.id, [{"address": "here"}])
    assert (trigger.options, trigger.shown) == (None, {"address": "far away", "token": "******"})
    assert (mended.options.address, mended.options.token) == ("here", "secret")


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ({f"k{number}": 1 for number in range(20_000)}, "with 20000 unknown keys': leave them out"),
        ({"operations": [f"S:{number}:a" for number in range(10)] * 2000}, "must not repeat"),
        ({"operations": [f"S:{'r;' * 25_000}r:a"]}, "at most 4096 characters"),
    ],
)
async def test_wide_data_is_refused_before_it_is_compared_with_anything(
    bench: Bench, data: dict[str, Any], told: str
) -> None:
    created = await bench.create("CTS", name="narrow", operations=["S:r:a"])
    types: dict[str, Any] = {"event_types": ["t"] * 1001}
    with pytest.raises(InvalidTrigger, match="a list of 1001': at most 1000 entries of at most 4096"):
        await bench.create("EVENTGRID", channel_id="c", **types)
    for write in (
        bench.create("CTS", **{**created.stored.data, "name": "wide", **data}),
        bench.triggers.update(hello(), "CTS", created.id, [data]),
    ):
        with calls() as made, pytest.raises(InvalidTrigger, match=told):
            await write
        assert made() < 200_000, "about 5 for each value, without a search for the nearest key"


async def test_wide_data_that_is_stored_already_is_used_and_logged(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    types = [f"type{number}" for number in range(30_000)]
    with monkeypatch.context() as before:
        before.setattr(trigger_rules, "excess", lambda kind, data: None)
        await bench.create("EVENTGRID", channel_id="c", event_types=types)

    triggers = await bench.again(*load_plugins())

    (trigger,) = triggers.list(hello())
    told = "it goes on, but event_data.event_types is 'a list of 30000': at most 1000 entries"
    assert (trigger.runnable, len(trigger.options.event_types)) == (True, 30_000)
    assert trigger.problem.startswith(told)
    same = await triggers.update(hello(), "EVENTGRID", trigger.id, {"channel_id": "c", "event_types": types})
    assert same.problem == trigger.problem, "a client that sends back what it was shown is not refused"
    mended = await triggers.update(hello(), "EVENTGRID", trigger.id, [{"event_types": types[:1000]}])
    assert mended.problem == ""


async def test_a_masked_secret_that_comes_back_is_the_one_that_is_kept(bench: Bench) -> None:
    created = await bench.create("KAFKA", **KAFKA)
    update = bench.triggers.update

    kept = await update(hello(), "KAFKA", created.id, [{"kafka_password": "******", "batch_size": 5}])
    replaced = await update(hello(), "KAFKA", created.id, [{"kafka_password": "other"}])

    assert (kept.options.kafka_password, kept.options.batch_size) == ("secret", 5)
    assert replaced.options.kafka_password == "other"


@pytest.mark.parametrize("password", [1234567, ["1234567"], "1234567" * 200])
async def test_errors_show_no_secret(bench: Bench, password: object) -> None:
    with pytest.raises(InvalidTrigger, match="kafka_password") as caught:
        await bench.create("KAFKA", **{**KAFKA, "kafka_password": password})

    assert "1234567" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ({"schedule": "61m"}, "event_data.schedule is '61m': a Rate is 1m to 60m"),
        ({"name": ""}, "event_data.name is '': must be text of 1 to 64 characters"),
        ({"name": 7}, "event_data.name is 7: must be text of 1 to 64 characters"),
        ({"schedule_type": "Often"}, "event_data.schedule_type is 'Often': must be one of Cron, Rate"),
        ({"name": None}, "event_data.name is missing: it is required"),
    ],
)
async def test_errors_name_field_value_and_range(bench: Bench, data: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidTrigger) as caught:
        await bench.create(**{**TIMER, **data})

    assert str(caught.value).startswith(told)


async def test_own_kinds_answer_with_the_nearest_key(bench: Bench) -> None:
    with pytest.raises(InvalidTrigger, match="did you mean address"):
        await bench.create("webhook", adress="here")


async def test_a_kind_is_known_in_any_case_and_kept_as_its_plugin_writes_it(bench: Bench) -> None:
    created = await bench.create("WebHook", address="here")

    assert created.kind == "webhook"
    assert bench.triggers.show(hello(), "WEBHOOK", created.id) is created


async def test_a_trigger_is_not_found_under_another_kind_or_version(bench: Bench) -> None:
    created = await bench.create(**TIMER)

    with pytest.raises(UnknownTrigger):
        bench.triggers.show(hello(), "SMN", created.id)
    assert bench.triggers.show(hello(":latest"), "TIMER", created.id) is created


async def test_a_timer_waits_for_its_function_only_if_the_engine_lets_it(bench: Bench) -> None:
    registry = Registry(load_plugins())
    free = Triggers(
        bench.storage.resources, bench.catalog, registry, SystemClock(), region=REGION, free=frozenset({"TIMER"})
    )

    with pytest.raises(InvocationModeFixed, match=r"triggers\.timer_sync_execution"):
        await bench.create(**TIMER, sync_execution=True)
    waiting = await free.create(hello(), TriggerDraft(kind="TIMER", data={**TIMER, "sync_execution": True}))
    plain = await bench.create(**{**TIMER, "name": "plain"}, sync_execution=False)

    assert (waiting.mode, plain.mode) == (Mode.SYNC, Mode.ASYNC)


async def test_a_body_on_disk_is_read_by_older_and_newer_engines(bench: Bench) -> None:
    created = await bench.create(**TIMER)
    body = msgspec.json.decode((await bench.storage.resources.load(KIND))[0].body)

    later = msgspec.convert({**body, "invented": 1}, StoredTrigger)

    assert later == created.stored


async def test_an_unknown_type_is_refused_with_the_nearest(bench: Bench) -> None:
    with pytest.raises(InvalidField, match="did you mean TIMER"):
        await bench.create("TIMRE", **TIMER)


# --- options -------------------------------------------------------------------------------------------------

REGISTRY = Registry(load_plugins())
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
)


class Login(Struct, frozen=True, kw_only=True):
    password: Annotated[str, Meta(extra={"secret": True})] = ""
    user: str = ""

    def __post_init__(self) -> None:
        if self.password and not self.user:
            raise ValueError("a password needs a user")


def test_options_that_exclude_each_other_are_refused_without_showing_secrets() -> None:
    plugin = Plugin(kinds=("OWN",), options=Login)

    with pytest.raises(InvalidTrigger, match=r"^event_data is .*a password needs a user") as told:
        read_options("OWN", plugin, {"password": "tiger"})
    assert "tiger" not in str(told.value)


def plugin_of(kind: str) -> Plugin:
    plugin = REGISTRY.trigger(kind)
    assert plugin is not None
    return plugin


@pytest.mark.parametrize("kind", sorted(GOOD))
@settings(max_examples=60)
@given(st.data())
def test_any_data_is_read_or_refused_and_comes_back_the_same(kind: str, data: st.DataObject) -> None:
    plugin = plugin_of(kind)
    changes = data.draw(st.dictionaries(st.sampled_from([*field_names(plugin.options), "x"]), anything, max_size=3))
    given_data = without_nulls({**GOOD[kind], **changes})

    options, refused = None, None
    try:
        options = read_options(kind, plugin, given_data)
        check_mode(kind, plugin, given_data, options, free=False)
    except InvalidTrigger as error:
        refused = error

    if refused is None:
        assert read_options(kind, plugin, stored_form(options, given_data)) == options
    else:
        assert (refused.kind, refused.field.partition(".")[0]) == (kind, "event_data")


@pytest.mark.parametrize("kind", sorted(GOOD))
def test_every_kind_has_all_it_needs_to_be_kept(kind: str) -> None:
    plugin, names = plugin_of(kind), set(field_names(plugin_of(kind).options))

    assert set(plugin.rules.unique) <= names
    assert {plugin.rules.mode_option} <= {"", *names}
    assert {name for name in names if "password" in name or name.endswith("_key")} == marked(plugin, "secret")
    assert plugin.rules.vendor


def test_a_mask_is_as_long_for_every_secret_and_absent_for_none() -> None:
    plugin = plugin_of("KAFKA")

    assert masked(plugin, {"kafka_password": "x" * 99, "batch_size": 1}) == {"kafka_password": MASK, "batch_size": 1}
    assert masked(plugin, {"kafka_password": ""}) == {"kafka_password": ""}


@pytest.mark.parametrize(
    "events",
    [
        ["ObjectCreated"],
        ["s3:ObjectCreated:*"],
        ["ObjectCreated:*"],
        ["Put", "Post", "Copy", "CompleteMultipartUpload"],
    ],
)
def test_creations_have_many_spellings(events: list[str]) -> None:
    options = obs(events=events)

    assert options.wanted == {f"ObjectCreated:{name}" for name in ("Put", "Post", "Copy", "CompleteMultipartUpload")}


@pytest.mark.parametrize(
    ("mine", "other", "clashes"),
    [
        ({}, {}, True),
        ({}, {"bucket": "other"}, False),
        ({"prefix": "in/"}, {"prefix": "out/"}, False),
        ({"prefix": "in/"}, {"prefix": "in/small/"}, True),
        ({"suffix": ".jpg"}, {"suffix": ".png"}, False),
        ({"suffix": ".jpg"}, {}, True),
        ({"events": ["Put"]}, {"events": ["Post"]}, False),
        ({"events": ["Put"]}, {"events": ["s3:ObjectCreated:*"]}, True),
        ({"prefix": "in/", "suffix": ".jpg"}, {"prefix": "in/", "suffix": ".png"}, False),
    ],
)
def test_rules_of_a_bucket_clash_if_an_object_may_fit_both(
    mine: dict[str, Any], other: dict[str, Any], clashes: bool
) -> None:
    assert conflicts(obs(**mine), obs(**other), True) is clashes
    assert conflicts(obs(**other), obs(**mine), True) is clashes


def obs(**fields: Any) -> ObsOptions:
    options = read_options("OBS", plugin_of("OBS"), {"bucket": "b", "events": ["Put"], **fields})
    assert isinstance(options, ObsOptions)
    return options


@pytest.mark.parametrize(
    ("operations", "problem"),
    [
        (["ECS:ecs"], "needs Service"),
        (["ECS:ecs:start", "ECS:ecs:start"], "repeat"),
        ([f"S{number}:r:a" for number in range(11)], "at most 10 are allowed"),
        (["S:r:" + ";".join(f"a{number}" for number in range(11))], "at most 10 actions a service"),
    ],
)
def test_audits_ask_for_a_bounded_number_of_operations(operations: list[str], problem: str) -> None:
    with pytest.raises(InvalidTrigger, match=problem):
        read_options("CTS", plugin_of("CTS"), {"name": "n", "operations": operations})


def test_the_longest_list_of_audited_operations_is_taken() -> None:
    actions = ";".join(f"a{number}" for number in range(10))
    data = {"name": "n", "operations": [f"S{number}:r:{actions}" for number in range(10)]}

    options = read_options("CTS", plugin_of("CTS"), data)

    assert isinstance(options, CtsOptions)
    assert len(options.operations) == 10
