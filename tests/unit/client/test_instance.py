"""Arguments and results in instances: the same objects as at the caller, without msgspec."""

from __future__ import annotations

import json
import re
import runpy
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
from functiond.events import decode, decode_result, encode
from msgspec import DecodeError, Meta, Struct

from engine.runtimes.interpreters import WORKERS

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


TIMER = {"version": "v1.0", "time": "2026", "trigger_type": "TIMER", "trigger_name": "from-code", "user_event": ""}


def one(event): ...  # type: ignore[no-untyped-def]
def one_dict(event: dict[str, Any], limit: int = 5) -> None: ...
def one_line(line: Line) -> None: ...
def path_only(path: Path) -> None: ...
def resize(path: Path, width: int = 100) -> None: ...
def limited(limit: int = 5) -> None: ...
def maybe(event: dict[str, Any] | None = None) -> None: ...
def untyped(days=30): ...  # type: ignore[no-untyped-def]
def nothing() -> None: ...
def first(items: list[int]) -> int:
    return next(iter(items))


def f() -> None: ...
def g() -> None: ...
def many(*points: Point, by: int = 1) -> None: ...
def options(**sizes: int) -> None: ...
def unread(event: Unknown) -> None: ...  # type: ignore[name-defined]  # noqa: F821


@pytest.mark.parametrize(
    ("call", "event", "args", "kwargs"),
    [
        (resize, {"args": ["a"], "kwargs": {"width": 5}}, (Path("a"), 5), {}),
        (one, TIMER, (TIMER,), {}),
        (one, {"event": 1}, ({"event": 1},), {}),
        (one_dict, TIMER, (TIMER,), {}),
        (one_dict, {"event": TIMER, "limit": 7}, (TIMER, 7), {}),
        (one_line, {"points": [[1, 2]], "colour": "red"}, (Line([Point(1, 2.0)], Colour.RED),), {}),
        (one_line, {"line": {"points": []}}, (Line([]),), {}),
        (path_only, {"path": "a"}, (Path("a"),), {}),
        (path_only, "a", (Path("a"),), {}),
        (resize, {"path": "a", "width": 5}, (Path("a"), 5), {}),
        (limited, TIMER, (), {}),
        (limited, None, (), {}),
        (limited, {"limit": 7}, (7,), {}),
        (limited, 7, (7,), {}),
        (maybe, TIMER, (TIMER,), {}),
        (untyped, TIMER, (), {}),
        (untyped, {"days": 7}, (7,), {}),
        (nothing, TIMER, (), {}),
        (nothing, [1], (), {}),
        (one, {"trigger_type": "TIMER"}, ({"trigger_type": "TIMER"},), {}),
        (many, [1, 0.5], (Point(1, 0.5),), {}),
        (many, {"by": 3}, (), {"by": 3}),
        (options, {"a": 1}, (), {"a": 1}),
        (unread, TIMER, (TIMER,), {}),
    ],
)
def test_an_event_becomes_the_arguments_that_it_names_or_fits(call: Any, event: Any, args: Any, kwargs: Any) -> None:
    arguments = instance.arguments(call, event)
    assert arguments == (args, kwargs)
    assert [type(value) for value in arguments[0]] == [type(value) for value in args]


@pytest.mark.parametrize(
    ("call", "event", "words"),
    [
        (resize, {"path": {"path": "a"}, "width": 5}, "argument `path` is {'path': 'a'}: {'path': 'a'} is no Path"),
        (resize, {"path": "a", "width": "5"}, "argument `width` is '5': '5' is no int"),
        (resize, {"path": "a", "width": 5.5}, "5.5 is no int"),
        (resize, {"path": "a", "width": True}, "True is no int"),
        (resize, {"path": "a", "width": None}, "None is no int"),
        (resize, {"path": "a", "widht": 5}, "is no Path"),
        (resize, {"args": ["a", "5"], "kwargs": {}}, "'5' is no int"),
        (resize, {"args": [], "kwargs": {}}, "missing a required argument: 'path'"),
        (one_line, {"points": [[1, 2, 3]]}, "[1, 2, 3] is no Point"),
        (one_line, "a", "'a' is no Line"),
        (one_line, {"colour": "red"}, "points"),
        (limited, "a", "'a' is no int"),
        (limited, {"limit": 1, "x": 2}, "is no int"),
        (untyped, {"days": 1, "x": 2}, "unexpected keyword argument 'x'"),
        (options, {"a": "b"}, "'b' is no int"),
    ],
)
def test_an_event_that_does_not_fit_is_refused_with_words(call: Any, event: Any, words: str) -> None:
    with pytest.raises(TypeError, match=re.escape(words)):
        instance.arguments(call, event)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (int | str, 1.5),
        (Literal["a", 1], "b"),
        (dict[str, int], [1]),
        (Mapping[str, int], [1]),
        (tuple[int, str], [1, "a", 2]),
        (list[int], {"a": 1}),
        (datetime, 5),
        (timedelta, 5),
        (bytes, "?"),
        (UUID, 5),
        (float, True),
        (bool, 1),
        (str, None),
        (Options, [1]),
        (Item, {"line": "a"}),
        (Colour, "blue"),
    ],
    ids=str,
)
def test_values_that_the_caller_would_refuse_are_refused_in_instances(kind: Any, value: Any) -> None:
    with pytest.raises((ValueError, DecodeError)):
        decode(json.dumps(value).encode(), kind)
    with pytest.raises((TypeError, ValueError, DecodeError)):
        instance.convert(value, kind)


