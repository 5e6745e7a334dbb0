"""Catalog: validation, visibility of changes, and rejected destination loops."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from engine.code.store import NO_CODE, CodeSource, CodeStore
from engine.errors import (
    CodeChanged,
    FunctionExists,
    FunctionOfApp,
    InvalidField,
    NoAsyncSettings,
    VariablesTooLarge,
)
from engine.functions.catalog import Catalog
from engine.functions.function_rules import Condition, FunctionRules, app_of, listed, per_key, priority_cap, weight
from engine.model import AsyncSettings, DestinationSpec, Function
from engine.model.clock import SystemClock
from engine.model.urn import FunctionUrn, parse_urn
from tests.doubles import MemoryCatalogStore
from tests.support.http_app import PROJECT, REGION, SOURCE, encoded, zipped
from tests.support.noted_writes import NotedWrites

INLINE = CodeSource(kind="inline", file=encoded(SOURCE))


@pytest.fixture
def writes() -> NotedWrites:
    return NotedWrites()


@pytest.fixture
def store(writes: NotedWrites) -> MemoryCatalogStore:
    return MemoryCatalogStore(writes=writes)


@pytest.fixture
def catalog(store: MemoryCatalogStore, tmp_path: Path) -> Catalog:
    return a_catalog(store, tmp_path)


def a_catalog(store: MemoryCatalogStore, folder: Path) -> Catalog:
    rules = FunctionRules(may_run_long=listed(["slow", "batch:night"]))
    return Catalog(store, CodeStore(folder), SystemClock(), region=REGION, rules=rules)


def draft(name: str = "hello", **fields: Any) -> Function:
    given = {"project": PROJECT, "package": "default", "runtime": "Python3.10", "handler": "index.handler"}
    return Function(function_id=0, name=name, code=NO_CODE, **{"timeout": 3, "memory_size": 128, **given, **fields})


def urn(text: str = "hello", project: str = PROJECT) -> FunctionUrn:
    return parse_urn(text, region=REGION, project=project)


def leading_to(name: str, kind: str = "FunctionGraph") -> AsyncSettings:
    spec = DestinationSpec(destination=kind, param=f'{{"func_urn": "{name}"}}')
    return AsyncSettings(on_failure=spec)


async def test_a_new_function_is_found_by_urn_and_by_id(catalog: Catalog) -> None:
    function = await catalog.create(draft(), INLINE)

    assert catalog.find(urn()) is function
    assert catalog.resolve(function.function_id, "latest") is function
    assert (function.revision, function.version, function.code.kind) == (1, "latest", "inline")


async def test_projects_are_namespaces_of_their_own(catalog: Catalog) -> None:
    mine = await catalog.create(draft(), INLINE)
    theirs = await catalog.create(draft(project="other"), INLINE)

    assert mine.function_id != theirs.function_id
    assert catalog.find(urn(project="other")) is theirs
    assert list(catalog.list("other")) == [theirs]


async def test_a_name_is_taken_once_in_a_package(catalog: Catalog) -> None:
    await catalog.create(draft(), INLINE)

    await catalog.create(draft(package="other"), INLINE)
    with pytest.raises(FunctionExists):
        await catalog.create(draft(), INLINE)


async def test_changes_at_once_lose_nothing_of_each_other(catalog: Catalog) -> None:
    await catalog.create(draft(), INLINE)
    changes: list[dict[str, Any]] = [{"timeout": 9}, {"memory_size": 256}, {"description": "new"}]

    async with anyio.create_task_group() as tasks:
        for change in changes:
            tasks.start_soon(catalog.update, urn(), change)

    updated = catalog.find(urn())
    assert (updated.timeout, updated.memory_size, updated.description) == (9, 256, "new")


async def test_one_of_two_simultaneous_creations_wins(catalog: Catalog) -> None:
    ends: list[str] = []

    async def create() -> None:
        try:
            await catalog.create(draft(), INLINE)
            ends.append("created")
        except FunctionExists:
            ends.append("exists")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(create)
        tasks.start_soon(create)

    assert sorted(ends) == ["created", "exists"]


class SlowLinks:
    """Links whose content is readable once ``allowed`` is set."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.asked, self.allowed = anyio.Event(), anyio.Event()

    @asynccontextmanager
    async def open(self, link: str) -> AsyncIterator[AsyncIterator[bytes]]:
        self.asked.set()
        yield self._read()

    async def _read(self) -> AsyncIterator[bytes]:
        await self.allowed.wait()
        yield self._content


