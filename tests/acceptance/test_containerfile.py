"""The Containerfile: what its instructions name exists, and an engine with its settings answers at the ports."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path

import pytest
from msgspec import convert

from engine.config.settings import COMMAND_VARIABLES, load_settings
from engine.errors import SettingsError
from plugins.apig.options import ApigSettings
from tests.acceptance.engine_process import PROJECT, engine_on
from tests.support.credentials import credentials_file, token
from tests.support.documents import DOCS, ROOT
from tests.support.gateways import API
from tests.support.ports import free_ports

FILE = DOCS / "deploy" / "Containerfile"
TOKEN = "another-sixteen-characters"
KNOWN = {
    *("ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM"),
    *("HEALTHCHECK", "RUN", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR"),
}


def instructions() -> list[tuple[str, str]]:
    """Return the instructions with their arguments, lines that go on joined."""
    text = re.sub(r"^#.*\n", "", FILE.read_text(), flags=re.MULTILINE).replace("\\\n", "")
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in text.splitlines() if line)]


def arguments(name: str) -> list[str]:
    return [rest for word, rest in instructions() if word == name]


def test_instructions_are_known_and_stages_exist() -> None:
    stages = [argument.rpartition(" AS ")[2] for argument in arguments("FROM") if " AS " in argument]

    assert {name for name, _ in instructions()} <= KNOWN
    assert re.findall(r"--from=(\w+)", FILE.read_text()) == stages


def test_the_build_copies_all_that_the_package_is_made_of() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {"pyproject.toml", project["project"]["readme"], *project["project"]["license-files"]}
    sources = [argument.split()[:-1] for argument in arguments("COPY") if not argument.startswith("--from")]
    copied = {name for names in sources for name in names}

    assert copied == needed | set(wheel["only-include"])
    assert all((ROOT / name).exists() for name in copied)


def test_extras_of_the_image_exist() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    [extras] = [
        argument.partition("=")[2].split(",") for argument in arguments("ARG") if argument.startswith("EXTRAS=")
    ]

    assert set(extras) <= set(project["optional-dependencies"])


def settings_of_the_image() -> dict[str, str]:
    return dict(re.findall(r"(FUNCTIOND_\w+)=(\S+)", " ".join(arguments("ENV"))))


def test_settings_of_the_image_are_settings_and_require_credentials(tmp_path: Path) -> None:
    environ = settings_of_the_image()
    assert not set(environ) & COMMAND_VARIABLES

    with pytest.raises(SettingsError, match="requires credentials"):
        load_settings(environ={**environ, **credentials_file(tmp_path)})
    settings = load_settings(environ={**environ, **credentials_file(tmp_path, token(TOKEN, PROJECT))})
    gateways = convert(settings.plugins["apig"], ApigSettings)

    assert settings.storage.data_dir in arguments("VOLUME")
    ports = (settings.http.port, gateways.port, gateways.dedicated.port)
    assert arguments("EXPOSE") == [" ".join(map(str, ports))]


def test_an_engine_with_the_settings_of_the_image_answers_at_each_published_port(tmp_path: Path) -> None:
    """Ask for it at 127.0.0.2: as at the address of a container, a listener on 127.0.0.1 does not answer there."""
    [check] = arguments("HEALTHCHECK")
    program, *options = json.loads(check.partition(" CMD ")[2])
    assert program.endswith("/python3")
    shared, dedicated = free_ports(2)
    ports = {"FUNCTIOND_PLUGINS__APIG__PORT": shared, "FUNCTIOND_PLUGINS__APIG__DEDICATED__PORT": dedicated}
    given = {**settings_of_the_image(), **{name: str(port) for name, port in ports.items()}}
    given |= credentials_file(tmp_path, token(TOKEN, PROJECT))

    def passes(port: int) -> bool:
        command = [sys.executable, *(option.replace(":8080", f":{port}") for option in options)]
        return subprocess.run(command, capture_output=True).returncode == 0

    def answers(port: int, path: str) -> int:
        with closing(HTTPConnection("127.0.0.2", port, timeout=60)) as connection:
            connection.request("GET", path)
            return connection.getresponse().status

    with engine_on(tmp_path / "data", **given) as engine:
        engine.headers["X-Auth-Token"] = TOKEN
        engine.create("hello", "def handler(event, context):\n    return {'statusCode': 418}\n")
        for kind in ("APIG", "DEDICATEDGATEWAY"):
            engine.trigger("hello", kind, {**API, "instance_id": "gateway"})

        assert passes(engine.port)
        assert answers(engine.port, "/healthz") == 200
        assert [answers(port, "/orders") for port in (shared, dedicated)] == [418, 418]
    assert not passes(engine.port)
