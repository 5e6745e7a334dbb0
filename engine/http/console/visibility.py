"""Parts of console pages that the role of the caller may see."""

from __future__ import annotations

from typing import TypeVar

from msgspec.structs import replace

from engine.http.api.deliveries import DeliveryItem
from engine.http.api.routing import Call
from engine.http.api.secrets import param_shown, without_credentials
from engine.http.api.triggers import ProjectTrigger
from engine.triggers.supervisor import Health

T = TypeVar("T")


def sees_payloads(call: Call) -> bool:
    return call.principal is None or call.principal.sees_payloads


def sees_secrets(call: Call) -> bool:
    return call.principal is None or call.principal.sees_secrets


def value_shown(call: Call, value: T) -> T:
    """Return a JSON value without credentials, unless the caller may see them."""
    shown: T = value if sees_secrets(call) else without_credentials(value)
    return shown


def delivery_shown(call: Call, item: DeliveryItem) -> DeliveryItem:
    """Return a delivery without the credentials of its destination, unless the caller may see them."""
    if sees_secrets(call):
        return item
    return replace(item, param=param_shown(item.param), error=without_credentials(item.error))


def trigger_shown(call: Call, trigger: ProjectTrigger) -> ProjectTrigger:
    """Return a trigger without the credentials of its source, unless the caller may see them."""
    if sees_secrets(call):
        return trigger
    source = replace(trigger.source, problem=without_credentials(trigger.source.problem))
    data, given = without_credentials(trigger.event_data), without_credentials(trigger.given_data)
    return replace(
        trigger, event_data=data, given_data=given, subject=without_credentials(trigger.subject), source=source
    )


def service_shown(call: Call, service: Health) -> Health:
    """Return the state of a plugin's service without credentials in its problem, unless the caller may see them."""
    return service if sees_secrets(call) else replace(service, problem=without_credentials(service.problem))
