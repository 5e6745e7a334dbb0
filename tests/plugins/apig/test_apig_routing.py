"""Choice of the gateway API that answers a request."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from engine import InvalidField, TriggerContext
from plugins.apig.options import ApigOptions
from plugins.apig.paths import value_between
from plugins.apig.routing import Route, RouteTable, host_of
from tests.support.gateways import API, MANY


class Named(Struct, frozen=True, kw_only=True):
    """Part of a trigger that routing needs."""

    trigger_id: str


class Table:
    def __init__(self, stack: ExitStack) -> None:
        self.routes, self._stack = RouteTable(), stack

    def add(self, trigger_id: str, **options: Any) -> ExitStack:
        """Add a route until its block ends, or else until the test ends."""
        return self._add(trigger_id, msgspec.convert({**API, **options}, ApigOptions))

    def add_unchecked(self, trigger_id: str, path: str) -> ExitStack:
        """Add a route whose path is not validated."""
        options = msgspec.convert(API, ApigOptions)
        msgspec.structs.force_setattr(options, "path", path)
        return self._add(trigger_id, options)

    def _add(self, trigger_id: str, options: ApigOptions) -> ExitStack:
        route = Route(options=options, context=cast(TriggerContext, Named(trigger_id=trigger_id)))
        own = self._stack.enter_context(ExitStack())
        own.enter_context(self.routes.added(route))
        return own

    def ask(self, path: str, method: str = "GET", *, host: str = "127.0.0.1", stage: str = "RELEASE") -> Any:
        """Return the trigger id of the route that answers, and its path parameters; None without such a route."""
        found = self.routes.find(host, stage, method, path)
        return (found.route.context.trigger_id, found.parameters) if found else None


@pytest.fixture
def table() -> Iterator[Table]:
    with ExitStack() as stack:
        yield Table(stack)


def test_a_whole_path_is_answered_as_it_is(table: Table) -> None:
    table.add("a", path="/orders")

    assert table.ask("/orders") == ("a", {})
    assert [table.ask(path) for path in ("/", "/orders/", "/orders/1", "/order", "/orders2")] == [None] * 5


def test_parameters_take_a_segment_each_and_are_decoded(table: Table) -> None:
    table.add("a", path="/shops/{shop}/orders/{number}")

    assert table.ask("/shops/k%C3%B6ln%2F1/orders/7") == ("a", {"shop": "köln/1", "number": "7"})
    assert [table.ask(path) for path in ("/shops/x/orders/", "/shops/x/orders/7/8", "/shops//orders/7")] == [None] * 3


def test_a_parameter_may_be_part_of_a_segment(table: Table) -> None:
    table.add("a", path="/files/cat-{name}.jpg")

    assert table.ask("/files/cat-a.b.jpg") == ("a", {"name": "a.b"})
    assert [table.ask(f"/files/{name}") for name in ("cat-.jpg", "cat-a.png", "dog-a.jpg")] == [None] * 3


@pytest.mark.parametrize("path", ["/{a}/{a}", "/{}", "/{a}{b}", "/{a}.{b}", "/{a/b}"])
def test_parameters_that_could_be_mistaken_are_refused(table: Table, path: str) -> None:
    with pytest.raises(InvalidField):
        table.add("a", path=path)


@pytest.mark.parametrize("path", [MANY, "/%7Ba%7D%7Bb%7D", "/{a%7D%7Bb}", "/{a}%7Bb%7D", "/%7B%7D", "/{a}/{%61}"])
def test_parameters_are_checked_as_they_are_matched_which_is_decoded(table: Table, path: str) -> None:
    with pytest.raises(InvalidField):
        table.add("a", path=path)


def test_a_parameter_may_be_percent_encoded(table: Table) -> None:
    table.add("a", path="/shops/%7Bshop%7D/k%C3%B6ln-{id}%2Fend")
    table.add("b", path="/files/%7Bpath+%7D")

    assert table.ask("/shops/7/k%C3%B6ln-9%2Fend") == ("a", {"shop": "7", "id": "9"})
    assert table.ask("/files/a/b") == ("b", {"path": "a/b"})


def test_a_brace_that_names_no_parameter_is_text(table: Table) -> None:
    table.add("a", path="/a%7Bb/c}")
    table.add("b", path="/x%7B{id}%7D")

    assert table.ask("/a%7Bb/c%7D") == ("a", {})
    assert table.ask("/x%7B7%7D") == ("b", {"id": "7"})


@given(*[st.text("ab\n/", max_size=4)] * 3)
def test_a_value_is_what_a_pattern_would_find(before: str, text: str, after: str) -> None:
    found = re.fullmatch(f"{re.escape(before)}(.+){re.escape(after)}", text, re.DOTALL)

    assert value_between(before, text, after) == (found[1] if found else "")


@pytest.mark.parametrize("letters", [160, 8 << 10])
def test_no_path_of_an_api_is_tried_in_many_ways(table: Table, letters: int) -> None:
    table.add_unchecked("a", MANY)

    assert table.ask("/" + "x" * letters) is None


def test_a_beginning_takes_whole_segments_and_tells_the_rest(table: Table) -> None:
    table.add("a", path="/shop", match_mode="SWA")

    assert table.ask("/shop") == ("a", {})
    assert table.ask("/shop/b/c%20d") == ("a", {"": "b/c d"})
    assert table.ask("/shopping") is None


def test_a_beginning_may_be_the_root(table: Table) -> None:
    table.add("a", path="/", match_mode="SWA")

    assert table.ask("/") == ("a", {})
    assert table.ask("/x/y") == ("a", {"": "x/y"})


def test_a_greedy_parameter_takes_what_is_left_but_not_nothing(table: Table) -> None:
    table.add("a", path="/files/{path+}")

    assert table.ask("/files/a/b.txt") == ("a", {"path": "a/b.txt"})
    assert table.ask("/files") is None
    assert table.ask("/files/") is None


def test_the_more_exact_path_wins_whatever_the_order(table: Table) -> None:
    table.add("all", path="/", match_mode="SWA")
    table.add("begin", path="/orders", match_mode="SWA")
    table.add("parameter", path="/orders/{id}")
    table.add("whole", path="/orders/new")

    paths = ("/orders/new", "/orders/1", "/orders/1/2", "/else")
    assert [table.ask(path)[0] for path in paths] == ["whole", "parameter", "begin", "all"]


def test_a_path_without_the_method_leaves_the_request_to_a_less_exact_one(table: Table) -> None:
    table.add("post", path="/orders/new", req_method="POST")
    table.add("get", path="/orders/{id}", req_method="GET")

    assert table.ask("/orders/new", "POST") == ("post", {})
    assert table.ask("/orders/new", "GET") == ("get", {"id": "new"})
    assert table.ask("/orders/new", "PUT") is None


def test_a_method_by_name_goes_before_any(table: Table) -> None:
    table.add("any", req_method="ANY")
    table.add("put", req_method="PUT")

    assert [table.ask("/orders", method)[0] for method in ("PUT", "GET", "DELETE")] == ["put", "any", "any"]


def test_an_api_with_a_domain_is_found_under_it_only(table: Table) -> None:
    table.add("own", sl_domain="Shop.example.com")
    table.add("general", path="/general")

    assert table.ask("/orders", host="shop.example.com") == ("own", {})
    assert table.ask("/orders") is None
    assert table.ask("/general", host="shop.example.com") == ("general", {})


def test_the_first_label_of_the_host_chooses_between_groups(table: Table) -> None:
    table.add("one", group_id="one")
    table.add("two", group_id="Two")

    hosts = ("one.localhost", "two.localhost", "127.0.0.1", "three.localhost")
    assert [table.ask("/orders", host=host)[0] for host in hosts] == ["one", "two", "one", "one"]


def test_an_environment_has_apis_of_its_own(table: Table) -> None:
    table.add("release")
    table.add("test", env_name="TEST")

    assert [table.ask("/orders", stage=stage) for stage in ("RELEASE", "TEST", "DEV")] == [
        ("release", {}),
        ("test", {}),
        None,
    ]


def test_a_changed_api_takes_over_at_once_and_keeps_its_place(table: Table) -> None:
    old = table.add("one", name="old")
    table.add("two", group_id="other")
    table.add("one", name="new")

    def answering() -> str:
        found = table.routes.find("x", "RELEASE", "GET", "/orders")
        assert found
        return found.route.options.name

    before = answering()
    old.close()
    assert (before, answering()) == ("new", "new")


def test_what_is_gone_leaves_nothing_behind(table: Table) -> None:
    paths = ("/a/{b}/c", "/a", "/a/x-{y}")
    added = [table.add(path, path=path, match_mode=mode) for path in paths for mode in ("SWA", "NORMAL")]

    for one in added:
        one.close()

    assert table.routes._roots == {}


def test_paths_with_many_ways_through_are_found_soon(table: Table) -> None:
    for number in range(16):
        segments = [f"{{a{bit}}}" if number >> bit & 1 else "a" for bit in range(4)]
        table.add(str(number), path="/" + "/".join(segments) + "/end")

    assert table.ask("/" + "a/" * 4 + "end") == ("0", {})
    assert table.ask("/" + "a/" * 5_000) is None


@pytest.mark.parametrize(
    ("header", "host"),
    [("LOCALHOST:80", "localhost"), ("[::1]:80", "[::1]"), ("", ""), ("shop.example.com", "shop.example.com")],
)
def test_a_host_has_no_port(header: str, host: str) -> None:
    assert host_of(header) == host
