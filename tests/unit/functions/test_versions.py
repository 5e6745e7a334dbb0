"""Versions and aliases: immutability, deletion, resolution of URNs, and the version chosen for a request."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import anyio
import pytest

from engine.code.store import CodeSource, CodeStore
from engine.errors import (
    AliasExists,
    AliasInUse,
    BadExtraVersion,
    BadWeight,
    InvalidField,
    NothingToPublish,
    NotStored,
    SameVersion,
    UnknownAlias,
    UnknownVersion,
    VersionExists,
    VersionInUse,
    VersionTaken,
)
from engine.functions.alias_rules import check_alias, check_version_name, choose_version
from engine.functions.aliases import Aliases
from engine.functions.catalog import Catalog
from engine.functions.versions import Versions
from engine.model import Alias, AsyncSettings, CodePackage, Function, Rule, Strategy
from engine.model.identity import Identity
from engine.model.urn import FunctionUrn, parse_urn
from engine.protocols import StoredResource
from tests.doubles import ManualClock, MemoryStorage
from tests.support.builders import a_function
from tests.support.http_app import PROJECT, REGION, SOURCE, encoded
from tests.support.noted_writes import NotedWrites

INLINE = CodeSource(kind="inline", file=encoded(SOURCE))
DRAFT = a_function(function_id=0, project=PROJECT)


class House:
    """Catalog with one function, and the services that change its versions."""

    def __init__(self, folder: Path, clock: ManualClock, before: House | None = None) -> None:
        self.folder, self.clock = folder, clock
        self.writes: NotedWrites = before.writes if before else NotedWrites()
        self.storage: MemoryStorage = before.storage if before else MemoryStorage(writes=self.writes)
        self.bound: dict[tuple[int, str], list[StoredResource]] = {}  #: resources by function id and qualifier
        codes, store = CodeStore(folder), self.storage.catalog
        self.catalog = Catalog(store, codes, clock, region=REGION, random=Random(3))
        self.aliases = Aliases(self.catalog, self.storage.resources, clock, self.bound_to)
        self.versions = Versions(self.catalog, store, codes, clock, Identity(1), self.bound_to)

    def bound_to(self, function_id: int, qualifier: str) -> list[StoredResource]:
        return self.bound.get((function_id, qualifier), [])

    async def again(self) -> House:
        """Open it again, as after a restart."""
        return await opened(self.folder, self.clock, self)

    async def publish(self, name: str = "", **fields: Any) -> Function:
        """Publish a version that differs from earlier ones."""
        latest = self.catalog.find(urn())
        await self.catalog.update(urn(), {"timeout": latest.timeout + 1})
        return await self.versions.publish(urn(), name=name, **fields)

    async def bind(self, qualifier: str) -> None:
        """Store a trigger of a version or alias."""
        trigger = StoredResource(kind="trigger", owner="function:1", id=qualifier, body=b"{}")
        self.bound[1, qualifier] = [trigger]
        await self.storage.resources.put(trigger)

    async def alias(self, name: str, version: str, **fields: Any) -> Alias:
        return await self.aliases.create(urn(), Alias(name=name, version=version, **fields))


async def opened(folder: Path, clock: ManualClock, before: House | None = None) -> House:
    house = House(folder, clock, before)
    await house.catalog.load()
    await house.aliases.load()
    return house


@pytest.fixture
async def house(tmp_path: Path) -> House:
    house = await opened(tmp_path, ManualClock())
    await house.catalog.create(DRAFT, INLINE)
    return house


def urn(qualifier: str = "") -> FunctionUrn:
    text = f"{PROJECT}:default:hello:{qualifier}" if qualifier else "hello"
    return parse_urn(text, region=REGION, project=PROJECT)


# --- versions -----------------------------------------------------------------------------------------------


async def test_a_version_stays_as_it_was_when_latest_goes_on(house: House) -> None:
    version = await house.versions.publish(urn(), name="v1", description="first")
    await house.catalog.update(urn(), {"timeout": 60})
    await house.catalog.update_code(urn(), CodeSource(kind="inline", file=encoded("x = 2")), {})

    shown = house.catalog.find(urn("v1"))

    assert (shown, shown.timeout, shown.version_description) == (version, 3, "first")
    assert shown.code != house.catalog.find(urn()).code
    with pytest.raises(InvalidField, match="only latest can be changed"):
        await house.catalog.update(urn("v1"), {"timeout": 9})


async def test_a_name_is_given_once(house: House) -> None:
    await house.publish("v1")

    with pytest.raises(VersionExists):
        await house.publish("v1")


async def test_an_unchanged_function_is_not_published_again(house: House) -> None:
    await house.versions.publish(urn(), name="v1")
    await house.catalog.limit(urn(), 7)

    with pytest.raises(NothingToPublish, match="v1"):
        await house.versions.publish(urn(), name="v2")
    await house.catalog.update(urn(), {"description": "new"})
    await house.versions.publish(urn(), name="v2")


async def test_a_digest_says_which_code_is_meant(house: House) -> None:
    latest = house.catalog.find(urn())

    with pytest.raises(InvalidField, match=r"has MD5 [0-9a-f]{32}:") as refusal:
        await house.versions.publish(urn(), digest="0" * 32)
    md5 = str(refusal.value).partition("MD5 ")[2][:32]
    await house.versions.publish(urn(), name="v1", digest=md5.upper())
    await house.catalog.update(urn(), {"timeout": 9})

    assert (await house.versions.publish(urn(), name="v2", digest=latest.code.digest)).version == "v2"


class HeldCodes(CodeStore):
    """Code store that reads a package once ``may_read`` is set."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.reads, self.may_read = anyio.Event(), anyio.Event()

    async def md5(self, package: CodePackage) -> str:
        self.reads.set()
        await self.may_read.wait()
        return await super().md5(package)