def test_a_handler_says_what_an_event_must_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = "def resize(path: str, width: int = 100) -> str:\n    return f'{path} is {width} wide'\n"
    (tmp_path / "raw_events.py").write_text(
        f"from functiond.instance import App\napp = App()\n\n@app.function()\n{source}"
    )
    monkeypatch.syspath_prepend(tmp_path)
    handler = instance.handler_of("raw_events:app", "resize")

    assert handler({"path": "a.png", "width": 5}, None) == '"a.png is 5 wide"'
    with pytest.raises(instance.BadArgument) as raised:
        handler({"path": {"path": "a.png"}}, None)
    assert str(raised.value).startswith("resize(path: str, width: int = 100) -> str got {'path': {'path': 'a.png'}}: ")
    assert 'send an object of arguments by name, or {"args": [...], "kwargs": {...}}' in str(raised.value)
    assert raised.value.retryable is False


def test_every_name_can_be_imported_in_instances() -> None:
    for name in functiond.__all__:
        assert getattr(instance, name) is not None

    absent: Any = instance
    client = absent.Client("http://a", token="t")
    with pytest.raises(RuntimeError, match=r"leave Client\.enqueue to programs"):
        client.enqueue("a")
    assert absent.Handle[int]
    assert issubclass(absent.InvocationFailed, Exception)


def test_the_client_is_that_of_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(WORKERS / "client"))

    find = runpy.run_path(instance.__file__)["__getattr__"]
    assert find("Client").__module__ == "functiond_client"
    with pytest.raises(find("ClientError"), match="FUNCTIOND_URL is missing"):
        find("Client")().call("hello")


def test_a_function_of_an_app_only_runs_in_instances() -> None:
    app = instance.App(None)

    @app.function(retries=1, schedule="0 3 * * *")
    def double(n: int) -> int:
        return 2 * n

    assert double(4) == 8
    with pytest.raises(RuntimeError, match=r"double\.enqueue needs an instance"):
        double.enqueue(4)


def test_a_plain_function_that_raises_stop_iteration_fails_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    app = instance.App()
    app.function()(first)
    monkeypatch.setattr(instance, "_app", lambda target: app)

    with pytest.raises(StopIteration) as raised:
        instance.handler_of("tasks:app", "first")([], None)
    assert raised.traceback[-1].name == "first"


class Timers:
    """Timers of functions at an API that refuses schedules with the word ``bad``."""

    def __init__(self) -> None:
        self.by_function: dict[str, dict[str, Any]] = {"f": {}, "g": {}}

    def send(self, method: str, path: str, content: Any = None) -> Any:
        timers = self.by_function[path.split("/")[1]]
        if method == "GET":
            return [{"trigger_type_code": "TIMER", "trigger_id": "1", "event_data": data} for data in timers.values()]
        if method == "DELETE":
            return timers.clear()
        if "bad" in content["event_data"]["schedule"]:
            raise ValueError("bad")
        timers["1"] = content["event_data"]
        return None


def test_a_refused_timer_leaves_the_present_one() -> None:
    api, app = Timers(), instance.App()
    app.function()(f)
    app.function()(g)

    def set_timer(function: str, crontab: str) -> None:
        instance.set_timer(api.send, app.functions, "t", {"function": function, "event": {}}, crontab)

    set_timer("g", "0 3 * * 0-7/2")
    for crontab, error in (("bad", ValueError), ("0 3 * * *", TypeError)):
        with pytest.raises(error):
            set_timer("f" if crontab == "bad" else "of_another_app", crontab)
    assert [data["1"]["schedule"] for data in api.by_function.values() if data] == ["0 0 3 * * 0,2,4,6"]
    set_timer("f", "0 4 * * *")
    assert [*api.by_function["f"], *api.by_function["g"]] == ["1"]
    instance.set_timer(api.send, app.functions, "t", {})
    assert api.by_function == {"f": {}, "g": {}}
