"""Pages of triggers: those of a project with the states of their sources, those of a function, and one trigger.

A new trigger begins with the choice of a kind, whose options are the form.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.asgi.wire import Reply
from engine.errors import FunctiondError, InvalidField, UnknownTrigger, UnknownTriggerType
from engine.functions.catalog import Catalog
from engine.functions.function_rules import is_http
from engine.http.api.paging import page_of
from engine.http.api.routing import Call, own_urn
from engine.http.api.triggers import TriggerReply
from engine.http.console.forms import WHOLE, Form
from engine.http.console.functions.frame import FunctionFrame
from engine.http.console.pages import ADMIN, PageFamily, Pages, get, post, see_other
from engine.http.console.paths import CONFIGURATION, PROJECT, name_of, path_of
from engine.http.console.struct_forms import lost_secrets, missing_values, shown_values, typed_values
from engine.http.console.triggers import forms
from engine.http.console.visibility import service_shown
from engine.model.crontab import five_fields
from engine.model.urn import LATEST
from engine.protocols import Plugin
from engine.resources.bound_trigger import BoundTrigger
from engine.resources.bound_trigger import name_of as trigger_name
from engine.resources.triggers import Triggers
from engine.triggers.sources import Sources
from engine.triggers.supervisor import RUNNING

TAB = "configuration/triggers"
ROWS = 100
_TRIGGER = f"{CONFIGURATION}/triggers/{{trigger_id}}"
OFFERED = 200  #: functions that the page of a new trigger suggests


class TriggersPage(PageFamily):
    def __init__(
        self, pages: Pages, catalog: Catalog, triggers: Triggers, sources: Sources, rows: forms.TriggerRows, region: str
    ) -> None:
        self._pages, self._catalog, self._triggers, self._sources = pages, catalog, triggers, sources
        self._rows, self._region = rows, region

    @get("ConsoleTriggers", f"{PROJECT}/triggers")
    async def show(self, call: Call) -> Reply:
        name = call.text("function")
        triggers = self._triggers.in_project(call.project)
        if name:
            function = self._catalog.find(own_urn(name, call.project, self._region))
            triggers = [trigger for trigger in triggers if trigger.function_id == function.function_id]
        page = page_of(call, triggers, "limit", maximum=ROWS)
        services = self._sources.statistics().services
        return await self._pages.show(
            call,
            "triggers.html",
            function=name,
            page=page,
            limit=ROWS,
            rows=[self._rows.row(call, trigger) for trigger in page.items],
            services={
                table: service_shown(call, service)
                for table, service in services.items()
                if service.state != RUNNING or service.problem
            },
        )

    @get("ConsoleNewTriggerFunction", f"{PROJECT}/triggers/new", ADMIN)
    async def show_new(self, call: Call) -> Reply:
        """Show the page that asks for the function of a new trigger."""
        return await self._show_new(call, call.text("function"), {})

    @post("ConsoleChooseTriggerFunction", f"{PROJECT}/triggers/new")
    async def choose(self, call: Call, form: Form) -> Reply:
        name = form.text("function")
        try:
            function = self._catalog.find(own_urn(name, call.project, self._region))
        except FunctiondError as error:
            problem = error.allowed if isinstance(error, InvalidField) else str(error)
            problem = problem if name else "Enter the name of a function."
            return await self._show_new(call, name, {"function": problem})
        return see_other(path_of(function, "/configuration/triggers/new"))

    async def _show_new(self, call: Call, name: str, errors: Mapping[str, str]) -> Reply:
        functions = self._catalog.list(call.project)[:OFFERED]
        return await self._pages.show(
            call,
            "triggers/function.html",
            function=name,
            functions=[name_of(function) for function in functions],
            errors=errors,
        )


class FunctionTriggersPages(PageFamily):
    def __init__(self, frame: FunctionFrame, triggers: Triggers, rows: forms.TriggerRows) -> None:
        self._frame, self._triggers, self._rows = frame, triggers, rows

    @get("ConsoleFunctionTriggers", f"{CONFIGURATION}/triggers")
    async def show(self, call: Call) -> Reply:
        function = self._frame.function_of(call)
        page = page_of(call, self._triggers.of_function(function.function_id), "limit", maximum=ROWS)
        rows = [self._rows.row(call, trigger) for trigger in page.items]
        return await self._frame.show(call, "functions/triggers.html", tab=TAB, page=page, rows=rows, limit=ROWS)

    @get("ConsoleNewTrigger", f"{CONFIGURATION}/triggers/new", ADMIN)
    async def show_new(self, call: Call) -> Reply:
        """Show the kinds to choose from, or the form of the kind that the query names."""
        function = self._frame.function_of(call)
        if not call.text("kind"):
            kinds = [
                self._offer(kind, plugin) for kind in self._triggers.kinds if (plugin := self._triggers.plugin(kind))
            ]
            return await self._frame.show(call, "functions/trigger_kinds.html", tab=TAB, live=False, kinds=kinds)
        kind, plugin = self._kind(call.text("kind"))
        values = shown_values(forms.fields_of_kind(plugin), None)
        if is_http(function):
            values[f"{forms.PREFIX}match_mode"] = "SWA"
        if call.principal is None:  # IAM would answer nobody: there are no credentials
            values[f"{forms.PREFIX}auth"] = "NONE"
        active = not plugin.rules.starts_disabled
        return await self._show_form(call, kind, plugin, {}, values=values, qualifier=LATEST, active=active)

    @post("ConsoleCreateTrigger", f"{CONFIGURATION}/triggers/new")
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
                reply = await self._frame.api.send(
                    call, "POST", forms.create_path(function, self._frame.region, qualifier), body
                )
            except FunctiondError as error:
                errors = forms.errors_in_form(kind, fields, error)
            else:
                trigger = self._triggers.find(call.project, reply.read(TriggerReply).trigger_id)
                text = "is created." if active else "is created, and disabled."
                return see_other(forms.page_of_trigger(trigger), f"The trigger {trigger_name(trigger)} {text}")
        values, errors = typed_values(fields, form), {**lost_secrets(fields, form), **errors}
        return await self._show_form(call, kind, plugin, errors, values=values, qualifier=qualifier, active=active)

    async def _show_form(self, call: Call, kind: str, plugin: Plugin, errors: Mapping[str, str], **shown: Any) -> Reply:
        return await self._frame.show(
            call,
            "functions/trigger_new.html",
            tab=TAB,
            kind=self._offer(kind, plugin),
            may_disable=plugin.rules.may_disable,
            fields=forms.fields_of_kind(plugin),
            qualifiers=self._frame.qualifiers(call, LATEST),
            errors=errors,
            **shown,
        )

    def _offer(self, code: str, plugin: Plugin) -> forms.Kind:
        return forms.kind_of(code, plugin, fixed=self._triggers.is_mode_fixed(code))

    def _kind(self, code: str) -> tuple[str, Plugin]:
        """Return a kind in its plugin's spelling, and its plugin. Raises UnknownTriggerType if there is none such."""
        plugin = self._triggers.plugin(code)
        if plugin is None:
            raise UnknownTriggerType(code, self._triggers.kinds)
        return next(kind for kind in plugin.kinds if kind.upper() == code.upper()), plugin

    @get("ConsoleTrigger", _TRIGGER)
    async def show_trigger(self, call: Call) -> Reply:
        trigger = self._trigger(call)
        path = forms.page_of_trigger(trigger)
        if path != call.path and path.find("/gateways/") > 0:
            return see_other(path)
        return await self._show_trigger(call, trigger, None, {})

    @post("ConsoleSaveTrigger", _TRIGGER)
    async def save(self, call: Call, form: Form) -> Reply:
        trigger = self._trigger(call)
        fields, old = forms.fields_of_kind(trigger.plugin), trigger.given
        errors: Mapping[str, str] = missing_values(fields, form, old)
        if form.text("generation") != str(trigger.stored.generation):
            errors = {WHOLE: forms.CHANGED}
        if not errors:
            try:
                if (data := forms.data_of(fields, form, old)) == old:
                    return see_other(forms.page_of_trigger(trigger), "Nothing was changed.")
                await self._frame.api.send(call, "PUT", forms.trigger_path(trigger), {"event_data": data})
            except FunctiondError as error:
                errors = forms.errors_in_form(trigger.kind, fields, error)
            else:
                return see_other(forms.page_of_trigger(trigger), "Saved.")
        errors = {**lost_secrets(fields, form), **errors}
        return await self._show_trigger(call, trigger, typed_values(fields, form, old), errors)

    @post("ConsoleEnableTrigger", f"{_TRIGGER}/enable", status="ACTIVE", word="enabled")
    @post("ConsoleDisableTrigger", f"{_TRIGGER}/disable", status="DISABLED", word="disabled")
    async def set_status(self, call: Call, form: Form, status: str, word: str) -> Reply:
        trigger = self._trigger(call)
        await self._frame.api.send(call, "PUT", forms.trigger_path(trigger), {"trigger_status": status})
        return see_other(forms.page_of_trigger(trigger), f"The trigger is {word}.")

    @post("ConsoleDeleteTrigger", f"{_TRIGGER}/delete")
    async def delete(self, call: Call, form: Form) -> Reply:
        trigger = self._trigger(call)
        name = trigger_name(trigger)
        await self._frame.api.send(call, "DELETE", forms.trigger_path(trigger))
        return see_other(f"{forms.page_of_function(trigger)}/{TAB}", f"The trigger {name} is deleted.")

    def _trigger(self, call: Call) -> BoundTrigger:
        """Return the trigger that the path names. Raises UnknownTrigger unless it is one of the path's function."""
        trigger = self._triggers.find(call.project, call.part("trigger_id"))
        if trigger.function_id != self._frame.function_of(call).function_id:
            raise UnknownTrigger(trigger.kind, trigger.id)
        return trigger

    async def _show_trigger(
        self, call: Call, trigger: BoundTrigger, values: Mapping[str, str] | None, errors: Mapping[str, str]
    ) -> Reply:
        plugin, row = trigger.plugin, self._rows.row(call, trigger)
        fields = forms.fields_of_kind(plugin) if plugin.options is not None else ()
        data: dict[str, Any] = row.shown.event_data
        return await self._frame.show(
            call,
            "functions/trigger.html",
            tab=TAB,
            live=not errors,  # the form is kept
            row=row,
            kind=forms.kind_of(trigger.kind, plugin, fixed=trigger.mode_fixed),
            may_disable=plugin.rules.may_disable,
            warning=five_fields(data),
            generation=trigger.stored.generation,
            fields=fields,
            values=shown_values(fields, trigger.given) if values is None else values,
            data=data,
            errors=errors,
        )
