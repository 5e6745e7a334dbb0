"""OBS on a folder: reported changes, ignored changes, and outcomes written as objects."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import anyio
import pytest
from structlog.testing import capture_logs

from engine import PluginContext, StoreRefused
from engine.config.plugin_registry import Registry
from engine.errors import InvalidField, SettingsError
from engine.model import DestinationSpec
from plugins.obs import destination as delivery
from plugins.obs import plugin as obs
from plugins.obs import watch
from plugins.obs.destination import Expiry, ObsDestination, ObsParam
from plugins.obs.folder import FolderStore
from plugins.obs.snapshot import Snapshot, forget_others, table_of
from plugins.obs.store import Listing
from tests.doubles import ManualClock
from tests.plugins import delivering
from tests.support.triggering import House, house, until

RECORD = b'{"request_context":{"request_id":"id"}}'
ALL = ["ObjectCreated", "ObjectRemoved"]


@pytest.fixture
def bucket(tmp_path: Path) -> Path:
    folder = tmp_path / "objects" / "photos"
    folder.mkdir(parents=True)
    return folder


def inside(tmp_path: Path, **settings: Any) -> Any:
    return house(tmp_path / "data", [obs], plugins__obs__folder=str(tmp_path / "objects"), **settings)


def put(path: Path, content: str = "") -> None:
    """Write a file in one step: a reader never sees half of it."""
    made = path.parent / ".functiond-made"
    made.write_text(content)
    made.rename(path)


async def happened(place: House, *expected: str) -> None:
    """Wait until exactly these changes were reported, in any order: ``+key`` or ``-key``."""
    while len(changes := await _told(place)) < len(expected):  # noqa: ASYNC110  (the journal sets no event)
        await anyio.sleep(0.005)
    assert sorted(changes) == sorted(expected)


async def _told(place: House) -> list[str]:
    records = [record for event in await place.events() for record in event["Records"]]
    signs = {"ObjectCreated:Put": "+", "ObjectRemoved:Delete": "-"}
    return [signs[record["eventName"]] + unquote(record["s3"]["object"]["key"]) for record in records]


async def watching(place: House, **options: Any) -> Any:
    """Return a trigger whose source has listed the whole bucket."""
    trigger = await place.create("OBS", bucket="photos", **{"events": ALL, **options})
    await seen(place, trigger)
    return trigger


async def seen(place: House, trigger: Any) -> None:
    while b'"whole":true' not in (await place.cursors(trigger)).get("objects", b""):  # noqa: ASYNC110  (as above)
        await anyio.sleep(0.005)


async def test_files_that_come_change_and_go_are_told(tmp_path: Path, bucket: Path) -> None:
    async with inside(tmp_path) as place:
        await watching(place)
        put(bucket / "a b+ü.txt", "1")
        await happened(place, "+a b+ü.txt")
        with (bucket / "a b+ü.txt").open("a") as file:
            file.write("more")
        await happened(place, *["+a b+ü.txt"] * 2)
        (bucket / "a b+ü.txt").unlink()
        await happened(place, *["+a b+ü.txt"] * 2, "-a b+ü.txt")

        last = (await place.events())[1]["Records"][0]["s3"]["object"]
        assert (last["key"], last["size"]) == ("a%20b%2B%C3%BC.txt", 5)


async def test_subfolders_that_come_go_and_move_are_told_with_all_in_them(tmp_path: Path, bucket: Path) -> None:
    async with inside(tmp_path) as place:
        await watching(place)
        outside = tmp_path / "made"
        (outside / "deep").mkdir(parents=True)
        (outside / "deep" / "a").touch()
        outside.rename(bucket / "sub")
        await happened(place, "+sub/deep/a")
        (bucket / "sub").rename(bucket / "other")
        expected = ["+sub/deep/a", "-sub/deep/a", "+other/deep/a"]
        await happened(place, *expected)
        put(bucket / "other" / "deep" / "b")
        await happened(place, *expected, "+other/deep/b")
        (bucket / "other").rename(outside)

        await happened(place, *expected, "+other/deep/b", "-other/deep/a", "-other/deep/b")


async def test_prefix_suffix_and_events_say_what_counts(tmp_path: Path, bucket: Path) -> None:
    async with inside(tmp_path) as place:
        (bucket / "in").mkdir()
        (bucket / "inner").mkdir()
        await watching(place, prefix="in/", suffix=".csv", events=["Put"])
        for name in ("in/a.txt", "inner/a.csv", "a.csv", "in/a.csv", "in/b.csv"):
            put(bucket / name)
        await happened(place, "+in/a.csv", "+in/b.csv")
        (bucket / "in/a.csv").unlink()
        put(bucket / "in/c.csv")

        await happened(place, "+in/a.csv", "+in/b.csv", "+in/c.csv")


async def test_what_was_there_before_is_no_event_until_it_changes(tmp_path: Path, bucket: Path) -> None:
    put(bucket / "old")
    put(bucket / "older")
    for name in ("old", "older"):
        os.utime(bucket / name, (1, 1))
    async with inside(tmp_path) as place:
        await watching(place)
        put(bucket / "old", "new")
        (bucket / "older").unlink()

        await happened(place, "+old", "-older")


async def test_what_happens_while_the_engine_is_down_is_caught_up(tmp_path: Path, bucket: Path) -> None:
    async with inside(tmp_path) as place:
        trigger = await watching(place)
        for name in ("kept", "changed", "gone"):
            put(bucket / name)
        await happened(place, "+kept", "+changed", "+gone")
    (bucket / "kept").chmod(0o600)  # another mode is no event
    put(bucket / "changed", "other")
    (bucket / "gone").unlink()
    put(bucket / "new")
    os.utime(bucket / "new", (1, 1))  # moved into the bucket, with an old modification time
    async with inside(tmp_path) as place:
        await happened(place, "+kept", "+changed", "+gone", "+changed", "-gone", "+new")

        assert place.state(trigger).problem == ""


async def test_another_prefix_begins_with_what_comes_then(tmp_path: Path, bucket: Path) -> None:
    for folder in ("in", "out"):
        (bucket / folder).mkdir()
        put(bucket / folder / "old")
        os.utime(bucket / folder / "old", (1, 1))
    async with inside(tmp_path) as place:
        trigger = await watching(place, prefix="in/")
        await place.update(trigger, prefix="out/")
        put(bucket / "out" / "new")
        put(bucket / "in" / "new")

        await happened(place, "+out/new")
        rows = await place.engine.plugins.of(obs).store.scan(table_of(trigger.id))
        assert [key for key, _ in rows] == ["out/new", "out/old"]


async def test_a_missing_bucket_is_told_and_waited_for(tmp_path: Path) -> None:
    async with inside(tmp_path) as place:
        trigger = await place.create("OBS", bucket="photos", events=ALL)
        await until(lambda: "no such bucket" in place.state(trigger).problem)
        (tmp_path / "objects" / "photos").mkdir(parents=True)
        await seen(place, trigger)
        put(tmp_path / "objects" / "photos" / "a")

        await happened(place, "+a")


async def test_names_that_no_key_could_be_and_unfinished_files_are_left_alone(tmp_path: Path, bucket: Path) -> None:
    async with inside(tmp_path) as place:
        trigger = await watching(place)
        os.mknod(os.fsencode(bucket) + b"/\xff")
        os.mkdir(os.fsencode(bucket) + b"/\xfe")
        (bucket / ".functiond-x").touch()
        (bucket / "link").symlink_to(tmp_path)
        os.mkfifo(bucket / "pipe")
        put(bucket / "good")

        await happened(place, "+good")
        assert place.state(trigger).problem == ""


def moved_away_and_made_again(folder: Path) -> None:
    folder.rename(folder.parent / "away")
    folder.mkdir()


def parent_replaced(folder: Path) -> None:
    folder.parent.rename(folder.parent.with_name("away"))
    folder.mkdir(parents=True)


def link_replaced(folder: Path) -> None:
    other = folder.parent.with_name("other")
    (other / "photos").mkdir(parents=True)
    folder.parent.rename(folder.parent.with_name("away"))
    folder.parent.symlink_to(other)


def mounted_over(folder: Path) -> None:
    mount("tmpfs", folder)


def unmounted(folder: Path) -> None:
    subprocess.run(["umount", "--lazy", folder], capture_output=True)


def mount(kind: str, folder: Path) -> None:
    made = subprocess.run(["mount", "-t", kind, "functiond-test", folder], capture_output=True)
    if made.returncode:
        pytest.skip("mounting needs the rights of root")


@pytest.mark.parametrize(
    "replace", [moved_away_and_made_again, parent_replaced, link_replaced, mounted_over, unmounted]
)
async def test_another_folder_in_the_place_of_a_watched_one_is_read(
    tmp_path: Path, bucket: Path, replace: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "LOOK", 0.02)
    if replace is unmounted:
        mount("tmpfs", bucket)
    try:
        async with inside(tmp_path, queue__function_rows=2) as place:
            trigger = await watching(place, events=["ObjectCreated"])
            put(bucket / "a")
            put(bucket / "b")
            await happened(place, "+a", "+b")
            put(bucket / "unread")
            await until(lambda: "backlog" in place.state(trigger).problem)
            replace(bucket)
            for name in ("c", "d"):
                put(bucket / name)
            while len(await _told(place)) < 5:
                for key in await place.keys():
                    await place.engine.dispatcher.cancel(key)
                await anyio.sleep(0.01)
            await until(lambda: "has replaced another" in place.state(trigger).problem)

            await happened(place, "+a", "+b", "+unread", "+c", "+d")
            assert place.state(trigger).failures == 0
    finally:
        if replace in (mounted_over, unmounted):
            unmounted(bucket)


async def test_a_folder_that_was_replaced_while_no_engine_ran_is_told(tmp_path: Path, bucket: Path) -> None:
    async with inside(tmp_path) as place:
        trigger = await watching(place)
        put(bucket / "a")
        await happened(place, "+a")
    moved_away_and_made_again(bucket)
    async with inside(tmp_path) as place:
        await until(lambda: "has replaced another" in place.state(trigger).problem)
    async with inside(tmp_path) as place:
        await seen(place, trigger)
        await happened(place, "+a", "-a")

        assert place.state(trigger).problem == ""


async def test_content_of_equal_size_and_time_is_told(tmp_path: Path, bucket: Path) -> None:
    names = [f"{number:02}" for number in range(50)]
    async with inside(tmp_path) as place:
        await watching(place, events=["ObjectCreated"])
        for name in names:
            put(bucket / name, "1")
        await happened(place, *(f"+{name}" for name in names))
        for name in names:
            status = (bucket / name).stat()
            if int(name) % 2:
                (bucket / name).unlink()
            (bucket / name).write_text("2")
            os.utime(bucket / name, ns=(status.st_atime_ns, status.st_mtime_ns))

        await happened(place, *[f"+{name}" for name in names] * 2)


async def test_a_file_counts_when_no_other_change_can_have_its_time(tmp_path: Path, bucket: Path) -> None:
    store = FolderStore(str(bucket.parent))
    put(bucket / "a")
    [stored] = (await store.list("photos")).objects
    (bucket / "a").write_text("")

    assert (await store.find("photos", "a") or stored).changed_at > stored.changed_at


def inotify_instances() -> int:
    return sum("inotify" in os.path.realpath(file) for file in Path("/proc/self/fd").iterdir())


async def test_all_triggers_share_one_inotify_instance(tmp_path: Path, bucket: Path) -> None:
    names = [f"bucket-{number}" for number in range(130)]
    async with inside(tmp_path) as place:
        for name in names:
            (bucket.parent / name).mkdir()
        triggers = [await place.create("OBS", bucket=name, events=["ObjectCreated"]) for name in names]
        other = await place.create("OBS", bucket=names[0], events=["ObjectRemoved"])
        for trigger in (*triggers, other):
            await seen(place, trigger)
        await place.delete(other)
        for name in names:
            put(bucket.parent / name / name)

        await happened(place, *(f"+{name}" for name in names))
        assert inotify_instances() == 1


async def test_events_that_no_look_can_tell_are_refused_aloud(tmp_path: Path, bucket: Path) -> None:
    async with inside(tmp_path) as place:
        trigger = await place.create("OBS", bucket="photos", events=["Copy"])

        await until(lambda: "scan = 0" in place.state(trigger).problem)


@pytest.mark.parametrize("step", range(4))
async def test_no_step_that_fails_costs_or_repeats_an_event(
    tmp_path: Path, bucket: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Fail one write of the snapshot, as if the engine was killed there: before or after events were accepted."""
    written, steps = Snapshot._write, iter(range(1000))

    async def write(snapshot: Snapshot, rows: Any) -> None:
        if next(steps) == step:
            raise OSError("the engine died")
        await written(snapshot, rows)

    async with inside(tmp_path) as place:
        trigger = await watching(place)
        monkeypatch.setattr(Snapshot, "_write", write)
        names = [f"{number:03}" for number in range(250)]
        for name in names:
            put(bucket / name)
        await happened(place, *(f"+{name}" for name in names))
        (bucket / names[0]).unlink()
        await happened(place, *(f"+{name}" for name in names), f"-{names[0]}")

        assert next(steps) > step
        await until(lambda: place.state(trigger).accepted == len(names) + 1)


