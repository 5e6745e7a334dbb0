"""Pages that create and change an alias of a function, and the action that deletes one."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

from msgspec import to_builtins

from engine.asgi.wire import Reply
from engine.errors import FunctiondError, InvalidField, SameVersion
from engine.functions.catalog import Catalog
from engine.http.api.routing import Call, Handler
from engine.http.console.api_requests import ApiRequests
from engine.http.console.configuration.alias_form import (
    STORED,
    AliasForm,
    body_of,
    errors_in,
    form_of,
    read_form,
)
from engine.http.console.configuration.settings import CHANGED, Setting, digest_of, errors_beside, is_stale
from engine.http.console.configuration.versions import PATH as VERSIONS
from engine.http.console.configuration.versions import TAB
from engine.http.console.forms import WHOLE, Form
from engine.http.console.function_frame import FunctionFrame
from engine.http.console.notes import see_other
from engine.http.console.pages import Action
from engine.http.console.paths import FUNCTION
from engine.http.console.visibility import value_shown
from engine.model import Alias, Function

NEW = "/configuration/new-alias"
ONE = "/configuration/aliases/{alias}"
NAMES = ("name", "version", "description")
_PARTS = {"param": "name", "op": "comparison", "rule_type": "part of the request"}  #: of a rule, as the page has them


class AliasPages:
    def __init__(self, frame: FunctionFrame, api: ApiRequests, catalog: Catalog) -> None:
        self._frame, self._api, self._catalog = frame, api, catalog

    def pages(self) -> Mapping[str, Handler]:
        return {FUNCTION + NEW: self.show_new, FUNCTION + ONE: self.show}

    def actions(self) -> Mapping[str, Action]:
        return {
            FUNCTION + NEW: self.create,
            FUNCTION + ONE: self.save,
            f"{FUNCTION}{ONE}/delete": self.delete,
        }

    async def show_new(self, call: Call) -> Reply:
        function = self._frame.function_of(call)
        newest = self._catalog.versions(function.function_id)[-1].version
        return await self._show(call, function, AliasForm(version=newest), None)

    async def show(self, call: Call) -> Reply:
        function = self._frame.function_of(call)
        alias = self._alias(call, function)
        return await self._show(call, function, form_of(alias), alias)

    async def create(self, call: Call, form: Form) -> Reply:
        function, typed = self._frame.function_of(call), read_form(form)
        return await self._store(call, function, typed, None)

    async def save(self, call: Call, form: Form) -> Reply:
        function = self._frame.function_of(call)
        alias = self._alias(call, function)
        typed = read_form(form, alias.name)
        if is_stale(form, alias):
            return await self._show(call, function, typed, alias, {WHOLE: CHANGED})
        return await self._store(call, function, typed, alias)

    async def delete(self, call: Call, form: Form) -> Reply:
        function = self._frame.function_of(call)
        alias = self._alias(call, function)
        try:
            await self._api.send(call, "DELETE", self._frame.api_path(function, _api_part(alias.name)))
        except FunctiondError as error:
            return await self._show(call, function, form_of(alias), alias, errors_beside(error, ()))
        return see_other(self._frame.page_path(function, VERSIONS), f"Deleted alias {alias.name}.")

    async def _store(self, call: Call, function: Function, typed: AliasForm, alias: Alias | None) -> Reply:
        if wrong := errors_in(typed):
            return await self._show(call, function, typed, alias, wrong)
        body = body_of(typed, alias)
        if alias is not None and body == body_of(form_of(alias), alias):
            return see_other(self._frame.page_path(function, VERSIONS), "Nothing was changed.")
        try:
            if alias is None:
                target = self._frame.api_path(function, "/aliases")
                await self._api.send(call, "POST", target, {"name": typed.name, **body})
            else:
                await self._api.send(call, "PUT", self._frame.api_path(function, _api_part(alias.name)), body)
        except FunctiondError as error:
            return await self._show(call, function, typed, alias, _errors(error))
        done = "Created" if alias is None else "Saved"
        return see_other(self._frame.page_path(function, VERSIONS), f"{done} alias {typed.name}.")

    async def _show(
        self,
        call: Call,
        function: Function,
        values: AliasForm,
        alias: Alias | None,
        errors: Mapping[str, str] | None = None,
    ) -> Reply:
        versions = [one.version for one in self._catalog.versions(function.function_id)]
        return await self._frame.show(
            call,
            "functions/alias.html",
            tab=TAB,
            alias=alias,
            values=value_shown(call, to_builtins(values)),
            choices=[("", "Choose…"), *((one, one) for one in versions)],
            settings={one.name: one for one in _settings(versions)},
            combinations=[("and", "All rules match"), ("or", "Any rule matches")]
            + ([(STORED, "As stored")] if alias is not None and form_of(alias).combine == STORED else []),
            errors=errors or {},
            seen="" if alias is None else digest_of(alias),
        )

    def _alias(self, call: Call, function: Function) -> Alias:
        return self._catalog.alias_of(function.function_id, call.part("alias"))


def _settings(versions: list[str]) -> tuple[Setting, ...]:
    return (
        Setting(name="name", label="Name", help="A letter, then letters, digits, - _ and . It never changes."),
        Setting(
            name="version",
            label="Version",
            kind="choice",
            options=tuple((one, one) for one in versions),
            help="Runs the requests that no further version takes.",
        ),
        Setting(name="description", label="Description", kind="area"),
    )


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
