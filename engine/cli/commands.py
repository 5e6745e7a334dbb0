"""What commands there are. Each is imported when it is asked for, so that none waits for the others."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError, Group, UnusedCliTokensError
from rich.console import Console

from engine import __version__
from engine.cli.client import UsageError
from engine.cli.exit_codes import FAILED, USAGE
from engine.errors import FunctiondError

_HERE = {
    "serve": ("serve:serve", "Run an engine."),
    "settings": ("show_settings:settings", "List every setting with its default."),
}
_THERE = {
    "deploy": ("deploy:deploy", "Create a function from a folder or file, or update it."),
    "functions": ("functions:functions", "List the functions."),
    "delete": ("functions:delete", "Delete a function."),
    "invoke": ("invoke:invoke", "Call a function, or leave an event for it (--async)."),
    "triggers": ("triggers:triggers", "List triggers, and how their sources do."),
    "invocations": ("invocations:invocations", "List asynchronous invocations."),
    "show": ("invocations:show", "Show one invocation."),
    "logs": ("logs:logs", "Print what an invocation or a function has written."),
    "redrive": ("redrive:redrive", "Send again what ended badly."),
    "deliveries": ("redrive:deliveries", "List the outcomes that are not delivered."),
    "cancel": ("invocations:cancel", "End an invocation that waits or runs."),
}


def make_app(asked: Sequence[str]) -> App:
    """The commands; the one that is asked for tells its own help, which it is imported for."""
    app = App(
        name="functiond",
        help="A durable asynchronous function engine: accept now, run when idle.",
        version=__version__,
        error_console=Console(stderr=True, soft_wrap=True, highlight=False),
        error_formatter=lambda error: f"functiond: {_told(error)}",
    )
    for title, commands in (("The engine", _HERE), ("Using an engine that runs", _THERE)):
        group = Group.create_ordered(title)
        for place, (name, (target, help)) in enumerate(commands.items()):
            own = None if name in asked else help
            app.command(f"engine.cli.{target}", name=name, help=own, group=group, sort_key=place)
    more = Group.create_ordered("More")
    for flag in ("--help", "--version"):
        app[flag].group = (more,)
    return app


def run(arguments: Sequence[str] | None = None) -> int:
    """The exit code. What the user did wrong is one line, never a traceback."""
    code = _run(sys.argv[1:] if arguments is None else arguments)
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _say_no_more()
    return code


def _run(arguments: Sequence[str]) -> int:
    try:
        code = make_app(arguments)(arguments, exit_on_error=False, result_action="return_value")
    except CycloptsError:
        return USAGE  # cyclopts has said it
    except FunctiondError as error:
        print(f"functiond: {error}", file=sys.stderr)
        return USAGE if isinstance(error, UsageError) else FAILED
    except KeyboardInterrupt:
        return 130  # as the shell has it
    except BrokenPipeError:
        _say_no_more()
        return 141
    return code if isinstance(code, int) else 0


def _told(error: CycloptsError) -> str:
    if isinstance(error, UnusedCliTokensError):
        return f"did not expect {' '.join(error.unused_tokens or ())!r} there: --help after the command tells what goes"
    return str(error)


def _say_no_more() -> None:
    """Whoever read our output has seen enough; the interpreter must not try to write the rest at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
