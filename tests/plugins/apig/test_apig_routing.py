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
from plugins.apig.routing import Route, RouteTable, collision, host_of
from tests.support.gateways import API, MANY


class Named(Struct, kw_only=True):
    """Part of a trigger that routing needs."""

    trigger_id: str
    project: str = "p"
    claimed: float = 0.0
    problem: str = ""
    block: ExitStack = msgspec.field(default_factory=ExitStack)

    def report_problem(self, problem: str) -> None:
        self.problem = problem


class Table:
    def __init__(self, stack: ExitStack) -> None:
        self.routes, self._stack = RouteTable({"", "gateway.example.com"}), stack

    def add_of(self, project: str, claimed: float, **options: Any) -> Named:
        """Add a route of a project, which has claimed it at this time."""
        named = Named(trigger_id=f"{project}{claimed:g}", project=project, claimed=claimed)
        named.block = self._add(named, options)
        return named

    def add(self, trigger_id: str, **options: Any) -> ExitStack:
        """Add a route until its block ends, or else until the test ends."""
        return self._add(Named(trigger_id=trigger_id), options)

    def _add(self, named: Named, options: dict[str, Any]) -> ExitStack:
        own, given = self._stack.enter_context(ExitStack()), msgspec.convert({**API, **options}, ApigOptions)
        own.enter_context(self.routes.added(Route(options=given, context=cast(TriggerContext, named))))
        return own

    def ask(self, path: str, method: str = "GET", *, host: str = "127.0.0.1", stage: str = "RELEASE") -> Any:
        """Return the trigger id of the route that answers, and its path parameters; None without such a route."""
        matched = self.routes.find(host, stage, method, path)
        return (matched.route.context.trigger_id, matched.parameters) if matched else None


@pytest.fixture
def table() -> Iterator[Table]:
    with ExitStack() as stack:
        yield Table(stack)


#: Paths of APIs by name, in short; or all their options.
Apis = dict[str, str | dict[str, str]]

ROUTES: dict[str, tuple[Apis, dict[str, Any]]] = {
    "a whole path": (
        {"a": "/orders"},
        {"/orders": ("a", {}), **dict.fromkeys(("/", "/orders/", "/orders/1", "/order", "/orders2"))},
    ),
    "parameters are segments, and are decoded": (
        {"a": "/shops/{shop}/orders/{number}"},
        {
            "/shops/k%C3%B6ln%2F1/orders/7": ("a", {"shop": "köln/1", "number": "7"}),
            **dict.fromkeys(("/shops/x/orders/", "/shops/x/orders/7/8", "/shops//orders/7")),
        },
    ),
    "a parameter is part of a segment": (
        {"a": "/files/cat-{name}.jpg"},
        {
            "/files/cat-a.b.jpg": ("a", {"name": "a.b"}),
            **dict.fromkeys(("/files/cat-.jpg", "/files/cat-a.png", "/files/dog-a.jpg")),
        },
    ),
    "parameters are percent-encoded": (
        {"a": "/shops/%7Bshop%7D/k%C3%B6ln-{id}%2Fend", "b": "/files/%7Bpath+%7D"},
        {"/shops/7/k%C3%B6ln-9%2Fend": ("a", {"shop": "7", "id": "9"}), "/files/a/b": ("b", {"path": "a/b"})},
    ),
    "a brace that names no parameter is text": (
        {"a": "/a%7Bb/c}", "b": "/x%7B{id}%7D"},
        {"/a%7Bb/c%7D": ("a", {}), "/x%7B7%7D": ("b", {"id": "7"})},
    ),
    "a beginning takes whole segments": (
        {"a": {"path": "/shop", "match_mode": "SWA"}},
        {"/shop": ("a", {}), "/shop/b/c%20d": ("a", {"": "b/c d"}), "/shopping": None},
    ),
    "a beginning is the root": (
        {"a": {"path": "/", "match_mode": "SWA"}},
        {"/": ("a", {}), "/x/y": ("a", {"": "x/y"})},
    ),
    "a greedy parameter takes the rest, but not nothing": (
        {"a": "/files/{path+}"},
        {"/files/a/b.txt": ("a", {"path": "a/b.txt"}), "/files": None, "/files/": None},
    ),
    "the more exact path wins": (
        {
            "all": {"path": "/", "match_mode": "SWA"},
            "begin": {"path": "/orders", "match_mode": "SWA"},
            "parameter": "/orders/{id}",
            "whole": "/orders/new",
        },
        {
            "/orders/new": ("whole", {}),
            "/orders/1": ("parameter", {"id": "1"}),
            "/orders/1/2": ("begin", {"": "1/2"}),
            "/else": ("all", {"": "else"}),
        },
    ),
    "a path without the method leaves the request to a less exact one": (
        {"post": {"path": "/orders/new", "req_method": "POST"}, "get": {"path": "/orders/{id}", "req_method": "GET"}},
        {"POST /orders/new": ("post", {}), "/orders/new": ("get", {"id": "new"}), "PUT /orders/new": None},
    ),
    "a method by name goes before any": (
        {"any": {"req_method": "ANY"}, "put": {"req_method": "PUT"}},
        {"PUT /orders": ("put", {}), "/orders": ("any", {}), "DELETE /orders": ("any", {})},
    ),
}


