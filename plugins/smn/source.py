"""Source of SMN: one invocation for each message of a topic.

Messages of topics that the engine serves itself are published through its API. Remote topics of SMN or SNS send
messages to the trigger's ``path``. Such a message is accepted if its signature is valid, its topic is the trigger's,
and it is less than a day old. A repeated message calls the function once if it arrives within one day
(by default).
"""

from __future__ import annotations

import structlog
from anyio.abc import TaskStatus

from engine import Forbidden, FunctiondError, PushRequest, Reply, TriggerContext
from plugins._shared.push import ONLY_POST, accept_one
from plugins.smn.events import moment
from plugins.smn.options import SmnOptions
from plugins.smn.pushed import Pushed, read_push
from plugins.smn.service import SmnService
from plugins.smn.topics import Listener

SKEW = 900.0  #: seconds that a sender's clock may be ahead
#: Maximum age in seconds. With SKEW, at most the time for which idempotency keys are stored.
OLDEST = 86_400.0 - SKEW
LIMIT = 2 << 20  #: bytes of a pushed message

log = structlog.get_logger("functiond.smn")


class SmnTrigger:
    def __init__(self, options: SmnOptions) -> None:
        self._topic = options.topic_urn

    async def run(self, context: TriggerContext, *, task_status: TaskStatus[None]) -> None:
        service: SmnService = context.plugin.service
        listener = Listener(topic_urn=self._topic, sink=context)

        async def answer(request: PushRequest) -> Reply:
            if request.method != "POST":
                return ONLY_POST
            try:
                pushed = read_push(request.body)
                await self._check(pushed, service, context)
                if pushed.kind == "SubscriptionConfirmation":
                    await service.fetcher.confirm(pushed.subscribe_url, "plugins.smn.hosts")
            except FunctiondError as refusal:
                context.report_refused(f"a push from {request.client} is refused: {refusal}")
                raise
            return await _handle(pushed, service, listener, context)

        with context.plugin.routes.mount(f"/{context.trigger_id}", answer, limit=LIMIT):
            task_status.started()
            while True:
                changed = service.listeners.topics_changed
                known = service.accepts_pushes or service.has(context.project, self._topic)
                context.report_problem("" if known else f"{self._topic} does not exist: create it, or correct the URN")
                await changed.wait()

    async def _check(self, pushed: Pushed, service: SmnService, context: TriggerContext) -> None:
        if pushed.message.topic_urn != self._topic:
            raise Forbidden("the message is from another topic than this trigger's")
        now = context.plugin.clock.now()
        age = now - moment(pushed.message.timestamp)
        if age > OLDEST:
            raise Forbidden("the message is about a day old or older: it may be a repetition")
        if age < -SKEW:
            raise Forbidden(f"the message is from {-age:.0f} s in the future: check the clocks of both sides")
        await service.verify(pushed, now)


async def _handle(pushed: Pushed, service: SmnService, listener: Listener, context: TriggerContext) -> Reply:
    if pushed.kind == "UnsubscribeConfirmation":
        log.warning("unsubscribed", trigger=context.trigger_id, topic=listener.topic_urn)
    await service.listeners.set_confirmed(
        context.plugin.store, context.trigger_id, pushed.kind != "UnsubscribeConfirmation"
    )
    if pushed.kind != "Notification":
        return Reply()
    return await accept_one(context, listener.event(pushed.message), 200)  # the same id is the same message
