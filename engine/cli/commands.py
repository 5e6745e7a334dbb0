"""Table of commands, and the application that runs them.

The module of a command is imported only when the command is used, so that start-up stays fast.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Literal

from cyclopts import App, CycloptsError, Group, UnusedCliTokensError
from rich.console import Console

from engine import __version__
from engine.cli.output import FAILED, USAGE, write
from engine.errors import DataDirectoryUnusable, FunctiondError, UsageError

_ENGINE_COMMANDS = {
    "serve": ("serve:serve", "Run an engine."),
    "agent": ("agent:agent", "Run functions on this machine for an engine elsewhere."),
    "unit": ("unit:unit", "Print a unit of systemd that runs this installation as a service."),
    "completion": ("commands:completion", "Print the completion of commands for a shell."),
    "settings": ("show_settings:settings", "List every setting with its default."),
    "backup": ("backup:backup", "Back up a data directory, while its engine runs or not."),
    "restore": ("data_directory:restore", "Restore a backup into an empty data directory."),
    "recover": ("data_directory:recover", "Recover a damaged data directory."),
    "verify": ("data_directory:verify", "Check a data directory or a backup."),
    "doctor": ("doctor:doctor", "Say what is wrong with an engine or this machine, and what to do next."),
}
_CLIENT_COMMANDS = {
    "deploy": ("deploy:deploy", "Create a function from a folder or file, or update it."),
    "dev": ("dev.command:dev", "Deploy a function at each change, show its log, and send it events by keys."),
    "apply": ("apply:apply", "Create and update functions, triggers, topics and streams from a manifest."),
    "export": ("export:export", "Write a manifest of the project."),
    "functions": ("functions:functions", "List the functions."),
    "apps": ("functions:apps", "List the apps and their functions."),
    "delete": ("functions:delete", "Delete a function."),
    "invoke": ("invoke:invoke", "Call a function, or queue an invocation (--async)."),
    "triggers": ("triggers:triggers", "List triggers and the state of their sources."),
    "http": ("http:http", "Publish functions under paths, or list their addresses."),
    "trigger": ("triggers:app", "Create, show, update and delete triggers."),
    "topic": ("topic:app", "List, create and delete topics, publish to them, and subscribe functions."),
    "stream": ("stream:app", "List, create, update and delete data streams and log streams."),
    "version": ("versions:versions", "List, publish and delete versions of a function."),
    "alias": ("versions:aliases", "List, create, update and delete aliases of a function."),
    "destinations": ("deliveries:destinations", "List destinations and the causes of their failures."),
    "invocations": ("invocations:invocations", "List asynchronous invocations."),
    "show": ("invocations:show", "Show one invocation."),
    "logs": ("logs:logs", "Print the logs of an invocation or a function."),
    "redrive": ("deliveries:redrive", "Send failed deliveries or invocations again."),
    "rerun": ("deliveries:rerun", "Invoke a function again with the event of an earlier invocation, or an edited one."),
    "discard": ("deliveries:discard", "Remove deliveries that were given up."),
    "deliveries": ("deliveries:deliveries", "List pending deliveries, and deliveries that were given up."),
    "controls": ("functions:controls", "Show or change pause, rate, recycling and soft timeout of a function."),
    "pause": ("functions:pause", "Start no invocation of a function, and let its events wait."),
    "resume": ("functions:resume", "End the pause of a function."),
    "explain": ("invocations:explain", "Show why an invocation waits."),
    "purge": ("invocations:purge", "Cancel all invocations of a function that wait."),
    "clock": ("clock:clock", "Show whether the engine trusts its clock, or accept it."),
    "nodes": ("nodes:nodes", "List the machines that run instances for the engine, or drain one."),
    "cancel": ("invocations:cancel", "Cancel a waiting or running invocation."),
}


def make_app(arguments: Sequence[str]) -> App:
    """Build the application that parses and runs commands.

    The help text of the command that ``arguments`` names is its docstring. Other commands are not imported and have the
    one-line help text of the table.
    """
    app = App(
        name="functiond",
        help="A durable asynchronous function engine: accept now, run when idle.",
        version=__version__,
        error_console=Console(stderr=True, soft_wrap=True, highlight=False),
        error_formatter=lambda error: f"functiond: {_format_error(error)}",
    )
    for title, commands in (("Engine", _ENGINE_COMMANDS), ("Client of a running engine", _CLIENT_COMMANDS)):
        group = Group.create_ordered(title)
        for position, (name, (target, help)) in enumerate(commands.items()):
            own = None if name in arguments else help
            app.command(f"engine.cli.{target}", name=name, help=own, group=group, sort_key=position)
    more = Group.create_ordered("More")
    for flag in ("--help", "--version"):
        app[flag].group = (more,)
    return app


def completion(shell: Literal["bash", "zsh", "fish"], /) -> None:
    """Print the completion of commands, which a shell loads from a file: see the documentation, page Running."""
    write(make_app(()).generate_completion(shell=shell))


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code. Expected errors are printed as one line, without a traceback."""
    code = _run(sys.argv[1:] if arguments is None else arguments)
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _discard_output()
    return code


def _run(arguments: Sequence[str]) -> int:
    try:
        code = make_app(arguments)(arguments, exit_on_error=False, result_action="return_value")
    except CycloptsError:
        return USAGE  # cyclopts has printed the message
    except FunctiondError as error:
        write(f"functiond: {error}", errors=True)
        return USAGE if isinstance(error, UsageError | DataDirectoryUnusable) else FAILED
    except KeyboardInterrupt:
        return 130  # shell convention: 128 + SIGINT
    except BrokenPipeError:
        _discard_output()
        return 141  # shell convention: 128 + SIGPIPE
    return code if isinstance(code, int) else 0


def _format_error(error: CycloptsError) -> str:
    if isinstance(error, UnusedCliTokensError):
        return f"unexpected argument {' '.join(error.unused_tokens or ())!r}: run the command with --help"
    return str(error)


def _discard_output() -> None:
    """Redirect standard output to the null device.

    Call after the reading program, such as ``head``, has closed the pipe.

    Otherwise the interpreter's flush of standard output at exit would fail.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
