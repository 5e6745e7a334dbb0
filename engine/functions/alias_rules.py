"""Validation of aliases, and choice of the version that serves a request to an alias.

The limits are those of FunctionGraph's CreateVersionAlias. An alias has a main version and may have extra versions,
each with rules or a percentage. These versions are tried in order:

1. the first extra version whose rules the request's headers and cookies satisfy;
2. an extra version drawn at random, each with its percentage as probability;
3. the main version.
"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from random import Random

from engine.errors import BadExtraVersion, BadWeight, InvalidField, SameVersion, UnknownVersion
from engine.model import Alias, Rule, Strategy
from engine.model.limits import DESCRIPTION
from engine.model.urn import LATEST

NAME_LENGTH = 64
_ALIAS = re.compile(r"[A-Za-z]([\w.-]*[A-Za-z0-9])?", re.ASCII)
_VERSION = re.compile(r"[A-Za-z0-9]([\w.-]*[A-Za-z0-9])?", re.ASCII)
_TOKEN = re.compile(r"[!#$%&'*+.^`|~\w-]+", re.ASCII)  #: name of a header or a cookie

Headers = Mapping[bytes, bytes]  #: names in lower case


def check_version_name(name: str) -> None:
    if name == LATEST or len(name) > NAME_LENGTH or not _VERSION.fullmatch(name):
        allowed = (
            f"needs up to {NAME_LENGTH} letters, digits, - _ and ., a letter or digit first and last; not {LATEST}"
        )
        raise InvalidField("version", name, allowed)


def check_alias(alias: Alias, versions: Container[str]) -> None:
    """Raise an error for the first invalid part of an alias. ``versions`` are the existing versions of its function.

    Raises UnknownVersion if the main version does not exist; BadExtraVersion if an extra version does not exist;
    SameVersion if an extra version is the main version; BadWeight if a percentage, or the sum of all, is out of range;
    InvalidField for the name, the description or a rule.
    """
    if len(alias.name) > NAME_LENGTH or not _ALIAS.fullmatch(alias.name):
        allowed = f"needs a letter, then letters, digits, - _ and ., up to {NAME_LENGTH}, a letter or digit last"
        raise InvalidField("alias.name", alias.name, allowed)
    if len(alias.description) > DESCRIPTION:
        raise InvalidField("description", alias.description, f"may have {DESCRIPTION} characters")
    if alias.version not in versions:
        raise UnknownVersion(alias.version)
    for version in (*alias.weights, *alias.strategies):
        _check_extra(version, alias, versions)
    _check_weights(alias.weights)
    for version, strategy in alias.strategies.items():
        _check_strategy(version, strategy)


def choose_version(alias: Alias, headers: Headers | None, random: Random) -> str:
    """Return the name of the version that serves a request with these HTTP headers, cookies included."""
    if alias.strategies and headers:
        for version, strategy in alias.strategies.items():
            if _matches(strategy, headers):
                return version
    if alias.weights:
        point = random.random() * 100
        for version, weight in alias.weights.items():
            point -= weight
            if point < 0:
                return version
    return alias.version


def _check_extra(version: str, alias: Alias, versions: Container[str]) -> None:
    if version == alias.version:
        raise SameVersion(version)
    if version not in versions:
        raise BadExtraVersion(version)


def _check_weights(weights: Mapping[str, int]) -> None:
    for version, weight in weights.items():
        if not 0 <= weight <= 100:
            raise BadWeight(version, weight, "must be a percentage, 0 to 100")
    if sum(weights.values()) > 100:
        raise BadWeight("all", sum(weights.values()), "the percentages of extra versions must not exceed 100 together")


def _check_strategy(version: str, strategy: Strategy) -> None:
    field = f"additional_version_strategy.{version}"
    if strategy.combine_type not in ("and", "or"):
        raise InvalidField(f"{field}.combine_type", strategy.combine_type, "must be and, or or")
    if not strategy.rules:
        raise InvalidField(f"{field}.rules", [], "needs at least one rule")
    for rule in strategy.rules:
        # Case is ignored because another cloud of the same vendor writes Header.
        if rule.rule_type.lower() not in ("header", "cookie"):
            raise InvalidField(f"{field}.rule_type", rule.rule_type, "must be header or cookie")
        if rule.op not in ("=", "in"):
            raise InvalidField(f"{field}.op", rule.op, "must be = or in")
        if not _TOKEN.fullmatch(rule.param):
            raise InvalidField(f"{field}.param", rule.param, f"must be the name of a {rule.rule_type}")


def _matches(strategy: Strategy, headers: Headers) -> bool:
    combine = all if strategy.combine_type == "and" else any
    return combine(_satisfied(rule, headers) for rule in strategy.rules)


def _satisfied(rule: Rule, headers: Headers) -> bool:
    if rule.rule_type.lower() == "header":
        value = headers.get(rule.param.lower().encode())
    else:
        value = _cookies(headers).get(rule.param.encode())
    if value is None:
        return False
    text = value.decode("utf-8", "replace").strip()
    if rule.op == "=":
        return text == rule.value
    return text in [part.strip() for part in rule.value.split(",")]


def _cookies(headers: Headers) -> dict[bytes, bytes]:
    pairs = (part.partition(b"=") for part in headers.get(b"cookie", b"").split(b";"))
    return {name.strip(): value.strip().strip(b'"') for name, _, value in pairs}
