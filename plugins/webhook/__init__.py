"""WEBHOOK: signed HTTP requests call functions, and outcomes are sent as HTTP requests, signed if a secret is set."""

from __future__ import annotations

import msgspec

from engine import Plugin, PushRequest, TriggerDisplay, TriggerRules
from plugins._shared.http_client import HttpService
from plugins.webhook.destination import WebhookDestination, WebhookParam, used_secret
from plugins.webhook.options import WebhookOptions, WebhookSettings
from plugins.webhook.source import WebhookTrigger, event_of


def example(kind: str) -> bytes:
    headers = {b"content-type": b"application/json", b"user-agent": b"GitHub-Hookshot/1"}
    body = b'{"action": "opened", "number": 7}'
    request = PushRequest(method="POST", path="", query="team=web", headers=headers, body=body)
    return msgspec.json.encode(event_of("pull-requests", request, "msg_2KWPBgLlAfxdpx2AI54pPJ85f4W"))


plugin = Plugin(
    kinds=("WEBHOOK",),
    service=WebhookSettings,
    serve=lambda settings: HttpService(settings.timeout),
    options=WebhookOptions,
    trigger=WebhookTrigger,
    param=WebhookParam,
    destination=WebhookDestination,
    uses=used_secret,
    unknown=lambda context, param, project: "" if param.secret in ("", *context.settings.secrets) else "secret",
    rules=TriggerRules(start_before_stop=True, unique=("name",), has_path=True),
    example=example,
    display=TriggerDisplay(
        about={"WEBHOOK": "Signed HTTP requests to an address of the trigger's own."},
        subject=lambda options: f"requests signed by {options.scheme}",
    ),
)
