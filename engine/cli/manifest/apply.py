"""``functiond apply``: bring a project to the state that a manifest declares."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from engine.cli.client import UsageError
from engine.cli.exit_codes import FAILED, WOULD_CHANGE
from engine.cli.manifest.changes import Change
from engine.cli.manifest.planning import Plan, make_plan
from engine.cli.manifest.project import REFERENCED, Project
from engine.cli.manifest.reading import read_manifest
from engine.cli.manifest.showing import Shown, print_plan
from engine.cli.output import Output, print_json, write
from engine.cli.target import DEFAULT_TARGET, Target
from engine.errors import FunctiondError

Flag = Annotated[bool, Parameter(negative="", show_default=False)]


def apply(
    file: Path = Path("functiond.toml"),
    /,
    *,
    plan: Flag = False,
    prune: Flag = False,
    yes: Flag = False,
    secrets: Flag = False,
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
    """
    manifest, project = read_manifest(file, os.environ), Project(target.client())
    project.check_role()
    try:
        made = make_plan(manifest, project, prune=prune, send_secrets=secrets)
    except UsageError as error:
        raise UsageError(f"{file}: {error}") from None
    shown = Shown(manifest.secrets)
    if not target.json:
        print_plan(made, shown)
    if plan:
        if target.json:
            print_json(shown.plan(made))
        return WOULD_CHANGE if made.changes else 0
    if not yes:
        _ask(made.changes, may_ask=sys.stdin.isatty() and not target.json)
    done, problem = _run(made, project, shown, quiet=target.json)
    if target.json:
        print_json({**shown.plan(made), "done": done, "error": problem})
    return FAILED if problem else 0


def _ask(changes: list[Change], *, may_ask: bool) -> None:
    """Ask before deletions. Raise UsageError if the user declines, or cannot be asked."""
    count = sum(one.action == "delete" for one in changes)
    if not count:
        return
    if not may_ask:
        raise UsageError(f"--prune would delete {count}: nothing was changed; add --yes to delete them")
    print(f"Delete {count}? [y/N] ", end="", file=sys.stderr, flush=True)  # standard output may be a file
    if input().strip().lower() not in ("y", "yes"):
        raise UsageError("nothing was changed")


def _run(plan: Plan, project: Project, shown: Shown, *, quiet: bool) -> tuple[int, str]:
    """Make the changes up to the first error. Return the number of those that were made, and the error."""
    for done, change in enumerate(plan.changes):
        try:
            made = change.run()
        except FunctiondError as error:
            problem = shown.error(error)
            _report(done, plan.changes[done:], problem)
            return done, problem
        if change.action == "create" and change.kind in REFERENCED:
            project.read_again()
        if not quiet:
            Output().print("[bold green]done[/] ", end="")
            due = change.due(made)
            Output().data(f"{change.title}\n  due {due}" if due else change.title, "")
    return len(plan.changes), ""


def _report(done: int, left: list[Change], problem: str) -> None:
    write(f"functiond: cannot {left[0].title}: {problem}", errors=True)
    total = done + len(left)
    write(f"functiond: {done} of {total} changes are made; run the command again for the others", errors=True)
    for one in left:
        write(f"  not done: {one.title}", errors=True)