@pytest.mark.parametrize("changed", [False, True])
async def test_changes_do_not_wait_for_a_digest_and_what_they_made_of_the_code_is_not_published(
    house: House, changed: bool
) -> None:
    codes, published = HeldCodes(house.folder), list[str]()
    versions = Versions(house.catalog, house.storage.catalog, codes, house.clock, Identity(1), house.bound_to)
    md5 = await CodeStore(house.folder).md5(house.catalog.find(urn()).code)

    async def publish() -> None:
        with suppress(InvalidField):
            published.append((await versions.publish(urn(), name="v1", digest=md5)).version)

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(publish)
            await codes.reads.wait()
            await house.catalog.update(urn(), {"timeout": 9})
            if changed:
                await house.catalog.update_code(urn(), CodeSource(kind="inline", file=encoded("x = 2")), {})
            codes.may_read.set()

    assert published == ([] if changed else ["v1"])


async def test_a_version_takes_a_copy_of_the_settings_along(house: House) -> None:
    await house.catalog.put_settings(urn(), AsyncSettings(max_retries=3))
    await house.versions.publish(urn(), name="v1")
    await house.catalog.put_settings(urn(), AsyncSettings(max_retries=0))
    await house.catalog.put_settings(urn("v1"), AsyncSettings(max_retries=2))

    by_version = {f.version: s.max_retries for f, s in house.catalog.settings_by_version(urn())}

    assert by_version == {"latest": 0, "v1": 2}
    await house.catalog.delete_settings(urn("v1"))
    assert house.catalog.settings_of(1, "v1") is None


async def test_revisions_are_never_given_twice(house: House) -> None:
    first = await house.publish("v1")
    await house.versions.delete(urn("v1"))
    second = await house.publish("v1")
    await house.catalog.update(urn(), {"timeout": 60})

    revisions = [first.revision, *(version.revision for version in house.catalog.versions(1))]

    assert len(set(revisions)) == 3
    assert second.revision > first.revision


async def test_the_limit_of_instances_is_one_for_all_versions(house: House) -> None:
    await house.publish("v1")
    before = [version.revision for version in house.catalog.versions(1)]

    assert (await house.catalog.limit(urn("v1"), 7)).version == "v1"

    assert [version.max_instances for version in house.catalog.versions(1)] == [7, 7]
    assert [version.revision for version in house.catalog.versions(1)] == before
    assert [f.max_instances for f in house.storage.catalog.functions.values()] == [7, 7]


