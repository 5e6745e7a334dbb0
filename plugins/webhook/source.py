"""Source of WEBHOOK: each signed HTTP request calls the function. Senders need only the trigger's secret.

A message that was already received (by default, within the last day) gets a success reply, and does not call the
function again. Only what is signed identifies a message: the id of Standard Webhooks, or the body that GitHub signed.
The delivery id of GitHub is not signed, so anybody who has seen a request could send it again under another one.
"""

from __future__ import annotations

import base64
from typing import Any

import anyio
import msgspec
from anyio.abc import TaskStatus

from engine import Event, PushRequest, Reply, TriggerContext
from plugins._shared.outcomes import HOPS, read_hops
from plugins._shared.push import ONLY_POST, accept_one
from plugins.webhook.options import WebhookOptions
from plugins.webhook.signatures import GITHUB_SIGNATURE, ID, SIGNATURE, TIMESTAMP, check_github, check_standard, key_of

#: Headers that functions do not need, or that differ when a message is repeated.
_LEFT_OUT = frozenset(
    {SIGNATURE, TIMESTAMP, GITHUB_SIGNATURE, b"x-hub-signature", b"authorization", b"cookie", b"host", b"connection"}
    | {b"content-length", b"accept-encoding", b"traceparent", b"tracestate", b"x-request-id", b"date", HOPS.encode()}
)
#: Check of each scheme, and the header that identifies a checked message: for GitHub the signature, a hash of the body.
_CHECKS = {"standard": (check_standard, ID), "github": (check_github, GITHUB_SIGNATURE)}


class WebhookTrigger:
    def __init__(self, options: WebhookOptions) -> None:
        self._options, self._key = options, key_of(options.secret)

    async def run(self, context: TriggerContext, *, task_status: TaskStatus[None]) -> None:
        async def answer(request: PushRequest) -> Reply:
            return await self._answer(request, context)

        with context.plugin.routes.mount(f"/{context.trigger_id}", answer):
            task_status.started()
            await anyio.sleep_forever()

    async def _answer(self, request: PushRequest, context: TriggerContext) -> Reply:
        if request.method != "POST":
            return ONLY_POST
        check, identified_by = _CHECKS[self._options.scheme]
        message_id = check(self._key, request.headers, request.body, context.plugin.clock.now())
        event = Event(
            payload=msgspec.json.encode(event_of(self._options.name, request, message_id)),
            traceparent=request.headers.get(b"traceparent", b""),
            hops=read_hops(request.headers.get(HOPS.encode())),
            idempotency_key=f"webhook:{context.trigger_id}:{request.headers[identified_by].decode('latin-1')}",
        )
        return await accept_one(context, event, 202)


def event_of(name: str, request: PushRequest, message_id: str) -> dict[str, Any]:
    """Return the event of a request whose signature was checked; ``name`` is the trigger's."""
    try:
        body, encoded = request.body.decode(), False
    except UnicodeDecodeError:
        body, encoded = base64.b64encode(request.body).decode(), True
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in request.headers.items()}
    return {
        "version": "v1.0",
        "trigger_type": "WEBHOOK",
        "trigger_name": name,
        "id": message_id,
        "headers": {name: value for name, value in headers.items() if name.encode("latin-1") not in _LEFT_OUT},
        "query": request.query,
        "body": body,
        "isBase64Encoded": encoded,
    }
