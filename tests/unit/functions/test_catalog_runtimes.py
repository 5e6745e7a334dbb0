"""Runtimes and handlers that a function may have."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.code.store import CodeSource, CodeStore
from engine.errors import InvalidField, NoInterpreter
from engine.functions.catalog import Catalog
from engine.functions.function_rules import FunctionRules
from engine.model.clock import SystemClock
from tests.doubles import MemoryCatalogStore
from tests.support.http_app import PROJECT, REGION
from tests.unit.functions.test_catalog import INLINE, draft, urn


@pytest.fixture
def store() -> MemoryCatalogStore:
    return MemoryCatalogStore()


@pytest.fixture
def catalog(store: MemoryCatalogStore, tmp_path: Path) -> Catalog:
    return Catalog(store, CodeStore(tmp_path), SystemClock(), region=REGION)


async def test_a_runtime_that_this_machine_cannot_run_is_refused(store: MemoryCatalogStore, tmp_path: Path) -> None:
    async def check(runtime: str) -> None:
        if runtime != "Python3.10":
            raise NoInterpreter(runtime, "install one")

    rules = FunctionRules(check_runtime=check)
    catalog = Catalog(store, CodeStore(tmp_path), SystemClock(), region=REGION, rules=rules)
    await catalog.create(draft(), INLINE)

    with pytest.raises(NoInterpreter):
        await catalog.create(draft("other", runtime="Node.js18.15"), INLINE)
    with pytest.raises(NoInterpreter):
        await catalog.update(urn(), {"runtime": "Node.js18.15"})
    assert [function.runtime for function in catalog.list(PROJECT)] == ["Python3.10"]


async def test_a_function_whose_interpreter_is_gone_can_still_be_changed(
    store: MemoryCatalogStore, tmp_path: Path
) -> None:
    async def check(runtime: str) -> None:
        if gone:
            raise NoInterpreter(runtime, "install one")

    gone: list[bool] = []
    rules = FunctionRules(check_runtime=check)
    catalog = Catalog(store, CodeStore(tmp_path), SystemClock(), region=REGION, rules=rules)
    await catalog.create(draft(), INLINE)
    gone.append(True)

    assert (await catalog.update(urn(), {"memory_size": 256})).memory_size == 256


@pytest.mark.parametrize("handler", ["bootstrap", "Assembly::Namespace.Class::Method", "-"])
async def test_a_bootstrap_may_have_any_handler(catalog: Catalog, handler: str) -> None:
    source = CodeSource(kind="inline", file="eA==")

    assert (await catalog.create(draft(runtime="Custom", handler=handler), source)).handler == handler


@pytest.mark.parametrize("runtime", ["Python3.10", "Node.js18.15"])
async def test_an_interpreter_needs_a_file_and_a_function(catalog: Catalog, runtime: str) -> None:
    with pytest.raises(InvalidField, match=r"file\.function"):
        await catalog.create(draft(runtime=runtime, handler="bootstrap"), INLINE)