async def test_code_that_arrives_slowly_delays_no_other_change(store: MemoryCatalogStore, tmp_path: Path) -> None:
    links = SlowLinks(zipped(index__py=SOURCE))
    catalog = Catalog(store, CodeStore(tmp_path, links=links), SystemClock(), region=REGION)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(catalog.create, draft("slow"), CodeSource(kind="obs", url="obs://bucket/key"))
        await links.asked.wait()
        await catalog.create(draft("quick"), INLINE)
        there = [function.name for function in catalog.list(PROJECT)]
        links.allowed.set()

    assert there == ["quick"]
    assert {function.name for function in catalog.list(PROJECT)} == {"quick", "slow"}


async def test_code_that_nothing_refers_to_goes_with_a_restart(
    catalog: Catalog, store: MemoryCatalogStore, tmp_path: Path
) -> None:
    old = await catalog.create(draft(), INLINE)
    new = await catalog.update_code(urn(), CodeSource(kind="inline", file=encoded("x = 2")), {})
    assert CodeStore(tmp_path).folder(old.code).is_dir()

    await a_catalog(store, tmp_path).load()

    assert not CodeStore(tmp_path).folder(old.code).exists()
    assert CodeStore(tmp_path).folder(new.code).is_dir()


@pytest.mark.parametrize("by", ["code", "app"])
async def test_one_of_two_replacements_of_the_same_code_or_for_two_apps_is_refused(catalog: Catalog, by: str) -> None:
    old, refused = await catalog.create(draft(), INLINE), []

    async def replace(text: str) -> None:
        source = CodeSource(kind="inline", file=encoded(text))
        try:
            condition = Condition(digest=old.code.digest) if by == "code" else Condition(app=f"app{text[-1]}")
            await catalog.update_code(urn(), source, {}, condition)
        except (CodeChanged, FunctionOfApp) as error:
            refused.append(str(error))

    async with anyio.create_task_group() as both:
        both.start_soon(replace, "x = 2")
        both.start_soon(replace, "x = 3")

    new = catalog.find(urn())
    assert new.code.digest != old.code.digest
    changed = f"the code was changed meanwhile (its digest is {new.code.digest}): read it, and change it again"
    assert [text == changed if by == "code" else f"to the app {app_of(new)}:" in text for text in refused] == [True]


async def test_a_change_that_instances_notice_makes_a_new_revision_and_each_change_is_announced(
    catalog: Catalog,
) -> None:
    told: list[tuple[int, int | None]] = []

    def tell(function_id: int, function: Function | None) -> None:
        told.append((function_id, function.revision if function else None))

    catalog.changed.connect(tell)

    function = await catalog.create(draft(), INLINE)
    await catalog.update(urn(), {"timeout": 9})
    await catalog.update_code(urn(), CodeSource(kind="inline", file=encoded("x = 2")), {})
    await catalog.limit(urn(), 7)
    await catalog.update(urn(), {"description": "d", "collected": True, "details": {"functiond": {"weight": 2}}})
    await catalog.delete(urn())

    number = function.function_id
    assert told == [(number, 1), (number, 2), (number, 3), (number, 3), (number, 3), (number, None)]


async def test_a_cancelled_change_leaves_store_and_memory_alike(
    catalog: Catalog, store: MemoryCatalogStore, writes: NotedWrites
) -> None:
    await catalog.create(draft(), INLINE)

    with anyio.CancelScope() as scope:
        writes.written = scope.cancel
        await catalog.update(urn(), {"timeout": 9})
        await anyio.lowlevel.checkpoint()

    (stored,) = store.functions.values()
    assert (catalog.find(urn()), scope.cancelled_caught) == (stored, True)


async def test_deleting_takes_the_settings_along_and_frees_the_name(catalog: Catalog) -> None:
    old = await catalog.create(draft(), INLINE)
    await catalog.put_settings(urn(), AsyncSettings())

    await catalog.delete(urn())
    new = await catalog.create(draft(), INLINE)

    assert new.function_id != old.function_id
    assert catalog.settings_of(old.function_id, "latest") is None
    with pytest.raises(NoAsyncSettings):
        catalog.show_settings(urn())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "a" * 61),
        ("name", "a:b"),
        ("handler", "../index.handler"),
        ("handler", "a" * 120 + ".function"),
        ("timeout", 2),
        ("max_instances", -2),
        ("concurrent_num", 0),
        ("initializer_timeout", 301),
        ("pre_stop_timeout", 0),
        ("user_data", {"a-b": "1"}),
        ("user_data", {"A": "zero\0byte"}),
        ("details", {"functiond": {"per_key": 0}}),
        ("details", {"functiond": {"weight": 0}}),
        ("details", {"functiond": {"weight": 1e-300}}),
        ("details", {"functiond": {"weight": 1e300}}),
        ("details", {"functiond": {"wait": 1}}),
        ("details", {"functiond": {"app": "a" * 65}}),
        ("details", {"extend_config": "x" * 40_000, "func_vpc": {"id": "x" * 40_000}}),
    ],
)
async def test_a_function_out_of_bounds_is_refused(catalog: Catalog, field: str, value: object) -> None:
    fields = {"name": "hello", field: value}

    with pytest.raises(InvalidField):
        await catalog.create(draft(**fields), INLINE)  # type: ignore[arg-type]
    assert not catalog.all()


