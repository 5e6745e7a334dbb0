"""Rows of retry rules in the form of asynchronous settings.

All rows have the same field names; a form sends the rows in their order. A row in which nothing was entered is left
out. The field ``old`` is the position of a stored rule: a text that a browser cannot show as it is stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from engine.config.settings import RetrySettings
from engine.http.console.configuration.settings import one_line
from engine.http.console.forms import Form
from engine.http.console.struct_fields import Choice, Field, fields_of
from engine.model import Code
from engine.model.retry_rules import MAX_RETRIES, MAX_RULES, RetryRule

PREFIX = "retry_rules."
OLD = f"{PREFIX}old"
TEXTS = ("error_type", "message_prefix")
Row = Mapping[str, str]  #: text by the name of the rule's field, and ``old``
EMPTY: Row = dict.fromkeys((*RetryRule.__struct_fields__, "old"), "")

#: Errors of functions, by their codes.
_ERRORS = {
    Code.ENTRY_NOT_FOUND: "handler not found",
    Code.USER_EXCEPTION: "exception, exit or kill",
    Code.RESPONSE_TOO_LARGE: "result too large",
    Code.BAD_RESULT: "result is not JSON",
    Code.INITIALIZER_ERROR: "error of the initializer",
    Code.TIMEOUT: "timeout",
    Code.REQUEST_TOO_LARGE: "request too large",
    Code.INIT_FAILED: "instance did not start",
    Code.OUT_OF_MEMORY: "out of memory",
    Code.DISK_FULL: "disk full",
    Code.INIT_TIMEOUT: "initializer timed out",
}
_CODES = (
    Choice(value=0, label="Any"),
    *(Choice(value=int(one), label=f"{one} {text}") for one, text in _ERRORS.items()),
)
_RETRIES = (
    Choice(value="", label="Choose…"),
    Choice(value=0, label="Do not retry"),
    Choice(value=1, label="Retry once"),
    *(Choice(value=number, label=f"Up to {number} retries") for number in range(2, MAX_RETRIES + 1)),
)
_WORDS: Mapping[str, tuple[str, str]] = {
    "error_type": ("Error type", "ValueError"),
    "code": ("Error code", ""),
    "message_prefix": ("Message begins with", "bad input"),
    "max_retries": ("Then", ""),
    "base": ("First delay (s)", ""),
    "factor": ("Factor", ""),
    "longest": ("Longest delay (s)", ""),
    "jitter": ("Jitter (0 to 1)", ""),
}
MOST = MAX_RULES


def rule_fields(defaults: RetrySettings) -> Mapping[str, Field]:
    """Return the fields of a rule by their names. The engine's delays, which ``defaults`` has, are their examples."""
    found = {one.key: one for one in fields_of(RetryRule, PREFIX)}
    for key, (label, example) in _WORDS.items():
        shown = example or (f"{getattr(defaults, key):g}" if hasattr(defaults, key) else "")
        found[key] = replace(found[key], label=label, example=shown)
    found["code"] = replace(found["code"], control="choice", choices=_CODES)
    found["max_retries"] = replace(found["max_retries"], control="choice", choices=_RETRIES)
    return found


def rows_of(rules: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Return the rows of stored rules."""
    return [
        {
            key: str(number) if key == "old" else _text(rule.get(key, "0" if key == "code" else ""))
            for key in (*RetryRule.__struct_fields__, "old")
        }
        for number, rule in enumerate(rules)
    ]


def rows_in(form: Form) -> list[Row]:
    """Return the rows of a form, without those in which nothing was entered."""
    rows = form.rows(PREFIX, (*RetryRule.__struct_fields__, "old"))
    return [row for row in rows if any(text for name, text in row.items() if (name, text) != ("code", "0"))]


def changed_order(rows: Sequence[Row], change: str) -> list[Row]:
    """Return the rows after a change: ``add``, ``up-1``, ``down-1`` or ``remove-1``, with the position of a row."""
    action, _, text = change.partition("-")
    position, changed = int(text) if text.isdecimal() and len(text) < 3 else -1, [*rows]
    if action == "add" and len(rows) < MAX_RULES:
        changed.append(EMPTY)
    elif 0 <= position < len(rows):
        row = changed.pop(position)
        if action in ("up", "down"):
            changed.insert(max(0, position + (1 if action == "down" else -1)), row)
    return changed


def rules_of(rows: Sequence[Row], stored: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the rules for the API. A text that is no number is kept as text, and the API refuses it."""
    return [_rule(row, _stored(row, stored)) for row in rows]


def _stored(row: Row, stored: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    old = row["old"]
    return stored[int(old)] if old.isdecimal() and len(old) < 3 and int(old) < len(stored) else {}


def _rule(row: Row, old: Mapping[str, Any]) -> dict[str, Any]:
    rule: dict[str, Any] = {}
    for key in RetryRule.__struct_fields__:
        text = row[key]
        if key in old and text == _text(old[key]):
            rule[key] = old[key]
        elif key in TEXTS:
            if text:
                rule[key] = text
        elif text.strip():
            rule[key] = _number(text.strip())
    return rule


def _number(text: str) -> int | float | str:
    for read in (int, float):
        try:
            number = read(text)
        except ValueError:
            continue
        return number if abs(number) < 1e15 else text
    return text


def _text(value: Any) -> str:
    return f"{value:.15g}" if isinstance(value, float) else one_line(str(value))