@pytest.mark.parametrize(("apis", "answers"), ROUTES.values(), ids=ROUTES)
def test_a_request_is_answered_by_the_api_that_fits_best(table: Table, apis: Apis, answers: dict[str, Any]) -> None:
    for name, options in apis.items():
        table.add(name, **({"path": options} if isinstance(options, str) else options))

    asked = {request: request.rpartition(" ")[::2] for request in answers}
    assert {request: table.ask(path, *filter(None, [method])) for request, (method, path) in asked.items()} == answers


@pytest.mark.parametrize(
    "path",
    [
        *("/{a}/{a}", "/{}", "/{a}{b}", "/{a}.{b}", "/{a/b}"),
        *(MANY, "/%7Ba%7D%7Bb%7D", "/{a%7D%7Bb}", "/{a}%7Bb%7D", "/%7B%7D", "/{a}/{%61}"),
    ],
)
def test_parameters_that_could_be_mistaken_once_they_are_decoded_are_refused(table: Table, path: str) -> None:
    with pytest.raises(InvalidField):
        table.add("a", path=path)


@given(*[st.text("ab\n/", max_size=4)] * 3)
def test_a_value_is_what_a_pattern_would_find(before: str, text: str, after: str) -> None:
    match = re.fullmatch(f"{re.escape(before)}(.+){re.escape(after)}", text, re.DOTALL)

    assert value_between(before, text, after) == (match[1] if match else "")


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
        matched = table.routes.find("x", "RELEASE", "GET", "/orders")
        assert matched
        return matched.route.options.name

    before = answering()
    old.close()
    assert (before, answering()) == ("new", "new")


def test_what_is_gone_leaves_nothing_behind(table: Table) -> None:
    paths = ("/a/{b}/c", "/a", "/a/x-{y}")
    added = [table.add(path, path=path, match_mode=mode) for path in paths for mode in ("SWA", "NORMAL")]

    for route in added:
        route.close()

    own = {name: value for name, value in vars(table.routes).items() if name != "_own_hosts"}
    assert not any(own.values()), own


def test_paths_with_many_ways_through_are_found_soon(table: Table) -> None:
    for number in range(16):
        segments = [f"{{a{bit}}}" if number >> bit & 1 else "a" for bit in range(4)]
        table.add(str(number), path="/" + "/".join(segments) + "/end")

    assert table.ask("/" + "a/" * 4 + "end") == ("0", {})
    assert table.ask("/" + "a/" * 5_000) is None


@pytest.mark.parametrize(
    ("header", "host"),
    [("LOCALHOST:80", "localhost"), ("[::1]:80", "[::1]"), ("", ""), ("shop.example.com.", "shop.example.com")],
)
def test_a_host_has_no_port(header: str, host: str) -> None:
    assert host_of(header) == host


def collides(mine: dict[str, Any], other: dict[str, Any]) -> bool:
    return bool(collision(*(msgspec.convert({**API, **options}, ApigOptions) for options in (mine, other))))


PAY = {"path": "/pay/{id}", "req_method": "GET"}


@pytest.mark.parametrize(
    "mine",
    [
        {"path": "/pay/7"},
        {"path": "/p%61y/7", "req_method": "GET"},
        {"path": "/{any}/7"},
        {"path": "/pay/a-{x}.jpg"},
        {"path": "/{any+}"},
        {"path": "/pay/{any+}"},
        {"path": "/", "match_mode": "SWA"},
        {"path": "/pay/7", "match_mode": "SWA"},
        {"path": "/pay/7", "req_method": "HEAD"},
        {"path": "/pay/7", "sl_domain": "gateway.example.com"},
        {"path": "/pay/7", "sl_domain": "."},
        {"path": "/pay/7", "group_id": "gateway"},
    ],
)
def test_an_api_collides_with_one_of_which_it_would_get_requests(mine: dict[str, Any]) -> None:
    assert collides(mine, PAY)


