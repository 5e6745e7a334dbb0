"""The documentation as text: form, links, blocks that are data, and generated pages."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

from engine.cli.commands import make_app, run
from engine.cli.unit import PROGRAM
from engine.config.plugin_registry import Registry, load_plugins
from engine.config.settings import load_settings
from engine.docs.generate import PAGES as GENERATED
from engine.docs.generate import stale
from tests.support.certificates import write_certificate
from tests.support.documents import DOCS, OTHERS, PAGES, README, ROOT, anchors, blocks, page_id, prose, section
from tests.support.programs import program

#: Blocks that start engines or benchmarks; tests/test_readme.py runs some of them.
PROGRAMS = {"sh", "python", "js", "go", "java", "console"}
DATA = {"toml", "json", "nginx", "caddy", "ini", "hcl", ""}
VAGUE = re.compile(r"(?:^(?:- |\d\. )?|[.:?!] )(What|Who|Whose|That|Which|By|It|There)\b")

each_page = pytest.mark.parametrize("page", [*PAGES, *OTHERS], ids=page_id)


def test_the_readme_stays_short() -> None:
    assert len(README.read_text().splitlines()) <= 250


@each_page
def test_lines_have_a_width(page: Path) -> None:
    text = [line for line in prose(page) if not line.startswith("|")]
    code = [line for block in blocks(page) for line in block.text.splitlines()]

    assert [line for line in text if len(line) > 140] == []
    assert [line for line in code if len(line) > 160] == []


@each_page
def test_sentences_name_their_subjects(page: Path) -> None:
    paragraphs = " ".join(line or "\n" for line in prose(page) if not line.startswith("|")).split("\n")

    assert [word for paragraph in paragraphs for word in VAGUE.findall(paragraph.strip())] == []


@each_page
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\[[^\]]+\]\(([^)\s]+)\)", "\n".join(prose(page)))
    broken = []
    for link in links:
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)

    assert broken == []


def test_the_index_names_every_page() -> None:
    named = set(re.findall(r"^- \[[^\]]+\]\(([\w-]+\.md)\)", (DOCS / "index.md").read_text(), re.MULTILINE))

    assert named | {"index.md"} == {page.name for page in DOCS.glob("*.md")}


@each_page
def test_blocks_are_of_known_languages(page: Path) -> None:
    assert {block.language for block in blocks(page)} <= PROGRAMS | DATA


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_settings_in_pages_are_accepted(page: Path, tmp_path: Path) -> None:
    for block in blocks(page, "toml"):
        if page.name == "manifest.md":  # tests/test_readme.py applies it
            continue
        file = tmp_path / "functiond.toml"
        file.write_text(block.text)
        file.chmod(0o600)
        if block.file == "credentials.toml":
            settings = load_settings(overrides={"auth.file": str(file)})
            assert settings.auth.required
        else:
            settings = load_settings(file=file)
            Registry(load_plugins(settings.plugin), settings.plugins)


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_json_in_pages_is_json(page: Path) -> None:
    for block in blocks(page, "json"):
        json.loads(block.text)


def test_the_nginx_configuration_is_accepted(tmp_path: Path) -> None:
    (part,) = blocks(DOCS / "security.md", "nginx")
    assert part.text.count("{") == part.text.count("}") == 2

    write_certificate(tmp_path)
    text = re.sub(r"/etc/ssl/certs/[\w.]+", str(tmp_path / "cert.pem"), part.text)
    text = re.sub(r"/etc/ssl/private/[\w.]+", str(tmp_path / "key.pem"), text)
    (tmp_path / "nginx.conf").write_text(
        f"pid {tmp_path}/pid; error_log stderr; events {{}}\nhttp {{ access_log off;\n{text}}}\n"
    )
    command = [program("nginx"), "-t", "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf")]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def test_the_caddy_configuration_is_accepted(tmp_path: Path) -> None:
    (part,) = blocks(DOCS / "running.md", "caddy")
    (tmp_path / "Caddyfile").write_text(part.text)
    caddy = program("caddy")

    command = [caddy, "validate", "--adapter", "caddyfile", "--config", str(tmp_path / "Caddyfile")]
    environment = dict.fromkeys(("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"), str(tmp_path))
    run = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert run.returncode == 0, run.stderr
    formatted = subprocess.run([caddy, "fmt", str(tmp_path / "Caddyfile")], capture_output=True, text=True)
    assert formatted.stdout == part.text


def _units() -> dict[str, str]:
    documented = {Path(block.text.split()[1]).name: block.text for page in PAGES for block in blocks(page, "ini")}
    # Without the program, systemd says that it is not there.
    documented = {name: text.replace("/opt/ray/bin/ray", "/usr/bin/env") for name, text in documented.items()}
    service = (DOCS / "deploy" / "functiond.service").read_text().replace(PROGRAM, "/usr/bin/env")
    return {**documented, "functiond.service": service}


def test_units_are_sections_of_keys_and_values() -> None:
    others = {"functiond-backup.service", "functiond-backup.timer", "functiond-ray.service"}
    assert set(_units()) == {"functiond.service", *others}
    for text in _units().values():
        assert all(re.fullmatch(r"[A-Z]\w+=.*|\[\w+\]|# .*|", line) for line in text.splitlines())


def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    for name, text in _units().items():
        (tmp_path / name).write_text(text)

    command = [program("systemd-analyze"), "verify", "--man=no", *(str(tmp_path / name) for name in _units())]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "functiond" not in run.stderr


def test_the_manifest_for_kuberay_agrees_with_the_settings(tmp_path: Path) -> None:
    text = (DOCS / "deploy" / "kuberay.yaml").read_text()
    cluster, settings, service, engine = pytest.importorskip("yaml").safe_load_all(text)
    file = tmp_path / "functiond.toml"
    credentials = tmp_path / "credentials.toml"
    credentials.write_text('[[tokens]]\ntoken = "another-sixteen-characters"\nproject = "shop"\n')
    credentials.chmod(0o600)
    file.write_text(settings["data"]["functiond.toml"].replace("/run/secrets/functiond", str(tmp_path)))
    loaded = load_settings(file=file)
    nodes, pod = loaded.executor.nodes, engine["spec"]["template"]["spec"]

    assert nodes.ray == f"{cluster['metadata']['name']}-head-svc:6379"
    assert nodes.url == f"https://{service['metadata']['name']}:8443"
    assert [port["port"] for port in service["spec"]["ports"]] == [loaded.http.port, 8443]
    assert nodes.listen == "0.0.0.0:8443"
    assert nodes.ray in pod["containers"][1]["command"]
    assert {mount["name"] for container in pod["containers"] for mount in container["volumeMounts"]} == {
        *(volume["name"] for volume in pod["volumes"]),
        *(claim["metadata"]["name"] for claim in engine["spec"]["volumeClaimTemplates"]),
    }
    secret = cluster["spec"]["authOptions"]["secretName"]
    assert all(container["env"][1]["valueFrom"]["secretKeyRef"]["name"] == secret for container in pod["containers"])


def test_generated_pages_are_fresh() -> None:
    assert stale() == [], "a generated page is stale: run python -m engine.docs"
    assert set(GENERATED) == {"api.md", "settings.md"}


def test_the_table_of_commands_is_complete() -> None:
    named = set(re.findall(r"^\| `(\w+)", section(DOCS / "operations.md", "Command line"), re.MULTILINE))

    assert named == {name for name in make_app(()) if not name.startswith("-")}


def test_every_option_in_the_table_of_commands_exists(capsys: pytest.CaptureFixture[str]) -> None:
    table = section(DOCS / "operations.md", "Command line").replace("\\|", "/")
    rows = re.findall(r"^\| `(\w+)[^|]*?` \|(.*)\|$", table, re.MULTILINE)
    named = {name: set(re.findall(r"--[a-z][a-z-]+", row)) for name, row in rows}
    helps = {name: _help(name, capsys) for name, options in named.items() if options}

    missing = [
        (name, option) for name, options in named.items() for option in options if f" {option} " not in helps[name]
    ]
    assert missing == []
    assert len(helps) >= 4


def _help(name: str, capsys: pytest.CaptureFixture[str]) -> str:
    """Return the help texts of a command and of its own commands."""
    own = [command for command in make_app((name,))[name] if not command.startswith("-")]
    for arguments in ([name], *([name, command] for command in own)):
        assert run([*arguments, "--help"]) == 0
    return capsys.readouterr().out


def test_the_quick_start_installs_what_the_package_offers() -> None:
    start, tests = (block.text for block in blocks(README, "sh") if "-m venv" in block.text)
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert start.endswith("-m engine serve --demo\n")
    assert set(re.findall(r"\.\[(\w+)\]", tests)) <= set(project["optional-dependencies"])
    assert (tests.count("\n"), start.count("\n")) == (1, 1)


def test_extras_in_pages_are_offered() -> None:
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = {extra for page in PAGES for extra in re.findall(r"pip install '\.\[(\w+)\]'", page.read_text())}

    assert named <= set(project["optional-dependencies"])
    assert len(named) > 5


def test_the_page_of_default_values_agrees_with_the_settings() -> None:
    settings, page = ((DOCS / name).read_text() for name in ("settings.md", "defaults.md"))
    defaults = dict(re.findall(r"^\| `([\w.<>]+)` \| [^|]+ \| (.*?)(?: \([^|]*)? \|", settings, re.MULTILINE))
    rows = re.findall(r"^\| [^|]*\| ([^|]*) \| `([\w.]+)` \|", page, re.MULTILINE)

    assert [(setting, cell) for cell, setting in rows if f"`{defaults.get(setting)}`" not in cell] == []
    assert len(rows) > 40
