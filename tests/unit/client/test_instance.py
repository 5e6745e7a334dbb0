"""Arguments and results in instances: the same objects as at the caller, without msgspec."""

from __future__ import annotations

import json
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, Optional, TypedDict, TypeVar
from uuid import UUID

import functiond
import pytest
from functiond import BadResult, instance
from functiond.codec import decode, decode_result, encode
from msgspec import Meta, Struct

T = TypeVar("T")


class Colour(Enum):
    RED = "red"


class Level(IntEnum):
    LOW = 1


class Point(NamedTuple):
    x: int
    y: float = 0.5


@dataclass
class Line:
    points: list[Point]
    colour: Colour | None = None


@dataclass
class Box(Generic[T]):
    content: T
    size: int = field(init=False)

    def __post_init__(self) -> None:
        self.size = 5


class Options(TypedDict, total=False):
    at: datetime


class Item(Struct):
    line: str
    price: Decimal
    file: Path | None = None


UserId = NewType("UserId", int)
AT = datetime(2026, 1, 31, 12, 30, 0, 5, UTC)

VALUES: list[tuple[Any, Any]] = [
    (Any, {"a": [1, None, True, "ü"]}),
    (int, 5),
    (float, 0.1),
    (float, 2.0),
    (bool, True),
    (str, "é\u2028"),
    (None, None),
    (bytes, b"\x00\xff"),
    (datetime, AT),
    (datetime, datetime(2026, 1, 1)),
    (date, date(2026, 1, 31)),
    (time, time(3, 5)),
    (timedelta, timedelta(days=2, seconds=3, microseconds=7)),
    (timedelta, timedelta(seconds=-1.5)),
    (UUID, UUID(int=7)),
    (Decimal, Decimal("0.10")),
    (Path, Path("/a/b")),
    (Colour, Colour.RED),
    (Level, Level.LOW),
    (Literal["a", 1], "a"),
    (UserId, UserId(5)),
    (Annotated[int, Meta(ge=1)], 5),
    (Optional[date], date(2026, 1, 31)),  # noqa: UP045
    (int | None, None),
    (int | str | None, "5"),
    (list[int] | None, [1]),
    (float | list[Path], [Path("a")]),
    (str | list[str], ["a"]),
    (str | Line, Line([])),
    (str | float, 3.0),
    (bool | list[int], [1]),
    (int | UUID, UUID(int=5)),
    (list[str] | dict[str, int], {"a": 1}),
    (typing.List, [1]),  # noqa: UP006
    (typing.Dict, {"a": 1}),  # noqa: UP006
    (Sequence, [1]),
    (list[Path], [Path("a"), Path("b")]),
    (Sequence[date], [date(2026, 1, 31)]),
    (set[UUID], {UUID(int=1)}),
    (frozenset[int], frozenset({1, 2})),
    (tuple[int, str], (1, "a")),
    (tuple[Colour, ...], (Colour.RED,)),
    (dict[str, Point], {"a": Point(1, 2.0)}),
    (dict[int, Colour], {1: Colour.RED}),
    (Mapping[Colour, int], {Colour.RED: 1}),
    (dict[Level, int], {Level.LOW: 1}),
    (Line, Line([Point(1, 2.5)], Colour.RED)),
    (Box[int], Box(7)),
    (Options, {"at": AT}),
    (list[Item], [Item("a", Decimal("1.5"), Path("a"))]),
]


@pytest.mark.parametrize(("kind", "value"), VALUES, ids=str)
def test_values_are_the_same_on_both_sides(kind: Any, value: Any) -> None:
    sent = json.loads(encode(value))
    plain_kind = int if kind == Annotated[int, Meta(ge=1)] else kind  # as get_type_hints returns it
    received = instance.convert(sent, plain_kind)
    assert (received, type(received)) == (value, type(value))

    returned = decode(instance.result_text(value), kind)
    assert (returned, type(returned)) == (value, type(value))


def test_numbers_that_json_cannot_hold_are_null_in_results() -> None:
    assert instance.result_text({"a": [float("nan"), float("-inf")]}) == '{"a": [null, null]}'


def test_a_result_without_a_value_of_its_type_is_refused() -> None:
    with pytest.raises(BadResult, match="no result of r: of queued calls, results of more than 256 KiB are not kept"):
        decode_result("", str, "r")
    with pytest.raises(BadResult, match="return annotation for r cannot be used"):
        decode_result('"a"', int | Path, "r")
    assert decode_result("", dict | None, "r") is None


def test_an_event_of_a_trigger_is_the_argument() -> None:
    def one(event: dict[str, Any]) -> None: ...
    def none(limit: int = 5) -> None: ...

    event = {"trigger_type": "TIMER"}
    assert instance.arguments(one, event) == ((event,), {})
    assert instance.arguments(none, event) == ((), {})
    assert instance.arguments(none, {"args": [7], "kwargs": {}}) == ((7,), {})


def test_every_name_can_be_imported_in_instances() -> None:
    for name in functiond.__all__:
        assert getattr(instance, name) is not None

    absent: Any = instance
    client = absent.Client("http://a", token="t")
    with pytest.raises(RuntimeError, match=r"leave Client\.enqueue to programs"):
        client.enqueue("a")
    assert absent.Handle[int]
    assert issubclass(absent.InvocationFailed, Exception)


def test_a_function_of_an_app_only_runs_in_instances() -> None:
    app = instance.App(None)

    @app.function(retries=1, schedule="0 3 * * *")
    def double(n: int) -> int:
        return 2 * n

    assert double(4) == 8
    with pytest.raises(RuntimeError, match=r"leave double\.enqueue to programs"):
        double.enqueue(4)
