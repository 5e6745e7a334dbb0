"""``functiond doctor``: findings about a running engine, or about this machine if no engine replies."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import Parameter

from engine import __version__
from engine.cli.exit_codes import FAILED
from engine.cli.findings import Finding, of_engine
from engine.cli.machine_checks import of_machine
from engine.cli.output import Output, print_json, write
from engine.cli.target import DEFAULT_TARGET, Target
from engine.config.settings import Settings, load_settings
from engine.deploy.client import Client, NoReply, NotRunning, NotTrusted
from engine.errors import SettingsError
from engine.metrics.prometheus import configure_logging


def doctor(
    *,
    data_dir: Path | None = None,
    config: Annotated[Path | None, Parameter(env_var="FUNCTIOND_CONFIG")] = None,
    target: Target = DEFAULT_TARGET,
) -> int:
    """Say what is wrong with an engine, where, and what to do next.

    A running engine is asked about its health and about the triggers, destinations and deliveries of the project. If no
    engine replies, this machine and the data directory are checked. The exit code is 1 if something must be done.

    Parameters
    ----------
    data_dir
        Data directory to check if no engine replies. [default: that of the settings]
    config
        TOML file with settings.
    """
    configure_logging("console", "error")  # to standard error, beside the findings
    found = sorted(_findings(target.client(), data_dir, config), key=lambda one: not one.serious)
    serious = any(one.serious for one in found)
    if target.json:
        print_json({"version": __version__, "url": target.url, "findings": msgspec.to_builtins(found)})
    else:
        _print(found, target.url, serious=serious)
    return FAILED if serious else 0


def _findings(client: Client, data_dir: Path | None, config: Path | None) -> Iterator[Finding]:
    try:
        yield from of_engine(client)
        return
    except NotTrusted as error:
        yield Finding(where="certificate", problem=str(error), advice="see also functiond serve --tls-cert")
        return
    except NoReply as error:
        advice = (
            "something holds its event loop, or the machine is overloaded: look for `event loop stalled` in its log, "
            "and restart the engine if it goes on"
        )
        yield Finding(where="engine", problem=str(error), advice=advice)
        return
    except NotRunning as error:
        yield Finding(where="engine", problem=str(error), advice="correct the findings below first, if there are any")
    try:
        overrides = {"storage.data_dir": str(data_dir) if data_dir else None}
        settings = load_settings(file=config, environ=os.environ, overrides=overrides)
    except SettingsError as error:
        yield Finding(
            where="settings", problem=str(error), advice="correct it; `functiond settings` lists all settings"
        )
        settings = Settings()
    yield from of_machine(settings)


def _print(found: Sequence[Finding], url: str, *, serious: bool) -> None:
    for one in found:
        mark = "" if one.serious else "note: "
        write(f"{mark}{one.where}: {one.problem}" + (f"\n  {one.advice}" if one.advice else ""))
    if not serious:
        Output().print(f"[bold green]nothing is wrong[/] with functiond {__version__} at", end="\n")
        Output().paste(url)
