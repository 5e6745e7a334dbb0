"""Intake of CTS traces that a client sends to the engine over HTTP."""

from __future__ import annotations

import json

from bench.intake.source import TEXT, Source, figures, posted
from bench.load import STAMP

TRACE = {"trace_id": STAMP, "service_type": "ECS", "resource_type": "ecs", "trace_name": "stop", "request": TEXT}

SOURCE = Source(
    description="traces that are pushed",
    figures=figures("cts"),
    measure=posted("cts", "CTS", {"name": "n", "operations": ["ECS:ecs:stop"]}, "/triggers/cts", json.dumps(TRACE)),
)
