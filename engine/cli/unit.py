"""``functiond unit``: unit of systemd that runs this installation as a service."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path

from engine.cli.client import UsageError
from engine.cli.output import write

PROGRAM, CONFIG = "/opt/functiond/bin/functiond", "/etc/functiond/functiond.toml"  #: in the file
#: Folders that the service does not see (ProtectHome, PrivateTmp).
_HIDDEN = tuple(map(Path, ("/home", "/root", "/run/user", "/tmp", "/var/tmp")))
_PLAIN = re.compile(r"[\w@+=:,./-]+")


def unit(*, config: Path = Path(CONFIG), program: Path | None = None) -> None:
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
        _check_visible((program, Path(sys.executable).resolve()))
    else:
        _check_visible([program])
    text = files("engine.docs").joinpath("deploy/functiond.service").read_text()
    write(text.replace(PROGRAM, _argument(program)).replace(CONFIG, _argument(config)).rstrip())


def _check_visible(paths: Iterable[Path]) -> None:
    for path in paths:
        if any(path.absolute().is_relative_to(folder) for folder in _HIDDEN):
            raise UsageError(
                f"the service cannot see {path}: install functiond elsewhere, such as in /opt/functiond, and call the"
                " program there, or name one with --program"
            )
        if not path.exists():
            raise UsageError(f"there is no {path}: name the installed program with --program")


def _argument(path: Path) -> str:
    text = str(path.absolute())
    if not _PLAIN.fullmatch(text):
        raise UsageError(f"{text!r} has characters that mean something to systemd: use a path without them")
    return text
