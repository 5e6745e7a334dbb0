"""Log group and log stream for the states of asynchronous invocations, as stored."""

from __future__ import annotations

import pytest

from engine import LogTarget, Quotas
from engine.errors import NotStored
from plugins.lts.groups import ASKED, Groups
from tests.doubles import MemoryStore

TARGET = LogTarget(group_id="g", group_name="states", stream_id="s", stream_name="states-p")


class FailingStore(MemoryStore):
    """Store that refuses writes to one table."""

    refused = ""

    async def write(self, table: str, *args: object, **more: object) -> None:
        if table == self.refused:
            raise NotStored("disk full")
        await super().write(table, *args, **more)  # type: ignore[arg-type]


async def groups_on(store: MemoryStore) -> Groups:
    groups = Groups(store, lambda: 1.0, 7, Quotas())
    await groups.load()
    return groups


def ids(groups: Groups) -> list[tuple[str, list[str]]]:
    return [(group.id, [stream.id for stream in group.streams]) for group in groups.all("p")[1:]]


async def test_a_group_that_cannot_be_stored_does_not_exist() -> None:
    store = FailingStore()
    groups, store.refused = await groups_on(store), "groups"

    with pytest.raises(NotStored):
        await groups.ensure("p", TARGET, again=False)

    assert ids(groups) == ids(await groups_on(store)) == []
    store.refused = ""
    await groups.ensure("p", TARGET, again=False)
    assert ids(groups) == ids(await groups_on(store)) == [("g", ["s"])]


async def test_a_creation_that_was_interrupted_is_finished_by_the_next_request() -> None:
    store = FailingStore()
    store.refused = ASKED
    with pytest.raises(NotStored):
        await (await groups_on(store)).ensure("p", TARGET, again=False)

    store.refused = ""
    groups = await groups_on(store)
    await groups.ensure("p", TARGET, again=False)
    await groups.delete("p", "g")
    await groups.ensure("p", TARGET, again=False)

    assert ids(groups) == ids(await groups_on(store)) == []


async def test_a_group_that_a_client_has_changed_is_kept_as_it_is() -> None:
    store = MemoryStore()
    groups = await groups_on(store)
    await groups.ensure("p", TARGET, again=True)
    await groups.change("p", "g", 30)
    await groups.change_tags("p", "g", lambda tags: {"a": "1"}, lambda tags: tags)

    await groups.ensure("p", TARGET, again=True)

    [_, kept] = groups.all("p")
    assert (kept.days, kept.tags, len(kept.streams)) == (30, {"a": "1"}, 1)
    assert len(groups.all("q")) == 1