@pytest.mark.parametrize(
    "mine",
    [
        {"path": "/pay"},
        {"path": "/PAY/7"},
        {"path": "/pay%2F7"},
        {"path": "/pay/7/8"},
        {"path": "/pay/7/{any+}"},
        {"path": "/refunds", "match_mode": "SWA"},
        {"path": "/pay/7", "req_method": "POST"},
        {"path": "/pay/7", "req_method": "OPTIONS"},
        {"path": "/pay/7", "env_name": "TEST"},
    ],
)
def test_an_api_does_not_collide_with_one_for_other_requests(mine: dict[str, Any]) -> None:
    assert not collides(mine, PAY)
    assert not collides({"sl_domain": "a.example.com"}, {"sl_domain": "b.example.com"})
    assert not collides({}, {"sl_domain": "a.example.com"})  # it is not found under a domain of another project


def test_a_domain_collides_whatever_the_path_and_answers_to_preflights_do_too() -> None:
    assert collides({"sl_domain": "A.example.com.", "path": "/x"}, {"sl_domain": "a.example.com", "env_name": "TEST"})
    assert collides({"req_method": "OPTIONS"}, {"req_method": "GET", "cors": True})


TEXTS = ["a", "b", "", "{}", "a{}", "{}b"]
SEGMENTS = st.tuples(st.sampled_from(TEXTS), st.sampled_from(["", *(f"/{text}" for text in TEXTS)]))
APIS = st.tuples(SEGMENTS, st.sampled_from([{"match_mode": "SWA"}, {"match_mode": "NORMAL"}, {"path": "/{rest+}"}]))
REQUESTS = st.lists(st.sampled_from(["a", "b", "", "ab", "axb"]), min_size=1, max_size=3).map("/".join)


@given(APIS, APIS, REQUESTS)
def test_apis_that_answer_the_same_request_collide(one: Any, other: Any, request: str) -> None:
    apis = []
    for (first, second), api in (one, other):
        path = first.replace("{}", "{x}") + second.replace("{}", "{y}")
        apis.append({**api, "path": f"/{path}{api.get('path', '')}"})
    with ExitStack() as stack:
        for api in apis:
            table = Table(stack)
            table.add("a", **api)
            if table.ask(f"/{request}") is None:
                return

    assert collides(*apis)


@pytest.mark.parametrize("host", ["x.example.com", "gateway.example.com", "shop.example.com", "127.0.0.1"])
@pytest.mark.parametrize(
    "mine", [{}, {"sl_domain": "gateway.example.com"}, {"group_id": "gateway"}, {"group_id": "127"}]
)
def test_the_first_of_two_projects_that_claim_a_request_gets_it(table: Table, mine: dict[str, Any], host: str) -> None:
    late = table.add_of("late", 2, **mine, path="/pay/7")
    first = table.add_of("first", 1, path="/pay/{id}", req_method="GET")

    answers = table.ask("/pay/7", host=host), table.ask("/pay/7", "HEAD", host=host)
    assert [answer[0] for answer in answers] == ["first1", "first1"]
    assert (late.problem.partition(":")[0], first.problem) == (
        "requests to this path belong to an API of another project",
        "",
    )

    first.block.close()
    under = "" if mine.get("sl_domain") not in (None, host) else "late2"
    assert ((table.ask("/pay/7", host=host) or [""])[0], late.problem) == (under, "")


def test_under_a_domain_that_a_project_has_claimed_others_answer_nothing_later(table: Table) -> None:
    table.add_of("early", 1, path="/early")
    table.add_of("owner", 2, path="/orders", sl_domain="pay.example.com")
    table.add_of("late", 3, path="/{any+}")
    table.add_of("thief", 4, path="/more", sl_domain="pay.example.com")
    table.add_of("owner", 5, path="/own")

    hosts = ("pay.example.com", "other.example.com")
    answers = {path: [table.ask(f"/{path}", host=host) for host in hosts] for path in ("early", "own", "more", "x")}
    assert {path: [answer and answer[0] for answer in own] for path, own in answers.items()} == {
        "early": ["early1", "early1"],
        "own": ["owner5", "late3"],
        "more": [None, "late3"],
        "x": [None, "late3"],
    }


def test_no_project_gets_the_host_of_the_gateway_for_itself(table: Table) -> None:
    for host in ("gateway.example.com", "127.0.0.1"):
        table.add_of("first", 1, path=f"/{host}", sl_domain=host)
        table.add_of("second", 2, path="/orders")

        assert table.ask("/orders", host=host)[0] == "second2"


def test_gateways_serve_no_path_of_the_console(table: Table) -> None:
    table.add("a", path="/", match_mode="SWA")

    assert [table.ask(path) for path in ("/console", "/console/", "/%63onsole/x", "/console/x")] == [None] * 4
    assert table.ask("/consoles/x") is not None
    with pytest.raises(InvalidField, match="/console"):
        table.add("b", path="/c%6Fnsole/x")
