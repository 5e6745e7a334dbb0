"""``functiond apply``: bring a project to the state that a manifest declares."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from engine.cli.options import Flag
from engine.cli.output import FAILED, WOULD_CHANGE, Output, print_json, write
from engine.cli.target import DEFAULT_TARGET, Target
from engine.deploy.manifest.changes import Change, Field, Plan
from engine.deploy.manifest.planning import make_plan
from engine.deploy.manifest.project import Project
from engine.deploy.manifest.reading import read_manifest
from engine.errors import FunctiondError, UsageError
from engine.http.api.secrets import is_secret, without_credentials
from engine.model.text import MASK

LONGEST = 100  #: characters of a value
_COLOURS = {"create": "green", "update": "yellow", "delete": "red"}


class Shown:
    """Values as users may see them. ``secrets`` are texts that contain values of variables."""

    def __init__(self, secrets: frozenset[str]) -> None:
        self._secrets = secrets

    def plan(self, plan: Plan) -> dict[str, Any]:
        return {
            "changes": [self._change(change) for change in plan.changes],
            "unnamed": [title(change) for change in plan.unnamed],
        }

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
        fields = {name: self._values(name, field) for name, field in change.fields.items()}
        shown = {name: {"old": old, "new": new} for name, (old, new) in fields.items()}
        return {**title(change), "fields": shown}

    def _values(self, name: str, field: Field) -> tuple[Any, Any]:
        hide = field.secret or is_secret(name) or self._holds_secret(field.new)
        old, new = (
            (MASK if hide and value is not None else without_credentials(value)) for value in (field.old, field.new)
        )
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


def print_plan(plan: Plan, shown: Shown, source: str, *, json: bool, **others: str) -> int:
    """Print the changes of a plan, and what its source, the manifest or the code, does not name.

    Return the exit code of ``--plan``. JSON has ``others``, too.
    """
    code = WOULD_CHANGE if plan.changes else 0
    if json:
        print_json({**others, **shown.plan(plan)})
        return code
    output = Output()
    for change in plan.changes:
        output.print(f"[bold {_COLOURS[change.action]}]{change.action}[/] {change.kind} ", end="")
        output.data(change.name, "bold")
        for line in shown.lines(change):
            output.data(f"  {line}", "")
    if plan.unnamed:
        output.print(f"Not in the {source} (--prune deletes):", style="dim")
        for change in plan.unnamed:
            output.data(f"  {change.kind} {change.name}", "dim")
    output.print(summary(plan.changes))
    return code


def summary(changes: Sequence[Change]) -> str:
    if not changes:
        return "Nothing to change."
    counts = {action: sum(change.action == action for change in changes) for action in _COLOURS}
    return f"{counts['create']} to create, {counts['update']} to update, {counts['delete']} to delete."


def apply(
    file: Path = Path("functiond.toml"),
    /,
    *,
    plan: Flag = False,
    prune: Flag = False,
    yes: Flag = False,
    secrets: Flag = False,
    take_over: Flag = False,
    target: Target = DEFAULT_TARGET,
) -> int:
    """Create and update functions, triggers, topics and streams as a manifest declares them.

    What the manifest does not name stays as it is. The command stops at the first error; run again, it makes the
    changes that are left.

    Parameters
    ----------
    file
        Manifest in TOML.
    plan
        Show what would change, and change nothing. Exit with 0 if nothing would, with 4 otherwise.
    prune
        Delete what the project has and the manifest does not name.
    yes
        With --prune: delete without asking.
    secrets
        Send secrets of triggers again. The engine does not show stored ones, so they are not compared.
    take_over
        Take functions over from apps that have them.
    """
    manifest, project = read_manifest(file, os.environ), Project(target.client())
    project.check_role()
    try:
        made = make_plan(manifest, project, prune=prune, send_secrets=secrets, take_over=take_over)
    except UsageError as error:
        raise UsageError(f"{file}: {error}") from None
    shown = Shown(manifest.secrets)
    if plan or not target.json:
        code = print_plan(made, shown, "manifest", json=target.json)
    if plan:
        return code
    if not yes:
        _ask(made.changes, may_ask=sys.stdin.isatty() and not target.json)
    done, problem = _run(made, project, shown, quiet=target.json)
    if target.json:
        print_json({**shown.plan(made), "done": done, "error": problem})
    return FAILED if problem else 0


def _ask(changes: list[Change], *, may_ask: bool) -> None:
    """Ask before deletions. Raise UsageError if the user declines, or cannot be asked."""
    count = sum(change.action == "delete" for change in changes)
    if not count:
        return
    if not may_ask:
        raise UsageError(f"--prune would delete {count}: nothing was changed; add --yes to delete them")
    sys.stderr.write(f"Delete {count}? [y/N] ")  # standard output may be a file
    sys.stderr.flush()
    if input().strip().lower() not in ("y", "yes"):
        raise UsageError("nothing was changed")


def _run(plan: Plan, project: Project, shown: Shown, *, quiet: bool) -> tuple[int, str]:
    """Make the changes up to the first error. Return the number of those that were made, and the error."""
    for done, change in enumerate(plan.changes):
        try:
            made = project.make(change)
        except FunctiondError as error:
            problem = shown.error(error)
            _report(done, plan.changes[done:], problem)
            return done, problem
        if not quiet:
            Output().print("[bold green]done[/] ", end="")
            due = change.due(made)
            Output().data(f"{change.title}\n  due {due}" if due else change.title, "")
    return len(plan.changes), ""


def _report(done: int, left: list[Change], problem: str) -> None:
    write(f"functiond: cannot {left[0].title}: {problem}", errors=True)
    total = done + len(left)
    write(f"functiond: {done} of {total} changes are made; run the command again for the others", errors=True)
    for change in left:
        write(f"  not done: {change.title}", errors=True)
