"""Engine with TLS: its address, the command line as its client, and a new certificate by SIGHUP."""

from __future__ import annotations

import json
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pytest
from msgspec import Struct

from engine.deploy.client import Client, NotTrusted
from tests.support.certificates import write_certificate
from tests.support.engine_process import CLEAN, ROOT, functiond
from tests.support.gateways import API
from tests.support.http_app import HELLO


class Engine(Struct):
    process: subprocess.Popen[str]
    log: IO[str]
    url: str
    folder: Path  #: of certificate and key

    def hang_up(self) -> Any:
        """Send SIGHUP and return the log line that follows."""
        self.process.send_signal(signal.SIGHUP)
        return said(self.log, "certificate")

    def add_api(self, kind: str) -> int:
        """Create a function with an HTTP API, and return the port of the gateway."""
        client = Client(self.url, "default", "", ca_file=str(self.folder / "cert.pem"))
        client.send("POST", "", json.dumps(HELLO).encode())
        trigger = {"trigger_type_code": kind, "event_data": {**API, "instance_id": "i"}}
        client.of_project.send("POST", "/triggers/hello", json.dumps(trigger).encode())
        port: int = said(self.log, "gateway serves")["port"]
        return port

    def presented(self) -> str:
        return presented(int(self.url.rpartition(":")[2]))


def presented(port: int) -> str:
    """Return the certificate that the listener at this port presents, without any check."""
    return ssl.get_server_certificate(("127.0.0.1", port), timeout=60)


def said(log: IO[str], event: str) -> Any:
    """Return the next log line whose event starts with ``event``."""
    return next(line for text in log if (line := json.loads(text))["event"].startswith(event))


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    write_certificate(tmp_path)
    command = [sys.executable, "-m", "engine", "serve", "--port", "0", "--data-dir", str(tmp_path / "data")]
    command += ["--tls-cert", str(tmp_path / "cert.pem"), "--tls-key", str(tmp_path / "key.pem")]
    gateways = {"FUNCTIOND_PLUGINS__APIG__PORT": "0", "FUNCTIOND_PLUGINS__APIG__DEDICATED__PORT": "0"}
    environ = {**CLEAN, **gateways, "FUNCTIOND_LOG__FORMAT": "json"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, env=environ, text=True, cwd=ROOT) as process:
        assert process.stderr is not None
        try:
            url = said(process.stderr, "serving")["url"]
            yield Engine(process=process, log=process.stderr, url=url, folder=tmp_path)
        finally:
            process.terminate()


def test_the_command_line_uses_an_engine_whose_certificate_it_knows(engine: Engine) -> None:
    trusted = functiond(
        "functions", "--json", url=engine.url, environ={"FUNCTIOND_CA_FILE": str(engine.folder / "cert.pem")}
    )
    unknown = functiond("functions", url=engine.url)
    missing = functiond("functions", "--ca-file", str(engine.folder / "none.pem"), url=engine.url)

    assert engine.url.startswith("https://127.0.0.1:")
    assert (trusted.returncode, json.loads(trusted.stdout)) == (0, [])
    assert unknown.returncode == 1
    assert "is not trusted (self-signed certificate)" in " ".join(unknown.stderr.split())
    assert missing.returncode == 2
    assert "--ca-file is" in missing.stderr


def test_a_new_certificate_holds_after_sighup_without_a_restart(engine: Engine) -> None:
    before = engine.presented()

    write_certificate(engine.folder)
    line = engine.hang_up()

    assert line["event"] == "certificate replaced"
    assert before != engine.presented() == (engine.folder / "cert.pem").read_text()
    assert Client(engine.url, "default", "", ca_file=str(engine.folder / "cert.pem")).get()["functions"] == []


@pytest.mark.parametrize("kind", ["APIG", "DEDICATEDGATEWAY"])
def test_gateways_take_the_new_certificate_too(engine: Engine, kind: str) -> None:
    port = engine.add_api(kind)
    before = presented(port)

    write_certificate(engine.folder)
    assert engine.hang_up()["event"] == "certificate replaced"

    assert before != presented(port) == (engine.folder / "cert.pem").read_text()


def test_a_broken_certificate_is_logged_and_the_old_one_stays(engine: Engine) -> None:
    before = engine.presented()

    (engine.folder / "key.pem").write_text("no key")
    line = engine.hang_up()

    assert (line["event"], line["level"]) == ("certificate not replaced", "error")
    assert str(engine.folder / "key.pem") in line["problem"]
    assert engine.presented() == before
    with pytest.raises(NotTrusted):
        Client(engine.url, "default", "").get()


@pytest.mark.parametrize(
    ("given", "problem"), [("CERTIFICATE", "set http.tls_key too"), ("KEY", "set http.tls_certificate too")]
)
def test_one_of_the_two_files_does_not_start_an_engine(tmp_path: Path, given: str, problem: str) -> None:
    write_certificate(tmp_path)

    ended = functiond(
        "serve",
        "--data-dir",
        str(tmp_path / "data"),
        environ={f"FUNCTIOND_HTTP__TLS_{given}": str(tmp_path / "cert.pem")},
    )

    assert ended.returncode == 2
    assert problem in " ".join(ended.stderr.split())
