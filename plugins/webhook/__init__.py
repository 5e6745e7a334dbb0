"""WEBHOOK: signed HTTP requests call functions, and outcomes are sent as HTTP requests, signed if a secret is set."""

from __future__ import annotations

from engine import Plugin, TriggerRules
from plugins._shared.http_client import HttpService
from plugins.webhook.destination import WebhookDestination, WebhookParam
from plugins.webhook.options import WebhookOptions
from plugins.webhook.settings import WebhookSettings
from plugins.webhook.source import WebhookTrigger


def serve(settings: WebhookSettings) -> HttpService:
    return HttpService(settings.timeout)


plugin = Plugin(
    kinds=("WEBHOOK",),
    service=WebhookSettings,
    serve=serve,
    options=WebhookOptions,
    trigger=WebhookTrigger,
    param=WebhookParam,
    destination=WebhookDestination,
    rules=TriggerRules(start_before_stop=True, unique=("name",), has_path=True),
)