async def test_a_deleted_version_is_gone_with_what_is_bound_to_it(house: House) -> None:
    await house.bind("v1")
    await house.catalog.put_settings(urn(), AsyncSettings())
    await house.publish("v1")

    await house.versions.delete(urn("v1"))

    assert await house.storage.resources.load("trigger") == []
    assert house.catalog.resolve(1, "v1") is None
    assert house.catalog.settings_of(1, "v1") is None
    with pytest.raises(UnknownVersion):
        house.catalog.find(urn("v1"))


@pytest.mark.parametrize("qualifier", ["v1", "!prod"])
async def test_a_deleted_version_takes_its_alias_along_in_one_write(house: House, qualifier: str) -> None:
    left = list[int]()
    for id in ("v1", "!prod"):
        await house.bind(id)
    await house.publish("v1")
    await house.alias("prod", "v1")
    house.writes.written = lambda: left.append(len(house.storage.tables.resources))

    await house.versions.delete(urn(qualifier))

    assert left == [0], "both triggers and the alias are gone with the version"
    assert not house.aliases.list(urn())
    with pytest.raises(UnknownAlias):
        house.catalog.find(urn("!prod"))


async def test_an_alias_does_not_delete_what_another_one_needs(house: House) -> None:
    await house.publish("v1")
    await house.publish("v2")
    await house.alias("prod", "v1")
    await house.alias("test", "v2", weights={"v1": 10})

    with pytest.raises(VersionInUse):
        await house.versions.delete(urn("!prod"))
    assert house.catalog.find(urn("!prod")).version == "v1"


async def test_latest_alone_cannot_be_deleted(house: House) -> None:
    with pytest.raises(InvalidField, match="leave the version out"):
        await house.versions.delete(urn("latest"))


async def test_each_change_is_one_write(house: House) -> None:
    await house.catalog.put_settings(urn(), AsyncSettings())
    await house.publish("v1")
    await house.catalog.update(urn(), {"timeout": 60})
    writes: list[int] = []
    house.writes.written = lambda: writes.append(len(house.storage.catalog.functions))

    await house.versions.publish(urn(), name="v2")
    await house.catalog.limit(urn(), 7)
    await house.versions.delete(urn("v1"))

    assert writes == [3, 3, 2]


async def test_changes_of_versions_are_announced(house: House) -> None:
    told: list[list[str]] = []

    def tell(function_id: int, _: Function | None) -> None:
        told.append([version.version for version in house.catalog.versions(function_id)])

    house.catalog.changed.connect(tell)

    await house.versions.publish(urn(), name="v1")
    await house.versions.delete(urn("v1"))
    await house.catalog.delete(urn())

    assert told == [["latest", "v1"], ["latest"], []]


async def test_a_change_that_cannot_be_stored_is_not_shown(house: House) -> None:
    await house.publish("v1")
    await house.catalog.update(urn(), {"timeout": 60})
    before = list(house.catalog.versions(1))
    house.storage.fail()

    for change in (
        house.versions.publish(urn(), name="v2"),
        house.versions.delete(urn("v1")),
        house.catalog.limit(urn(), 7),
        house.catalog.update(urn(), {"timeout": 9}),
        house.catalog.delete(urn()),
        house.alias("prod", "v1"),
    ):
        with pytest.raises(NotStored):
            await change

    assert list(house.catalog.versions(1)) == before
    assert not house.aliases.list(urn())


# --- aliases ------------------------------------------------------------------------------------------------


async def test_an_alias_with_weights_is_decided_request_by_request(house: House) -> None:
    await house.publish("v1")
    await house.publish("v2")
    await house.alias("split", "v1", weights={"v2": 50})

    routed = [house.catalog.route(urn("!split")).version for _ in range(100)]

    assert 30 < routed.count("v2") < 70
    assert {house.catalog.find(urn("!split")).version for _ in range(100)} == {"v1"}


async def test_a_version_has_one_alias_at_most(house: House) -> None:
    await house.publish("v1")
    await house.publish("v2")
    await house.alias("prod", "v1")
    await house.alias("test", "v2", weights={"v1": 10})

    with pytest.raises(VersionTaken):
        await house.alias("more", "v1")
    with pytest.raises(VersionTaken):
        await house.aliases.update(urn(), Alias(name="test", version="v1"))
    with pytest.raises(AliasExists):
        await house.alias("prod", "v2")


