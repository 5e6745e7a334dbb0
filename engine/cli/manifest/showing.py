"""Plans and their progress as text and as JSON. Secrets are masked."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from engine.cli.manifest.changes import Change, Field
from engine.cli.manifest.planning import Plan
from engine.cli.output import Output
from engine.http.api.secrets import is_secret, without_credentials
from engine.model.text import MASK

LONGEST = 100  #: characters of a value
_COLOURS = {"create": "green", "update": "yellow", "delete": "red"}


class Shown:
    """Values as users may see them. ``secrets`` are texts that contain values of variables."""

    def __init__(self, secrets: frozenset[str]) -> None:
        self._secrets = secrets

    def plan(self, plan: Plan) -> dict[str, Any]:
        return {"changes": [self._change(one) for one in plan.changes], "unnamed": [title(one) for one in plan.unnamed]}

    def error(self, error: Exception) -> str:
        """Return the text of an error, in which the engine may quote a value."""
        text = str(error)
        for secret in self._secrets:
            text = text.replace(repr(secret), repr(MASK))
        return text

    def lines(self, change: Change) -> Iterable[str]:
        """Yield a line for each field of a change."""
        for name, field in change.fields.items():
            old, new = map(_text, self._values(name, field))
            if field.old is None:
                yield f"+ {name} = {new}"
            elif field.new is None:
                yield f"- {name} (was {old})"
            else:
                yield f"~ {name} = {new} (was {old})"

    def _change(self, change: Change) -> dict[str, Any]:
        fields = {name: self._values(name, one) for name, one in change.fields.items()}
        shown = {name: {"old": old, "new": new} for name, (old, new) in fields.items()}
        return {**title(change), "fields": shown}

    def _values(self, name: str, field: Field) -> tuple[Any, Any]:
        hide = field.secret or is_secret(name) or self._holds_secret(field.new)
        old, new = ((MASK if hide and one is not None else without_credentials(one)) for one in (field.old, field.new))
        return old, new

    def _holds_secret(self, value: Any) -> bool:
        if isinstance(value, dict):
            return any(map(self._holds_secret, value.values()))
        if isinstance(value, list):
            return any(map(self._holds_secret, value))
        return isinstance(value, str) and value in self._secrets


def _text(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def title(change: Change) -> dict[str, str]:
    return {"action": change.action, "kind": change.kind, "name": change.name}


def print_plan(plan: Plan, shown: Shown) -> None:
    """Print the changes of a plan, and what the manifest does not name."""
    output = Output()
    for change in plan.changes:
        output.print(f"[bold {_COLOURS[change.action]}]{change.action}[/] {change.kind} ", end="")
        output.data(change.name, "bold")
        for line in shown.lines(change):
            output.data(f"  {line}", "")
    if plan.unnamed:
        output.print("Not in the manifest (--prune deletes):", style="dim")
        for change in plan.unnamed:
            output.data(f"  {change.kind} {change.name}", "dim")
    output.print(summary(plan.changes))


def summary(changes: Sequence[Change]) -> str:
    if not changes:
        return "Nothing to change."
    counts = {action: sum(one.action == action for one in changes) for action in _COLOURS}
    return f"{counts['create']} to create, {counts['update']} to update, {counts['delete']} to delete."
