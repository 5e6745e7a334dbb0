"""Pages of a function's versions and aliases: the list, on which versions are published, and the form of an alias.

The form has a version, and further versions with a share of the requests, or with rules for them. Rows of shares have
the fields ``w-version`` and ``w-percent``. Rows of rules have ``r-version``, ``r-type``, ``r-param``, ``r-op`` and
``r-value``; all rules of one version make its strategy. Empty rows are none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from msgspec import Struct, to_builtins
from msgspec.structs import replace

from engine.asgi.wire import Reply
from engine.errors import FunctiondError, InvalidField, SameVersion
from engine.functions.catalog import Catalog
from engine.http.api.routing import Call
from engine.http.api.versions import CreateAliasBody, PublishBody
from engine.http.console.configuration.forms import CHANGED, digest_of, errors_beside, is_stale
from engine.http.console.forms import WHOLE, Form
from engine.http.console.functions.frame import FunctionFrame
from engine.http.console.pages import ADMIN, PageFamily, get, post, see_other
from engine.http.console.paths import CONFIGURATION, path_of
from engine.http.console.struct_forms import Choice, fields_of, lines, number_of, one_line
from engine.http.console.visibility import value_shown
from engine.model import Alias, Function, Strategy
from engine.model.urn import LATEST

TAB = "configuration/versions"
PATH = f"/{TAB}"
_PUBLISH = fields_of(PublishBody)
_EMPTY = dict.fromkeys((field.name for field in _PUBLISH), "")
NO_VERSION = "choose a version in each row, or empty the row"
STORED = "stored"  #: choice that keeps how the rules of each version are combined
_SHARE = ("version", "percent")
_RULE = ("version", "type", "param", "op", "value")
_CHOSEN = ("type", "op")  #: fields that have a value in an empty row, too
NAMES = ("name", "version", "description")
_FIELDS = {field.key: field for field in fields_of(CreateAliasBody)}
_PARTS = {"param": "name", "op": "comparison", "rule_type": "part of the request"}  #: of a rule, as the page has them


class VersionsPage(PageFamily):
    def __init__(self, frame: FunctionFrame, catalog: Catalog) -> None:
        self._frame, self._catalog = frame, catalog

    @post("ConsolePublishVersion", f"{CONFIGURATION}/versions")
    async def publish(self, call: Call, form: Form) -> Reply:
        function = self._frame.function_of(call)
        values = {field.name: form.text(field.name) for field in _PUBLISH}
        try:
            reply = await self._frame.send(call, "POST", function, "/versions", values)
        except FunctiondError as error:
            return await self._show(call, values, errors_beside(error, values))
        version = reply.read(dict[str, object])["version"]
        return see_other(path_of(function, PATH), f"Published version {version}.")

    @post("ConsoleDeleteVersion", f"{CONFIGURATION}/versions/delete")
    async def delete(self, call: Call, form: Form) -> Reply:
        function, version = self._frame.function_of(call), form.text("version") or LATEST
        try:
            await self._frame.send(call, "DELETE", function, quote(f":{version}", safe=""))
        except FunctiondError as error:
            return await self._show(call, errors=errors_beside(error, ()))
        return see_other(path_of(function, PATH), f"Deleted version {version}.")

    @get("ConsoleVersions", f"{CONFIGURATION}/versions")
    async def _show(
        self, call: Call, values: Mapping[str, str] = _EMPTY, errors: Mapping[str, str] | None = None
    ) -> Reply:
        function = self._frame.function_of(call)
        latest, *published = self._catalog.versions(function.function_id)
        return await self._frame.show(
            call,
            "functions/versions.html",
            tab=TAB,
            versions=[latest, *reversed(published)],
            aliases=self._catalog.aliases(function.function_id),
            most_versions=self._frame.limits.versions,
            most_aliases=self._frame.limits.aliases,
            settings=_PUBLISH,
            values=values,
            errors=errors or {},
        )


class AliasForm(Struct, frozen=True, kw_only=True):
    """Values of the form, as text."""

    name: str = ""
    version: str = ""
    description: str = ""
    shares: Sequence[Mapping[str, str]] = ()
    rules: Sequence[Mapping[str, str]] = ()
    combine: str = "and"  #: ``and``, ``or``, or ``STORED``


def form_of(alias: Alias) -> AliasForm:
    kinds = {strategy.combine_type for strategy in alias.strategies.values()}
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
    strategies = to_builtins(kept.strategies) if kept else _strategies(typed, stored)
    described = stored is not None and lines(stored.description) == typed.description
    return {
        "version": typed.version,
        "description": stored.description if stored and described else typed.description,
        "additional_version_weights": {share["version"]: number_of(share["percent"]) for share in typed.shares},
        "additional_version_strategy": strategies,
    }


def errors_in(typed: AliasForm) -> dict[str, str]:
    """Return errors of rows, by ``shares`` and ``rules``: rows without a version, and versions with two shares."""
    kinds = {"shares": typed.shares, "rules": typed.rules}
    errors = {name: NO_VERSION for name, rows in kinds.items() if any(not row["version"] for row in rows)}
    versions = [share["version"] for share in typed.shares]
    if twice := next((version for version in versions if version and versions.count(version) > 1), ""):
        errors["shares"] = f"{twice} is given twice; remove one"
    return errors


def _same_rules(one: AliasForm, other: AliasForm) -> bool:
    return (list(one.rules), one.combine) == (list(other.rules), other.combine)


def _strategies(typed: AliasForm, stored: Alias | None) -> dict[str, Any]:
    before: Mapping[str, Strategy] = stored.strategies if stored else {}
    strategies: dict[str, Any] = {}
    for row in typed.rules:
        version = row["version"]
        combine = before.get(version, Strategy()).combine_type if typed.combine == STORED else typed.combine
        strategy = strategies.setdefault(version, {"combine_type": combine, "rules": []})
        rule = {"rule_type": row["type"], "param": row["param"], "op": row["op"], "value": row["value"]}
        strategy["rules"].append(rule)
    return strategies


def _rows(form: Form, prefix: str, names: tuple[str, ...]) -> list[dict[str, str]]:
    rows = form.rows(prefix, names)
    return [row for row in rows if any(text.strip() for name, text in row.items() if name not in _CHOSEN)]


class AliasPages(PageFamily):
    def __init__(self, frame: FunctionFrame, catalog: Catalog) -> None:
        self._frame, self._catalog = frame, catalog

    @get("ConsoleNewAlias", f"{CONFIGURATION}/new-alias", ADMIN)
    async def show_new(self, call: Call) -> Reply:
        function = self._frame.function_of(call)
        newest = self._catalog.versions(function.function_id)[-1].version
        return await self._show(call, function, AliasForm(version=newest), None)

    @get("ConsoleAlias", f"{CONFIGURATION}/aliases/{{alias}}")
    async def show(self, call: Call) -> Reply:
        function = self._frame.function_of(call)
        alias = self._alias(call, function)
        return await self._show(call, function, form_of(alias), alias)

    @post("ConsoleCreateAlias", f"{CONFIGURATION}/new-alias")
    @post("ConsoleSaveAlias", f"{CONFIGURATION}/aliases/{{alias}}")
    async def save(self, call: Call, form: Form) -> Reply:
        """Store a new alias, or the one that the path names."""
        function = self._frame.function_of(call)
        alias = self._alias(call, function) if "alias" in call.parts else None
        typed = read_form(form, alias.name if alias else "")
        if alias is not None and is_stale(form, alias):
            return await self._show(call, function, typed, alias, {WHOLE: CHANGED})
        if wrong := errors_in(typed):
            return await self._show(call, function, typed, alias, wrong)
        body = body_of(typed, alias)
        if alias is not None and body == body_of(form_of(alias), alias):
            return see_other(path_of(function, PATH), "Nothing was changed.")
        try:
            if alias is None:
                await self._frame.send(call, "POST", function, "/aliases", {"name": typed.name, **body})
            else:
                await self._frame.send(call, "PUT", function, _api_part(alias.name), body)
        except FunctiondError as error:
            return await self._show(call, function, typed, alias, _errors(error))
        done = "Created" if alias is None else "Saved"
        return see_other(path_of(function, PATH), f"{done} alias {typed.name}.")

    @post("ConsoleDeleteAlias", f"{CONFIGURATION}/aliases/{{alias}}/delete")
    async def delete(self, call: Call, form: Form) -> Reply:
        function = self._frame.function_of(call)
        alias = self._alias(call, function)
        try:
            await self._frame.send(call, "DELETE", function, _api_part(alias.name))
        except FunctiondError as error:
            return await self._show(call, function, form_of(alias), alias, errors_beside(error, ()))
        return see_other(path_of(function, PATH), f"Deleted alias {alias.name}.")

    async def _show(
        self,
        call: Call,
        function: Function,
        values: AliasForm,
        alias: Alias | None,
        errors: Mapping[str, str] | None = None,
    ) -> Reply:
        versions = [version.version for version in self._catalog.versions(function.function_id)]
        choices = tuple(Choice(value=version, label=version) for version in versions)
        return await self._frame.show(
            call,
            "functions/alias.html",
            tab=TAB,
            alias=alias,
            values=value_shown(call, to_builtins(values)),
            choices=[("", "Choose…"), *((version, version) for version in versions)],
            settings={**_FIELDS, "version": replace(_FIELDS["version"], control="choice", choices=choices)},
            combinations=[("and", "All rules match"), ("or", "Any rule matches")]
            + ([(STORED, "As stored")] if alias is not None and form_of(alias).combine == STORED else []),
            errors=errors or {},
            seen="" if alias is None else digest_of(alias),
        )

    def _alias(self, call: Call, function: Function) -> Alias:
        return self._catalog.alias_of(function.function_id, call.part("alias"))


def _errors(error: FunctiondError) -> Mapping[str, str]:
    """Return the errors by field; those of further versions stand beside their rows."""
    if isinstance(error, InvalidField) and error.field.startswith("additional_version_weights"):
        return {"shares": error.allowed}
    if isinstance(error, InvalidField) and error.field.startswith("additional_version_strategy"):
        part = error.field.rpartition(".")[2]
        return {"rules": f"{_PARTS.get(part, part)}: {error.allowed}"}
    if isinstance(error, SameVersion):
        return {WHOLE: f"Version {error.value} is the alias's own. Choose another one as a further version."}
    return errors_beside(error, NAMES)


def _api_part(alias: str) -> str:
    return f"/aliases/{quote(alias, safe='')}"
