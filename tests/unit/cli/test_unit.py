"""The unit that ``functiond unit`` prints."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from engine.cli.commands import run
from engine.cli.output import USAGE
from engine.config.settings import Settings
from tests.support.documents import DOCS, section
from tests.support.programs import program

HIGHEST_EXPOSURE = 3.7  #: of systemd 252, quoted by engine/docs/running.md


def unit(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert run(["unit", *arguments]) == 0
    return capsys.readouterr().out


def test_the_unit_starts_the_named_program_with_the_named_settings(capsys: pytest.CaptureFixture[str]) -> None:
    text = unit(capsys, "--program", "/usr/bin/env", "--config", "/srv/functiond.toml")

    assert "\nExecStart=/usr/bin/env serve --config /srv/functiond.toml\n" in text
    assert "/opt/functiond" not in text


def test_the_unit_is_printed_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    text = unit(capsys, "--program", "/usr/bin/env")

    assert json.loads(unit(capsys, "--program", "/usr/bin/env", "--json")) == {"unit": text.rstrip()}


def test_the_unit_waits_longer_than_the_engine(capsys: pytest.CaptureFixture[str]) -> None:
    fields = dict(re.findall(r"^(\w+)=(\d+)$", unit(capsys, "--program", "/usr/bin/env"), re.MULTILINE))

    assert int(fields["TimeoutStopSec"]) > 2 * Settings().grace
    assert int(fields["WatchdogSec"]) >= 2 * Settings().health.stall


def test_the_unit_lacks_the_options_that_functions_cannot_live_with(capsys: pytest.CaptureFixture[str]) -> None:
    rows = re.findall(r"^\| (`[A-Z].*?) \|", section(DOCS / "running.md", "A service of systemd"), re.MULTILINE)
    absent = {name for row in rows for name in re.findall(r"\w+", row)}
    set_in_unit = set(re.findall(r"^(\w+)=", unit(capsys, "--program", "/usr/bin/env"), re.MULTILINE))

    assert {"RestrictNamespaces", "RestrictSUIDSGID", "ProtectHostname", "ProtectControlGroups"} <= absent
    assert not absent & set_in_unit
    assert {"NoNewPrivileges", "ProtectSystem", "Delegate"} <= set_in_unit


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--program", "/home/ann/.venv/bin/functiond"), "the service cannot see /home/ann/.venv/bin/functiond"),
        (("--program", "/opt/nowhere/functiond"), "there is no program /opt/nowhere/functiond"),
        (("--program", "/usr/bin"), "there is no program /usr/bin"),
        (("--program", "/usr/bin/env", "--config", "/root/f.toml"), "the service cannot see /root/f.toml"),
        (
            ("--program", "/usr/bin/env", "--config", "/etc/../home/f.toml"),
            "the service cannot see /etc/../home/f.toml",
        ),
        (("--program", "/usr/bin/env", "--config", "/etc/a b.toml"), "'/etc/a b.toml' has characters"),
        (("--program", "/usr/bin/env", "--config", "/etc/%n.toml"), "'/etc/%n.toml' has characters"),
    ],
)
def test_a_program_that_a_service_cannot_start_is_refused(
    arguments: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["unit", *arguments]) == USAGE
    assert said in capsys.readouterr().err


def test_systemd_accepts_the_unit_and_rates_it_as_documented(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    analyze = program("systemd-analyze")
    file = tmp_path / "functiond.service"
    file.write_text(unit(capsys, "--program", "/usr/bin/env"))

    verified = subprocess.run([analyze, "verify", "--man=no", str(file)], capture_output=True, text=True)
    security = [analyze, "security", "--offline=yes", f"--threshold={HIGHEST_EXPOSURE * 10:.0f}", str(file)]
    rated = subprocess.run(security, capture_output=True, text=True)

    assert "functiond" not in verified.stderr
    assert rated.returncode == 0, rated.stdout[-200:]
