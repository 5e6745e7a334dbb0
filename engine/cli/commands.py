"""What commands there are. Each is imported when it is asked for, so that none waits for the others."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError, Group

from engine import __version__
from engine.cli import FAILED, USAGE
from engine.errors import FunctiondError

_MODULES = {
    "serve": "serve:serve",
}
_HERE = ("serve",)


def make_app() -> App:
    app = App(
        name="functiond",
        help="A durable asynchronous function engine: accept now, run when idle.",
        version=__version__,
        version_flags=["--version"],
    )
    here, there = Group.create_ordered("The engine"), Group.create_ordered("Using an engine that runs")
    for name, target in _MODULES.items():
        app.command(f"engine.cli.{target}", name=name, group=here if name in _HERE else there)
    return app


def run(arguments: Sequence[str] | None = None) -> int:
    """The exit code. What the user did wrong is one line, never a traceback."""
    try:
        code = make_app()(arguments, exit_on_error=False, result_action="return_value")
    except CycloptsError:
        return USAGE  # cyclopts has said it
    except FunctiondError as error:
        print(f"functiond: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        return 130  # as the shell has it
    except BrokenPipeError:
        return 141  # likewise: the reader of our output went away
    return code if isinstance(code, int) else 0
