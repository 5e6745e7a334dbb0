"""Model of the disk: the states that it gives for a recording are those that a crash may leave."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from random import Random

import pytest

from bench.proof.disk import SECTOR, Disk, Image, Kind, write_image
from bench.proof.recording import Operation


def operation(position: int, type_: str, path: str = "", **fields: object) -> Operation:
    values = {"target": "", "inode": 0, "offset": 0, "size": 0, "begun": 0, "data": b"", **fields}
    return Operation(position, type_, path, **values)  # type: ignore[arg-type]


def after(operations: Iterable[Operation], kind: Kind, seed: int = 0) -> Image:
    disk = Disk()
    for step in operations:
        disk.apply(step)
    return {
        path: content if content is None else bytes(content) for path, content in disk.image(kind, Random(seed)).items()
    }


CREATED = (operation(1, "C", "a", inode=7), operation(2, "W", inode=7, data=b"text", size=4))
SYNCED = (*CREATED, operation(3, "F", inode=7, begun=2))
NAMED = (*SYNCED, operation(4, "G", begun=3))


@pytest.mark.parametrize(
    ("operations", "strict", "ordered"),
    [(CREATED, {}, {}), (SYNCED, {}, {"a": b"text"}), (NAMED, {"a": b"text"}, {"a": b"text"})],
    ids=["created", "synced", "synced with its folder"],
)
def test_a_file_is_durable_after_its_syncs(operations: list[Operation], strict: Image, ordered: Image) -> None:
    assert after(operations, Kind.ALL) == {"a": b"text"}
    assert after(operations, Kind.STRICT) == strict
    assert after(operations, Kind.ORDERED) == ordered


def test_a_name_without_a_sync_of_its_file_is_an_empty_file() -> None:
    operations = [*CREATED, operation(3, "G", begun=2)]

    assert after(operations, Kind.STRICT) == {"a": b""}


def test_a_write_during_a_sync_is_not_durable() -> None:
    late = operation(3, "W", inode=7, offset=4, data=b" more", size=5)
    operations = [*CREATED, late, operation(4, "F", inode=7, begun=2), operation(5, "G", begun=4)]

    assert after(operations, Kind.ALL) == {"a": b"text more"}
    assert after(operations, Kind.STRICT) == {"a": b"text"}


def test_a_renamed_folder_keeps_its_files() -> None:
    operations = [
        operation(1, "M", "new"),
        operation(2, "C", "new/a", inode=7),
        operation(3, "G", "new", begun=2),
        operation(4, "R", "new", target="old"),
    ]

    assert after(operations, Kind.ALL) == {"old": None, "old/a": b""}
    assert after(operations, Kind.ORDERED) == {"new": None, "new/a": b""}
    assert after([*operations, operation(5, "G", begun=4)], Kind.STRICT) == {"old": None, "old/a": b""}


def test_a_removed_name_stays_until_its_folder_is_synced() -> None:
    removed = [*NAMED, operation(5, "U", "a")]

    assert after(removed, Kind.ALL) == {}
    assert after(removed, Kind.STRICT) == {"a": b"text"}
    assert after([*removed, operation(6, "G", begun=5)], Kind.STRICT) == {}


def test_a_file_shrinks_and_grows() -> None:
    operations = [*NAMED, operation(5, "T", inode=7, size=2), operation(6, "A", inode=7, offset=2, size=2)]

    assert after(operations, Kind.ALL) == {"a": b"te\0\0"}
    assert after(operations, Kind.STRICT) == {"a": b"text"}


def test_unsynced_sectors_are_missing_or_out_of_order() -> None:
    first = operation(5, "W", inode=7, data=b"1" * 4 * SECTOR, size=4 * SECTOR)
    second = operation(6, "W", inode=7, data=b"2" * 4 * SECTOR, size=4 * SECTOR)
    states = {
        bytes(content or b"")
        for seed in range(200)
        for content in [after([*NAMED, first, second], Kind.TORN_STRICT, seed)["a"]]
    }
    sectors = {state[at : at + SECTOR] for state in states for at in range(0, len(state), SECTOR)}

    assert len(states) > 20
    assert {b"1" * SECTOR, b"2" * SECTOR} <= sectors
    assert sectors <= {b"1" * SECTOR, b"2" * SECTOR, b"text", b"text" + bytes(SECTOR - 4), bytes(SECTOR)}


def test_the_state_of_a_seed_is_always_the_same() -> None:
    data = bytes(64 * SECTOR)
    operations = [*NAMED, operation(5, "W", inode=7, data=data, size=len(data))]

    assert after(operations, Kind.TORN_ORDERED, 3) == after(operations, Kind.TORN_ORDERED, 3)


def test_a_state_is_written_with_its_folders(tmp_path: Path) -> None:
    write_image({"b": None, "b/a": b"text"}, tmp_path / "data")

    assert (tmp_path / "data" / "b" / "a").read_bytes() == b"text"
