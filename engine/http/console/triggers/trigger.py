"""Page of one trigger: its state, the form of its options, and the actions enable, disable and delete."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.asgi.wire import Reply
from engine.errors import FunctiondError, UnknownTrigger
from engine.http.api.routing import Call, Handler
from engine.http.console.api_requests import ApiRequests
from engine.http.console.forms import WHOLE, Form
from engine.http.console.function_frame import FunctionFrame
from engine.http.console.notes import see_other
from engine.http.console.pages import Action
from engine.http.console.struct_forms import lost_secrets, missing_values, shown_values, typed_values
from engine.http.console.triggers.forms import CHANGED, data_of, errors_in_form, fields_of_kind, kind_of, trigger_path
from engine.http.console.triggers.function import LIST, TAB
from engine.http.console.triggers.rows import TriggerRows, page_of_function, page_of_trigger
from engine.model.crontab import five_fields
from engine.resources.bound_trigger import BoundTrigger, name_of
from engine.resources.triggers import Triggers

ONE = f"{LIST}/{{trigger_id}}"


class TriggerPage:
    def __init__(self, frame: FunctionFrame, api: ApiRequests, triggers: Triggers, rows: TriggerRows) -> None:
        self._frame, self._api, self._triggers, self._rows = frame, api, triggers, rows

    def pages(self) -> Mapping[str, Handler]:
        return {ONE: self.show}

    def actions(self) -> Mapping[str, Action]:
        return {
            ONE: self.save,
            f"{ONE}/enable": self.enable,
            f"{ONE}/disable": self.disable,
            f"{ONE}/delete": self.delete,
        }

    async def show(self, call: Call) -> Reply:
        trigger = self._trigger(call)
        path = page_of_trigger(trigger)
        if path != call.path and path.find("/gateways/") > 0:
            return see_other(path)
        return await self._show(call, trigger, None, {})

    async def save(self, call: Call, form: Form) -> Reply:
        trigger = self._trigger(call)
        fields, old = fields_of_kind(trigger.plugin), trigger.given
        errors: Mapping[str, str] = missing_values(fields, form, old)
        if form.text("generation") != str(trigger.stored.generation):
            errors = {WHOLE: CHANGED}
        if not errors:
            try:
                if (data := data_of(fields, form, old)) == old:
                    return see_other(page_of_trigger(trigger), "Nothing was changed.")
                await self._api.send(call, "PUT", trigger_path(trigger), {"event_data": data})
            except FunctiondError as error:
                errors = errors_in_form(trigger.kind, fields, error)
            else:
                return see_other(page_of_trigger(trigger), "Saved.")
        errors = {**lost_secrets(fields, form), **errors}
        return await self._show(call, trigger, typed_values(fields, form, old), errors)

    async def enable(self, call: Call, form: Form) -> Reply:
        return await self._set_status(call, "ACTIVE", "enabled")

    async def disable(self, call: Call, form: Form) -> Reply:
        return await self._set_status(call, "DISABLED", "disabled")

    async def delete(self, call: Call, form: Form) -> Reply:
        trigger = self._trigger(call)
        name = name_of(trigger)
        await self._api.send(call, "DELETE", trigger_path(trigger))
        return see_other(f"{page_of_function(trigger)}/{TAB}", f"The trigger {name} is deleted.")

    async def _set_status(self, call: Call, status: str, word: str) -> Reply:
        trigger = self._trigger(call)
        await self._api.send(call, "PUT", trigger_path(trigger), {"trigger_status": status})
        return see_other(page_of_trigger(trigger), f"The trigger is {word}.")

    def _trigger(self, call: Call) -> BoundTrigger:
        """Return the trigger that the path names. Raises UnknownTrigger unless it is one of the path's function."""
        trigger = self._triggers.find(call.project, call.part("trigger_id"))
        if trigger.function_id != self._frame.function_of(call).function_id:
            raise UnknownTrigger(trigger.kind, trigger.id)
        return trigger

    async def _show(
        self, call: Call, trigger: BoundTrigger, values: Mapping[str, str] | None, errors: Mapping[str, str]
    ) -> Reply:
        plugin, row = trigger.plugin, self._rows.row(call, trigger)
        fields = fields_of_kind(plugin) if plugin.options is not None else ()
        data: dict[str, Any] = row.shown.event_data
        return await self._frame.show(
            call,
            "functions/trigger.html",
            tab=TAB,
            live=not errors,  # the form is kept
            row=row,
            kind=kind_of(trigger.kind, plugin, fixed=trigger.mode_fixed),
            may_disable=plugin.rules.may_disable,
            warning=five_fields(data),
            generation=trigger.stored.generation,
            fields=fields,
            values=shown_values(fields, trigger.given) if values is None else values,
            data=data,
            errors=errors,
        )
