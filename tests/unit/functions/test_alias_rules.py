"""Valid aliases, and the version that an alias chooses for a request."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

import pytest

from engine.errors import BadExtraVersion, BadWeight, InvalidField, SameVersion, UnknownVersion
from engine.functions.alias_rules import check_alias, check_version_name, choose_version
from engine.model import Alias, Rule, Strategy

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
