"""Requests signed as GitHub does, whose signature is that of the body alone: each has an id of its own."""

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
    what="signed requests",
    figures=figures("webhook"),
    measure=posted("webhook", "WEBHOOK", OPTIONS, "/triggers/webhook/{trigger}", TEXT, HEADERS),
)