class Odd(FolderStore):
    """Store whose pages end early and list subfolders first, as some stores do."""

    async def list(self, bucket: str, *, prefix: str = "", after: str = "", limit: int = 1000) -> Listing:
        whole = await super().list(bucket, prefix=prefix)
        ordered = sorted(whole.objects, key=lambda stored: stored.key.replace("/", "\0"))
        there = [stored for stored in ordered if stored.key.replace("/", "\0") > after.replace("/", "\0")]
        return Listing(objects=there[:2], more=len(there) > 2)


async def test_neither_short_pages_nor_another_order_make_events_up(
    tmp_path: Path, bucket: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("plugins.obs.opening.FolderStore", Odd)
    keys = ["a-b", "a.b", "a/b", "a/c/d", "a0", "b-/x", "b/x", "b0", "c"]
    async with inside(tmp_path) as place:
        trigger = await watching(place)
    for key in keys:
        (bucket / key).parent.mkdir(parents=True, exist_ok=True)
        put(bucket / key)
    async with inside(tmp_path) as place:
        await happened(place, *(f"+{key}" for key in keys))
    for key in ("a.b", "c", "a/b"):
        (bucket / key).unlink()
    async with inside(tmp_path) as place:
        await happened(place, *(f"+{key}" for key in keys), "-a.b", "-c", "-a/b")

        assert place.state(trigger).problem == ""


async def test_the_snapshot_of_a_deleted_trigger_goes(tmp_path: Path, bucket: Path) -> None:
    put(bucket / "a")
    async with inside(tmp_path) as place:
        gone, kept = await watching(place, suffix="a"), await watching(place, suffix="b")
        await place.delete(gone)
        parts = place.engine.plugins.of(obs)
        await forget_others(parts, {kept.id})

        assert await parts.store.scan(table_of(gone.id)) == []
        assert [key for key, _ in await parts.store.scan(table_of(kept.id))] == ["a"]


# --- destination --------------------------------------------------------------------------------------------------


async def deliver(place: House, param: ObsParam) -> None:
    await delivering.deliver(place, "OBS", ObsDestination(param), RECORD)


async def test_an_outcome_becomes_a_file_until_its_days_are_over(tmp_path: Path, bucket: Path) -> None:
    clock = ManualClock(1_000_000.0)
    async with inside(tmp_path, clock=clock) as place:
        await deliver(place, ObsParam(bucket="photos", prefix="of", expires=2))
        await deliver(place, ObsParam(bucket="photos"))
        file = bucket / "of" / "id-7.json"
        assert file.read_bytes() == RECORD
        assert len(await place.engine.plugins.of(obs).store.scan("expiring")) == 1
    clock.advance(2 * 86_400 + 1)
    async with inside(tmp_path, clock=clock) as place:
        await until(lambda: not file.exists())
        assert (bucket / "id-7.json").exists()


async def test_an_outcome_stays_while_the_clock_is_in_doubt(
    tmp_path: Path, bucket: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks, delete_due = list[float | None](), Expiry._delete_due

    async def look(own: Expiry, context: PluginContext) -> float | None:
        looks.append(await delete_due(own, context))
        return looks[-1]

    monkeypatch.setattr(delivery, "HOUR", 0.01)
    monkeypatch.setattr(Expiry, "_delete_due", look)
    clock, file = ManualClock(1_000_000.0), bucket / "of" / "id-7.json"
    async with inside(tmp_path, clock=clock) as place:
        await deliver(place, ObsParam(bucket="photos", prefix="of", expires=2))
        clock.advance(3650 * 86_400)
        done = len(looks) + 3
        await until(lambda: len(looks) >= done)
        kept = file.exists()
        await place.engine.clock_guard.accept()
        await until(lambda: not file.exists())

        assert kept


@pytest.mark.parametrize("in_the_way", ["link", "folder", "refusal"])
async def test_an_outcome_that_cannot_be_deleted_keeps_no_other(
    tmp_path: Path, bucket: Path, monkeypatch: pytest.MonkeyPatch, in_the_way: str
) -> None:
    clock, other = ManualClock(1_000_000.0), bucket.parent / "others"
    first, later = bucket / "of" / "id-7.json", other / "of" / "id-7.json"
    async with inside(tmp_path, clock=clock) as place:
        for days, name in enumerate(("photos", "others"), 1):
            await deliver(place, ObsParam(bucket=name, prefix="of", expires=days))
    match in_the_way:
        case "link":
            (bucket / "of").rename(bucket / "moved")
            (bucket / "of").symlink_to(bucket / "moved")
        case "folder":
            first.unlink()
            first.mkdir()
        case "refusal":
            delete = FolderStore.delete
            monkeypatch.setattr(FolderStore, "delete", lambda *place: refuse() if "photos" in place else delete(*place))
    clock.advance(2 * 86_400 + 1)
    async with inside(tmp_path, clock=clock) as place:
        await until(lambda: not later.exists())
        store = place.engine.plugins.of(obs).store
        while len(await store.scan("expiring")) > (in_the_way == "refusal"):  # noqa: ASYNC110  (a table sets no event)
            await anyio.sleep(0.01)


async def refuse() -> None:
    raise StoreRefused("403 AccessDenied")


async def test_an_object_that_the_store_keeps_costs_a_request_an_hour_and_keeps_no_other_of_its_bucket(
    tmp_path: Path, bucket: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, delete = list[str](), FolderStore.delete

    async def deletion(store: FolderStore, bucket: str, key: str) -> None:
        asked.append(key)
        await (refuse() if key == "kept/id-7.json" else delete(store, bucket, key))

    monkeypatch.setattr(FolderStore, "delete", deletion)
    clock = ManualClock(1_000_000.0)
    async with inside(tmp_path, clock=clock) as place:
        parts = place.engine.plugins.of(obs)
        for prefix in ("kept", "other"):
            await deliver(place, ObsParam(bucket="photos", prefix=prefix, expires=1))
            clock.advance(1.0)
        clock.advance(86_400)
        with capture_logs() as logged:
            for _ in range(2):
                assert await parts.service.expiry._delete_due(parts) == delivery.HOUR
                clock.advance(delivery.HOUR)

    assert asked == ["kept/id-7.json", "other/id-7.json", "kept/id-7.json"]
    assert [entry["key"] for entry in logged if entry["event"] == "expired object not deleted"] == [asked[0]] * 2


@pytest.mark.parametrize(
    "param", ['{"bucket":""}', '{"bucket":"b","expires":366}', '{"bucket":"b","expires":-1}', "{}"]
)
def test_a_bad_destination_is_refused(param: str) -> None:
    with pytest.raises(InvalidField):
        Registry([obs]).destination(DestinationSpec(destination="OBS", param=param))


async def test_a_destination_without_a_store_says_what_to_set(tmp_path: Path) -> None:
    async with house(tmp_path, [obs]) as place:
        with pytest.raises(SettingsError, match=r"plugins\.obs\.folder"):
            await deliver(place, ObsParam(bucket="photos"))
