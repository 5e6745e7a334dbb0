"""Intake of CloudEvents through an EVENTGRID trigger, one event per HTTP request."""

from __future__ import annotations

import json

from bench.intake.source import TEXT, Source, figures, posted
from bench.load import STAMP

EVENT = {"id": STAMP, "source": "shop", "specversion": "1.0", "type": "paid", "data": TEXT}
HEADERS = {"Content-Type": "application/cloudevents+json"}

SOURCE = Source(
    description="CloudEvents",
    figures=figures("eventgrid"),
    measure=posted("eventgrid", "EVENTGRID", {"channel_id": "c"}, "/triggers/eventgrid/c", json.dumps(EVENT), HEADERS),
)
