"""Intake of requests through a webhook trigger, signed as GitHub does.

The signature covers the body only, so it is computed once for all requests.
"""

from __future__ import annotations

import hmac

from bench.intake.source import TEXT, Source, figures, posted
from bench.load import STAMP

SECRET = "of-the-benchmark-only"
HEADERS = {
    "X-Hub-Signature-256": "sha256=" + hmac.digest(SECRET.encode(), TEXT.encode(), "sha256").hex(),
    "X-GitHub-Delivery": STAMP,
}
OPTIONS = {"name": "n", "secret": SECRET, "scheme": "github"}

SOURCE = Source(
    description="signed requests",
    figures=figures("webhook"),
    measure=posted("webhook", "WEBHOOK", OPTIONS, "/triggers/webhook/{trigger}", TEXT, HEADERS),
)