async def test_a_version_that_is_an_alias_s_extra_one_stays(house: House) -> None:
    await house.publish("v1")
    await house.publish("v2")
    await house.alias("prod", "v1", weights={"v2": 10})

    with pytest.raises(VersionInUse):
        await house.versions.delete(urn("v2"))
    await house.aliases.delete(urn(), "prod")
    await house.versions.delete(urn("v2"))


async def test_an_alias_with_triggers_stays(house: House) -> None:
    await house.bind("!prod")
    await house.publish("v1")
    await house.alias("prod", "v1")

    with pytest.raises(AliasInUse):
        await house.aliases.delete(urn(), "prod")
    house.bound.clear()
    await house.aliases.delete(urn(), "prod")
    assert not house.aliases.list(urn())


async def test_settings_do_not_belong_to_aliases(house: House) -> None:
    await house.publish("v1")
    await house.alias("prod", "v1")

    with pytest.raises(InvalidField, match="not an alias"):
        await house.catalog.put_settings(urn("!prod"), AsyncSettings())
    with pytest.raises(InvalidField, match="not an alias"):
        await house.catalog.delete_settings(urn("!prod"))


async def test_everything_is_there_again_after_a_restart(house: House) -> None:
    await house.catalog.put_settings(urn(), AsyncSettings(max_retries=3))
    await house.publish("v1")
    alias = await house.alias("prod", "v1")

    again = await house.again()

    assert list(again.catalog.versions(1)) == list(house.catalog.versions(1))
    assert again.aliases.get(urn(), "prod") == alias
    assert again.catalog.show_settings(urn("v1")).max_retries == 3
    assert again.catalog.next_revision(1) > max(v.revision for v in again.catalog.versions(1))


async def test_a_version_knows_what_was_accepted_before_it_also_after_the_clock_was_set_back(house: House) -> None:
    identity = house.versions._identity
    before = identity.next_key(house.clock.now())
    version = await house.publish("v1")
    after = identity.next_key(house.clock.now())
    house.clock.advance(-3600)

    again = await house.again()
    again.versions.load()

    assert before < version.created_key < after
    assert again.versions._identity.next_key(house.clock.now()) > version.created_key


async def test_either_an_alias_or_a_simultaneous_deletion_wins(house: House) -> None:
    await house.publish("v1")
    await house.publish("v2")
    ends: list[str] = []

    async def attempt(change: Any) -> None:
        try:
            await change
            ends.append("done")
        except (VersionInUse, BadExtraVersion):
            ends.append("refused")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(attempt, house.alias("prod", "v2", weights={"v1": 1}))
        tasks.start_soon(attempt, house.versions.delete(urn("v1")))

    assert sorted(ends) == ["done", "refused"]
    assert all(house.catalog.resolve(1, alias.version) for alias in house.aliases.list(urn()))


# --- rules of aliases ----------------------------------------------------------------------------------------

VERSIONS = frozenset({"latest", "v1", "v2", "v3"})
HEADER = Rule(rule_type="header", param="X-Ring", op="=", value="early")
COOKIE = Rule(rule_type="cookie", param="who", op="in", value="ada, bob")


def alias(**fields: Any) -> Alias:
    return Alias(**{"name": "prod", "version": "v1", **fields})


def by_rules(*rules: Rule, combine: str = "and", version: str = "v2") -> Alias:
    return alias(strategies={version: Strategy(combine_type=combine, rules=rules)})


def chosen(alias: Alias, **headers: bytes) -> str:
    return choose_version(alias, {name.replace("_", "-").encode(): value for name, value in headers.items()}, Random(1))


@pytest.mark.parametrize("name", ["a", "Prod", "a-b_c.d", "a" * 64, "p2"])
def test_a_name_with_a_letter_first_and_a_letter_or_digit_last_will_do(name: str) -> None:
    check_alias(alias(name=name), VERSIONS)


@pytest.mark.parametrize("name", ["", "2nd", "a-", "a.", "a" * 65, "a b", "!a", "é"])
def test_another_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidField, match=r"alias\.name"):
        check_alias(alias(name=name), VERSIONS)