async def test_variables_are_bounded_in_size(catalog: Catalog) -> None:
    await catalog.create(draft(user_data={"V": "x" * 32_767}), INLINE)

    with pytest.raises(VariablesTooLarge, match=r"32768 .*limits\.variables_size"):
        await catalog.update(urn(), {"user_data": {"V": "x" * 32_768}})


@pytest.mark.parametrize("seconds", [901, 43_200, 259_200])
async def test_listed_functions_may_run_long(catalog: Catalog, seconds: int) -> None:
    await catalog.create(draft("slow", timeout=seconds), INLINE)
    await catalog.create(draft("night", package="batch", timeout=seconds), INLINE)

    with pytest.raises(InvalidField, match="long_time_functions"):
        await catalog.create(draft("night", timeout=seconds), INLINE)
    with pytest.raises(InvalidField):
        await catalog.update(urn("slow"), {"timeout": 259_201})


def test_a_list_of_functions_takes_names_urns_and_a_star() -> None:
    hello = urn("hello")

    assert listed([f"urn:fss:{REGION}:{PROJECT}:function:default:hello"])(hello)
    assert listed(["default:hello"])(hello)
    assert listed(["*"])(hello)
    assert not listed(["hell", "other:hello"])(hello)


async def test_fields_of_this_engine_alone_have_defaults() -> None:
    assert (priority_cap(draft()), per_key(draft()), weight(draft())) == (9, 1, 1.0)
    own = draft(details={"functiond": {"priority_cap": 3, "per_key": 4, "weight": 2}})
    assert (priority_cap(own), per_key(own), weight(own)) == (3, 4, 2)


async def test_settings_replace_those_before_and_keep_their_creation_time(catalog: Catalog) -> None:
    await catalog.create(draft(), INLINE)
    first = await catalog.put_settings(urn(), AsyncSettings(max_retries=3))

    second = await catalog.put_settings(urn(), AsyncSettings(max_age=60))

    assert (second.max_retries, second.max_age, second.created_at) == (1, 60, first.created_at)
    assert catalog.settings_of(catalog.find(urn()).function_id, "latest") == second


async def test_a_function_may_not_be_its_own_destination_in_any_spelling(catalog: Catalog) -> None:
    await catalog.create(draft(), INLINE)

    for name in ("hello", "default:hello", str(urn()), f"{PROJECT}:default:hello:!prod"):
        with pytest.raises(InvalidField, match="must not lead back"):
            await catalog.put_settings(urn(), leading_to(name))
    with pytest.raises(InvalidField, match="must not lead back"):
        await catalog.put_settings(urn(), leading_to("hello", kind="functiongraph"))


async def test_destinations_may_form_a_chain_but_no_loop(catalog: Catalog) -> None:
    for name in ("a", "b", "c"):
        await catalog.create(draft(name), INLINE)
    await catalog.put_settings(urn("a"), leading_to("b"))
    await catalog.put_settings(urn("b"), leading_to("c"))

    with pytest.raises(InvalidField, match="must not lead back"):
        await catalog.put_settings(urn("c"), leading_to("a"))
    await catalog.delete_settings(urn("a"))
    await catalog.put_settings(urn("c"), leading_to("a"))


async def test_a_loop_is_found_when_its_last_function_comes_later(catalog: Catalog) -> None:
    await catalog.create(draft("a"), INLINE)
    await catalog.put_settings(urn("a"), leading_to("later"))
    await catalog.create(draft("later"), INLINE)

    with pytest.raises(InvalidField, match="must not lead back"):
        await catalog.put_settings(urn("later"), leading_to("a"))


async def test_other_destinations_are_for_those_who_know_them(store: MemoryCatalogStore, tmp_path: Path) -> None:
    seen: list[tuple[DestinationSpec, str]] = []
    rules = FunctionRules(check_destination=lambda spec, function: seen.append((spec, function.project)))
    catalog = Catalog(store, CodeStore(tmp_path), SystemClock(), region=REGION, rules=rules)
    await catalog.create(draft(), INLINE)
    spec = DestinationSpec(destination="Pigeon", param='{"loft": "north"}')

    await catalog.put_settings(urn(), AsyncSettings(on_success=spec))

    assert seen == [(spec, urn().project)]
