"""The Containerfile: what its instructions name exists, and its health check tells a healthy engine from none."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from engine.config.settings import COMMAND_VARIABLES, load_settings
from engine.errors import SettingsError
from tests.acceptance.engine_process import engine_on
from tests.support.documents import DOCS, ROOT
from tests.support.ports import free_port

FILE = DOCS / "deploy" / "Containerfile"
KNOWN = {
    *("ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM"),
    *("HEALTHCHECK", "RUN", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR"),
}


def instructions() -> list[tuple[str, str]]:
    """Return the instructions with their arguments, lines that go on joined."""
    text = re.sub(r"^#.*\n", "", FILE.read_text(), flags=re.MULTILINE).replace("\\\n", "")
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in text.splitlines() if line)]


def arguments(name: str) -> list[str]:
    return [rest for one, rest in instructions() if one == name]


def test_instructions_are_known_and_stages_exist() -> None:
    stages = [one.rpartition(" AS ")[2] for one in arguments("FROM") if " AS " in one]

    assert {name for name, _ in instructions()} <= KNOWN
    assert re.findall(r"--from=(\w+)", FILE.read_text()) == stages


def test_the_build_copies_all_that_the_package_is_made_of() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {"pyproject.toml", project["project"]["readme"], *project["project"]["license-files"]}
    sources = [one.split()[:-1] for one in arguments("COPY") if not one.startswith("--from")]
    copied = {name for names in sources for name in names}

    assert copied == needed | set(wheel["only-include"])
    assert all((ROOT / name).exists() for name in copied)


def test_extras_of_the_image_exist() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    [extras] = [one.partition("=")[2].split(",") for one in arguments("ARG") if one.startswith("EXTRAS=")]

    assert set(extras) <= set(project["optional-dependencies"])


def test_settings_of_the_image_are_settings_and_require_credentials(tmp_path: Path) -> None:
    environ = dict(re.findall(r"(FUNCTIOND_\w+)=(\S+)", " ".join(arguments("ENV"))))
    assert not set(environ) & COMMAND_VARIABLES
    file = tmp_path / "credentials.toml"
    file.touch(0o600)
    mounted = {**environ, "FUNCTIOND_AUTH__FILE": str(file)}

    with pytest.raises(SettingsError, match="requires credentials"):
        load_settings(environ=mounted)
    file.write_text('[[tokens]]\ntoken = "another-sixteen-characters"\nproject = "default"\n')
    settings = load_settings(environ=mounted)

    assert settings.storage.data_dir in arguments("VOLUME")
    assert str(settings.http.port) in arguments("EXPOSE")[0].split()


def test_the_health_check_tells_an_engine_from_none(tmp_path: Path) -> None:
    [check] = arguments("HEALTHCHECK")
    program, *options = json.loads(check.partition(" CMD ")[2])
    assert program.endswith("/python3")

    def passes(port: int) -> bool:
        command = [sys.executable, *(one.replace(":8080", f":{port}") for one in options)]
        return subprocess.run(command, capture_output=True).returncode == 0

    with engine_on(tmp_path / "data") as engine:
        assert passes(engine.port)
    assert not passes(free_port())
