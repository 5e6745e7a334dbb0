"""Form of an alias: its version, and further versions with a share of the requests, or with rules for them.

Rows of shares have the fields ``w-version`` and ``w-percent``. Rows of rules have ``r-version``, ``r-type``,
``r-param``, ``r-op`` and ``r-value``; all rules of one version make its strategy. Empty rows are none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from engine.http.console.configuration.settings import lines, one_line
from engine.http.console.forms import Form, whole_or_text
from engine.model import Alias, Strategy

NO_VERSION = "choose a version in each row, or empty the row"
STORED = "stored"  #: choice that keeps how the rules of each version are combined
_SHARE = ("version", "percent")
_RULE = ("version", "type", "param", "op", "value")
_CHOSEN = ("type", "op")  #: fields that have a value in an empty row, too


class AliasForm(Struct, frozen=True, kw_only=True):
    """Values of the form, as text."""

    name: str = ""
    version: str = ""
    description: str = ""
    shares: Sequence[Mapping[str, str]] = ()
    rules: Sequence[Mapping[str, str]] = ()
    combine: str = "and"  #: ``and``, ``or``, or ``STORED``


def form_of(alias: Alias) -> AliasForm:
    kinds = {one.combine_type for one in alias.strategies.values()}
    return AliasForm(
        name=alias.name,
        version=alias.version,
        description=lines(alias.description),
        shares=[{"version": version, "percent": str(weight)} for version, weight in alias.weights.items()],
        rules=[
            {
                "version": version,
                "type": rule.rule_type.lower(),
                "param": one_line(rule.param),
                "op": rule.op,
                "value": one_line(rule.value),
            }
            for version, strategy in alias.strategies.items()
            for rule in strategy.rules
        ],
        combine=kinds.pop() if len(kinds) == 1 else STORED if kinds else "and",
    )


def read_form(form: Form, name: str = "") -> AliasForm:
    return AliasForm(
        name=name or form.text("name"),
        version=form.text("version"),
        description=form.raw("description"),
        shares=_rows(form, "w-", _SHARE),
        rules=_rows(form, "r-", _RULE),
        combine=form.text("combine", "and"),
    )


def body_of(typed: AliasForm, stored: Alias | None) -> dict[str, Any]:
    """Return the body of a request that stores the alias. Rules that are as ``stored`` are sent as they are."""
    kept = stored if stored is not None and _same_rules(typed, form_of(stored)) else None
    strategies = msgspec.to_builtins(kept.strategies) if kept else _strategies(typed, stored)
    described = stored is not None and lines(stored.description) == typed.description
    return {
        "version": typed.version,
        "description": stored.description if stored and described else typed.description,
        "additional_version_weights": {one["version"]: whole_or_text(one["percent"]) for one in typed.shares},
        "additional_version_strategy": strategies,
    }


def errors_in(typed: AliasForm) -> dict[str, str]:
    """Return errors of rows, by ``shares`` and ``rules``: rows without a version, and versions with two shares."""
    kinds = {"shares": typed.shares, "rules": typed.rules}
    found = {name: NO_VERSION for name, rows in kinds.items() if any(not one["version"] for one in rows)}
    versions = [one["version"] for one in typed.shares]
    if twice := next((one for one in versions if one and versions.count(one) > 1), ""):
        found["shares"] = f"{twice} is given twice; remove one"
    return found


def _same_rules(one: AliasForm, other: AliasForm) -> bool:
    return (list(one.rules), one.combine) == (list(other.rules), other.combine)


def _strategies(typed: AliasForm, stored: Alias | None) -> dict[str, Any]:
    before: Mapping[str, Strategy] = stored.strategies if stored else {}
    found: dict[str, Any] = {}
    for one in typed.rules:
        version = one["version"]
        combine = before.get(version, Strategy()).combine_type if typed.combine == STORED else typed.combine
        strategy = found.setdefault(version, {"combine_type": combine, "rules": []})
        rule = {"rule_type": one["type"], "param": one["param"], "op": one["op"], "value": one["value"]}
        strategy["rules"].append(rule)
    return found


def _rows(form: Form, prefix: str, names: tuple[str, ...]) -> list[dict[str, str]]:
    rows = form.rows(prefix, names)
    return [row for row in rows if any(text.strip() for name, text in row.items() if name not in _CHOSEN)]
