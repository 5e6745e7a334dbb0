"""Triggers of one function, and the forms that create them: choice of a kind, then its options."""

from __future__ import annotations

from collections.abc import Mapping

from engine.asgi.wire import Reply
from engine.errors import FunctiondError, UnknownTriggerType
from engine.functions.catalog import Catalog
from engine.http.api.paging import page_of
from engine.http.api.routing import Call, Handler
from engine.http.api.triggers import TriggerReply
from engine.http.console.api_requests import ApiRequests
from engine.http.console.forms import Form
from engine.http.console.function_frame import FunctionFrame
from engine.http.console.notes import see_other
from engine.http.console.pages import Action
from engine.http.console.paths import FUNCTION
from engine.http.console.struct_forms import lost_secrets, missing_values, shown_values, typed_values
from engine.http.console.triggers import forms
from engine.http.console.triggers.rows import TriggerRows, page_of_trigger
from engine.model.urn import LATEST
from engine.protocols import Plugin
from engine.resources.bound_trigger import name_of
from engine.resources.triggers import Triggers

TAB = "configuration/triggers"
LIST = f"{FUNCTION}/{TAB}"
NEW = f"{LIST}/new"
ROWS = 100


class FunctionTriggersPages:
    def __init__(
        self,
        frame: FunctionFrame,
        api: ApiRequests,
        catalog: Catalog,
        triggers: Triggers,
        rows: TriggerRows,
        region: str,
    ) -> None:
        self._frame, self._api, self._catalog, self._triggers = frame, api, catalog, triggers
        self._rows, self._region = rows, region

    def pages(self) -> Mapping[str, Handler]:
        return {LIST: self.show, NEW: self.show_new}

    def actions(self) -> Mapping[str, Action]:
        return {NEW: self.create}

    async def show(self, call: Call) -> Reply:
        function = self._frame.function_of(call)
        page = page_of(call, self._triggers.of_function(function.function_id), "limit", maximum=ROWS)
        rows = [self._rows.row(call, trigger) for trigger in page.items]
        return await self._frame.show(call, "functions/triggers.html", tab=TAB, page=page, rows=rows, limit=ROWS)

    async def show_new(self, call: Call) -> Reply:
        """Show the kinds to choose from, or the form of the kind that the query names."""
        self._frame.function_of(call)
        if not call.text("kind"):
            kinds = [self._offer(one, plugin) for one in self._triggers.kinds if (plugin := self._triggers.plugin(one))]
            return await self._frame.show(call, "functions/trigger_kinds.html", tab=TAB, live=False, kinds=kinds)
        kind, plugin = self._kind(call.text("kind"))
        values = shown_values(forms.fields_of_kind(plugin), None)
        active = not plugin.rules.starts_disabled
        return await self._show_form(call, kind, plugin, values=values, qualifier=LATEST, active=active)

    async def create(self, call: Call, form: Form) -> Reply:
        function = self._frame.function_of(call)
        kind, plugin = self._kind(form.text("kind"))
        fields = forms.fields_of_kind(plugin)
        qualifier, active = form.text("qualifier") or LATEST, "active" in form or not plugin.rules.may_disable
        errors: Mapping[str, str] = missing_values(fields, form)
        if not errors:
            status = "ACTIVE" if active else "DISABLED"
            try:
                body = {"trigger_type_code": kind, "event_data": forms.data_of(fields, form), "trigger_status": status}
                reply = await self._api.send(call, "POST", forms.create_path(function, self._region, qualifier), body)
            except FunctiondError as error:
                errors = forms.errors_in_form(kind, fields, error)
            else:
                return self._created(call, reply.read(TriggerReply), active=active)
        values, errors = typed_values(fields, form), {**lost_secrets(fields, form), **errors}
        return await self._show_form(
            call, kind, plugin, values=values, qualifier=qualifier, active=active, errors=errors
        )

    def _created(self, call: Call, reply: TriggerReply, *, active: bool) -> Reply:
        trigger = self._triggers.find(call.project, reply.trigger_id)
        text = "is created." if active else "is created, and disabled."
        return see_other(page_of_trigger(trigger), f"The trigger {name_of(trigger)} {text}")

    async def _show_form(
        self,
        call: Call,
        kind: str,
        plugin: Plugin,
        *,
        values: Mapping[str, str],
        qualifier: str,
        active: bool,
        errors: Mapping[str, str] | None = None,
    ) -> Reply:
        return await self._frame.show(
            call,
            "functions/trigger_new.html",
            tab=TAB,
            kind=self._offer(kind, plugin),
            may_disable=plugin.rules.may_disable,
            fields=forms.fields_of_kind(plugin),
            values=values,
            qualifier=qualifier,
            qualifiers=forms.qualifiers_of(self._catalog, self._frame.function_of(call)),
            active=active,
            errors=errors or {},
        )

    def _offer(self, code: str, plugin: Plugin) -> forms.Kind:
        return forms.kind_of(code, plugin, fixed=self._triggers.is_mode_fixed(code))

    def _kind(self, code: str) -> tuple[str, Plugin]:
        """Return a kind in its plugin's spelling, and its plugin. Raises UnknownTriggerType if there is none such."""
        plugin = self._triggers.plugin(code)
        if plugin is None:
            raise UnknownTriggerType(code, self._triggers.kinds)
        return next(one for one in plugin.kinds if one.upper() == code.upper()), plugin
