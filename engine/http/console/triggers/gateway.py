"""Page of an API of a gateway, and the steps that edit it: basic information, request, backend.

Each step is a page of one form. Fields of the other steps are hidden in it, so nothing that was typed is lost, and
nothing is changed before the last step.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from engine.asgi.wire import Reply
from engine.errors import FunctiondError, UnknownTrigger
from engine.http.api.routing import Call
from engine.http.console.api_requests import ApiRequests
from engine.http.console.forms import WHOLE, Form
from engine.http.console.pages import ADMIN, PageFamily, Pages, get, post, see_other
from engine.http.console.paths import GATEWAY
from engine.http.console.struct_forms import Field, flat, missing_values, shown_values, typed_values
from engine.http.console.triggers import forms
from engine.resources.bound_trigger import BoundTrigger
from engine.resources.trigger_rules import read_options
from engine.resources.triggers import Triggers

REQUEST = ("protocol", "req_method", "path", "match_mode", "sl_domain", "auth", "cors")


class Step(Struct, frozen=True, kw_only=True):
    number: int  #: from 1
    title: str
    fields: tuple[Field, ...]


class GatewayPages(PageFamily):
    def __init__(self, pages: Pages, api: ApiRequests, triggers: Triggers, rows: forms.TriggerRows) -> None:
        self._pages, self._api, self._triggers, self._rows = pages, api, triggers, rows

    @get("ConsoleGateway", GATEWAY)
    async def show(self, call: Call) -> Reply:
        trigger = self._trigger(call)
        row = self._rows.row(call, trigger)
        fields = forms.fields_of_kind(trigger.plugin)
        return await self._pages.show(
            call, "triggers/gateway.html", row=row, steps=_steps(fields), texts=_texts(fields, trigger.given)
        )

    @get("ConsoleEditGateway", f"{GATEWAY}/edit", ADMIN)
    async def edit(self, call: Call) -> Reply:
        trigger = self._trigger(call)
        values = shown_values(forms.fields_of_kind(trigger.plugin), trigger.given)
        return await self._show_step(call, trigger, 1, values, {})

    @post("ConsoleSaveGateway", f"{GATEWAY}/edit")
    async def proceed(self, call: Call, form: Form) -> Reply:
        """Go to the next step or back, or save the API after the last one."""
        trigger = self._trigger(call)
        fields, old = forms.fields_of_kind(trigger.plugin), trigger.given
        steps, values = _steps(fields), typed_values(fields, form, old)
        number = next((step.number for step in steps if str(step.number) == form.text("step")), 1)
        if form.text("go") == "back":
            return await self._show_step(call, trigger, max(number - 1, 1), values, {})
        if form.text("generation") != str(trigger.stored.generation):
            return await self._show_step(call, trigger, number, values, {WHOLE: forms.CHANGED})
        for step in steps[:number]:
            if errors := _errors_until(trigger, steps[: step.number], form):
                return await self._show_step(call, trigger, step.number, values, errors)
        if number < len(steps):
            return await self._show_step(call, trigger, number + 1, values, {})
        return await self._save(call, trigger, form)

    async def _save(self, call: Call, trigger: BoundTrigger, form: Form) -> Reply:
        fields, old = forms.fields_of_kind(trigger.plugin), trigger.given
        data = forms.data_of(fields, form, old)
        if data == old:
            return see_other(forms.page_of_trigger(trigger), "Nothing was changed.")
        try:
            await self._api.send(call, "PUT", forms.trigger_path(trigger), {"event_data": data})
        except FunctiondError as error:
            errors, steps = forms.errors_in_form(trigger.kind, fields, error), _steps(fields)
            wrong = (step.number for step in steps if any(field.name in errors for field in flat(step.fields)))
            values = typed_values(fields, form, old)
            return await self._show_step(call, trigger, next(wrong, len(steps)), values, errors)
        return see_other(forms.page_of_trigger(trigger), "Saved. The next request uses these settings.")

    def _trigger(self, call: Call) -> BoundTrigger:
        """Return the API that the path names. Raises UnknownTrigger if there is none such."""
        trigger = self._triggers.find(call.project, call.part("gateway_id"))
        if not forms.is_gateway(trigger.plugin) or trigger.options is None:
            raise UnknownTrigger(trigger.kind, trigger.id)
        return trigger

    async def _show_step(
        self, call: Call, trigger: BoundTrigger, number: int, values: Mapping[str, str], errors: Mapping[str, str]
    ) -> Reply:
        steps = _steps(forms.fields_of_kind(trigger.plugin))
        others = [field for step in steps if step.number != number for field in flat(step.fields)]
        # A flag that is not set is left out, as a browser leaves out an unchecked box.
        hidden = {
            other.name: values[other.name]
            for other in others
            if other.control != "flag" or values[other.name] == "true"
        }
        return await self._pages.show(
            call,
            "triggers/gateway_edit.html",
            row=self._rows.row(call, trigger),
            steps=steps,
            step=steps[number - 1],
            hidden=hidden,
            generation=trigger.stored.generation,
            values=values,
            errors=errors,
        )


def _steps(fields: tuple[Field, ...]) -> tuple[Step, ...]:
    by_key = {field.key: field for field in fields}
    backend = by_key.pop(forms.BACKEND)
    request = tuple(by_key.pop(key) for key in REQUEST if key in by_key)
    return (
        Step(number=1, title="Set Basic Information", fields=tuple(by_key.values())),
        Step(number=2, title="Define API Request", fields=request),
        Step(number=3, title="Define Backend Request", fields=backend.fields),
    )


def _errors_until(trigger: BoundTrigger, steps: tuple[Step, ...], form: Form) -> Mapping[str, str]:
    """Return the errors of the fields of the last of ``steps``, whose earlier ones are valid.

    The fields of later steps count as unchanged.
    """
    *_, last = steps
    if missing := missing_values(last.fields, form, trigger.given):
        return missing
    fields = forms.fields_of_kind(trigger.plugin)
    names = {field.name for step in steps for field in flat(step.fields)}
    values = shown_values(fields, trigger.given) | {
        name: text for name, text in typed_values(fields, form, trigger.given).items() if name in names
    }
    flags = {field.name for field in flat(fields) if field.control == "flag"}
    partial = Form([(name, text) for name, text in values.items() if name not in flags or text == "true"])
    try:
        read_options(trigger.kind, trigger.plugin, forms.data_of(fields, partial, trigger.given))
    except FunctiondError as error:
        return forms.errors_in_form(trigger.kind, fields, error)
    return {}


def _texts(fields: tuple[Field, ...], data: Mapping[str, Any]) -> dict[str, str]:
    """Return the value of each field as the page shows it, by its name."""
    values, yes_or_no = shown_values(fields, data), {"true": "Yes", "false": "No"}
    labels = {field.name: yes_or_no if field.control == "flag" else dict(field.options) for field in flat(fields)}
    return {name: labels[name].get(value, value) for name, value in values.items()}
