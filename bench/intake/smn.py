"""Intake of messages that clients publish to an SMN topic served by the engine itself."""

from __future__ import annotations

import json

from bench.intake.source import TEXT, Source, figures, posted
from bench.server import PROJECT, Engine

TOPIC = f"urn:smn:local-1:{PROJECT}:t"
TOPICS = f"/v2/{PROJECT}/notifications/topics"


def create(server: Engine) -> None:
    server.call("POST", TOPICS, {"name": "t", "display_name": ""})


SOURCE = Source(
    description="messages of a topic",
    figures=figures("smn"),
    measure=posted(
        "smn",
        "SMN",
        {"topic_urn": TOPIC},
        f"{TOPICS}/{TOPIC}/publish",
        json.dumps({"subject": "s", "message": TEXT}),
        before=create,
    ),
)
