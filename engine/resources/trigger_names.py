"""Name and subject of a trigger, as lists show them."""

from __future__ import annotations

from engine.resources.bound_trigger import BoundTrigger

LONGEST = 120  #: characters of a name in lists


def name_of(trigger: BoundTrigger) -> str:
    """Return the name in a trigger's options, else the main part of its subject, else its kind."""
    data = trigger.given if trigger.options is not None else {}
    subject = subject_of(trigger)
    main = subject.rpartition(":")[2] if subject.startswith("urn:") else subject.partition(": ")[0]
    text = str(data.get("name") or data.get("trigger_name") or main or trigger.kind)
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def subject_of(trigger: BoundTrigger) -> str:
    """Return the schedule, address or topic of a trigger in one line; empty if its kind has none."""
    describe = trigger.plugin.display.subject
    return describe(trigger.options) if describe is not None and trigger.options is not None else ""
