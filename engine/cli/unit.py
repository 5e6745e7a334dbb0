"""``functiond unit``: unit of systemd that runs this installation as a service."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path

from engine.cli.options import Json
from engine.cli.output import print_json, write
from engine.errors import UsageError

PROGRAM, CONFIG = "/opt/functiond/bin/functiond", "/etc/functiond/functiond.toml"  #: in the file
#: Folders that the service does not see (ProtectHome, PrivateTmp).
_HIDDEN = tuple(map(Path, ("/home", "/root", "/run/user", "/tmp", "/var/tmp")))
_PLAIN = re.compile(r"[\w@+=:,./-]+")


def unit(*, config: Path = Path(CONFIG), program: Path | None = None, json: Json = False) -> None:
    """Print a unit of systemd that runs functiond as a service.

    Write it to /etc/systemd/system/functiond.service.

    Parameters
    ----------
    config
        TOML file with the settings of the service.
    program
        Program that the service starts. [default: that of this installation]
    """
    if program is None:
        program = Path(sys.executable).with_name("functiond")
        _check_program((program, Path(sys.executable).resolve()))
    else:
        _check_program((program, program.resolve()))
    if _is_hidden(config):
        raise UsageError(f"the service cannot see {config}: move the settings file, such as to {CONFIG}")
    text = files("engine.docs").joinpath("deploy/functiond.service").read_text()
    text = text.replace(PROGRAM, _argument(program)).replace(CONFIG, _argument(config)).rstrip()
    print_json({"unit": text}) if json else write(text)


def _check_program(paths: Iterable[Path]) -> None:
    for path in paths:
        if _is_hidden(path):
            raise UsageError(
                f"the service cannot see {path}: install functiond elsewhere, such as in /opt/functiond, and call the"
                " program there, or name one with --program"
            )
        if not path.is_file():
            raise UsageError(f"there is no program {path}: name the installed one with --program")


def _is_hidden(path: Path) -> bool:
    return any(Path(os.path.abspath(path)).is_relative_to(folder) for folder in _HIDDEN)


def _argument(path: Path) -> str:
    text = str(path.absolute())
    if not _PLAIN.fullmatch(text):
        raise UsageError(f"{text!r} has characters that mean something to systemd: use a path without them")
    return text