@pytest.mark.parametrize("name", ["latest", "-v", "v.", "!v", "v:1", "v" * 65])
def test_a_version_is_not_called_anything(name: str) -> None:
    check_version_name("1.0_rc-2")

    with pytest.raises(InvalidField):
        check_version_name(name)


def test_an_alias_names_versions_that_exist_and_differ() -> None:
    check_alias(alias(weights={"v2": 10}, strategies={"v3": Strategy(rules=(HEADER,))}), VERSIONS)

    with pytest.raises(UnknownVersion):
        check_alias(alias(version="v9"), VERSIONS)
    with pytest.raises(BadExtraVersion):
        check_alias(alias(weights={"v9": 10}), VERSIONS)
    with pytest.raises(BadExtraVersion):
        check_alias(by_rules(HEADER, version="v9"), VERSIONS)
    with pytest.raises(SameVersion):
        check_alias(alias(weights={"v1": 10}), VERSIONS)


@pytest.mark.parametrize("weights", [{"v2": -1}, {"v2": 101}, {"v2": 60, "v3": 41}])
def test_weights_are_percentages_that_leave_room_for_each_other(weights: dict[str, int]) -> None:
    check_alias(alias(weights={"v2": 60, "v3": 40}), VERSIONS)

    with pytest.raises(BadWeight):
        check_alias(alias(weights=weights), VERSIONS)


@pytest.mark.parametrize(
    "strategy",
    [
        Strategy(),
        Strategy(combine_type="xor", rules=(HEADER,)),
        Strategy(rules=(Rule(rule_type="query", param="a"),)),
        Strategy(rules=(Rule(op="<", param="a"),)),
        Strategy(rules=(Rule(param=""),)),
        Strategy(rules=(Rule(param="a b"),)),
    ],
)
def test_a_rule_that_cannot_be_followed_is_refused(strategy: Strategy) -> None:
    with pytest.raises(InvalidField, match=r"additional_version_strategy\.v2"):
        check_alias(alias(strategies={"v2": strategy}), VERSIONS)


def test_weights_share_the_requests_out() -> None:
    random = Random(7)
    split = alias(weights={"v2": 10, "v3": 30})

    counts = Counter(choose_version(split, None, random) for _ in range(10_000))

    assert {version: round(count / 1000) for version, count in counts.items()} == {"v1": 6, "v2": 1, "v3": 3}


def test_the_ends_of_the_scale_are_certain() -> None:
    random = Random(7)

    assert {choose_version(alias(weights={"v2": 0}), None, random) for _ in range(1000)} == {"v1"}
    assert {choose_version(alias(weights={"v2": 100}), None, random) for _ in range(1000)} == {"v2"}


def test_a_header_is_looked_at_whatever_the_case_of_its_name() -> None:
    assert chosen(by_rules(HEADER), x_ring=b"early") == "v2"
    assert chosen(by_rules(HEADER), x_ring=b"Early") == "v1"
    assert chosen(by_rules(HEADER), other=b"early") == "v1"
    assert choose_version(by_rules(HEADER), None, Random(1)) == "v1"


def test_a_cookie_may_be_one_of_several() -> None:
    assert chosen(by_rules(COOKIE), cookie=b"a=1; who=bob; b=2") == "v2"
    assert chosen(by_rules(COOKIE), cookie=b'who="ada"') == "v2"
    assert chosen(by_rules(COOKIE), cookie=b"who=eve") == "v1"
    assert chosen(by_rules(COOKIE), who=b"bob") == "v1"


def test_and_wants_every_rule_or_any() -> None:
    both, either = by_rules(HEADER, COOKIE), by_rules(HEADER, COOKIE, combine="or")

    assert (chosen(both, x_ring=b"early"), chosen(either, x_ring=b"early")) == ("v1", "v2")
    assert chosen(both, x_ring=b"early", cookie=b"who=ada") == "v2"
    assert chosen(either, x_ring=b"late", cookie=b"who=eve") == "v1"


def test_rules_go_before_weights() -> None:
    mixed = alias(weights={"v3": 100}, strategies={"v2": Strategy(rules=(HEADER,))})

    assert chosen(mixed, x_ring=b"early") == "v2"
    assert chosen(mixed, x_ring=b"late") == "v3"
