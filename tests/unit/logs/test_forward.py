"""Forwarded log lines, on real files, pipes and sockets. tests/acceptance/test_logs.py has those of an engine."""

from __future__ import annotations

import json
import os
import resource
import socket
from functools import partial
from pathlib import Path

import pytest
from anyio import to_thread
from structlog.testing import capture_logs

from engine.errors import SettingsError
from engine.logs import forward
from engine.logs.forward import Forwarder, LogsSettings, forwarding
from engine.logs.lines import ERROR, LOGGER, STDOUT
from tests.support.executing import function, invocation
from tests.support.waiting import until

F, RUN = function("f"), invocation()


async def test_journald_gets_an_entry_for_each_line_with_its_fields(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(str(tmp_path / "socket"))
        with forwarding(to_socket := LogsSettings(forward="journald", file=str(tmp_path / "socket"))) as forwarder:
            assert isinstance(forwarder, Forwarder)
            message = f"2026-01-01T00:00:00.000Z {RUN.request_id} ERROR torn=1\nand more\n"
            forwarder.add(F, RUN, "i1", 1_764_041_045_123, LOGGER, message.encode())
            forwarder.add(F, None, "i1", 1 << 63, STDOUT, b"a" * (1 << 20) + b"\nb\n")
            await until(lambda: forwarder.written == 3)
        first, *others = [journal.recv(1 << 18, socket.MSG_DONTWAIT) for _ in range(3)]

    head = (
        "SYSLOG_IDENTIFIER=functiond|PRIORITY=3|FUNCTIOND_TIME=2025-11-25T03:24:05.123Z|FUNCTIOND_PROJECT=p|"
        f"FUNCTIOND_FUNCTION=f|FUNCTIOND_VERSION=latest|FUNCTIOND_REQUEST_ID={RUN.request_id}|FUNCTIOND_ATTEMPT=1|"
        "FUNCTIOND_LEVEL=ERROR|FUNCTIOND_INSTANCE=i1|MESSAGE|\x0f\0\0\0\0\0\0\0"
    )
    assert (first, others[1][-2:]) == (head.replace("|", "\n").encode() + b"torn=1\nand more\n", b"b\n")
    with pytest.raises(SettingsError, match=r"logs.forward: cannot open .*/socket \(Connection refused\)"):
        forwarding(to_socket).__enter__()


async def test_a_stuck_reader_loses_whole_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forward, "LIMIT", 1 << 18)
    fifo, sent, got = tmp_path / "fifo", 10_000, bytearray()
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDWR)
    with capture_logs() as logs, forwarding(LogsSettings(forward="file", file=str(fifo))) as forwarder:
        assert isinstance(forwarder, Forwarder)
        for number in range(sent):
            forwarder.add(F, RUN, "i1", 1, STDOUT, b"%d\n" % number)
        lost = forwarder.lost  # while nobody reads
        while got.count(b"\n") < sent - lost:
            got += await to_thread.run_sync(os.read, reader, 1 << 16)
    os.close(reader)

    assert [json.loads(line)["text"] for line in got.splitlines()] == [*map(str, range(sent - lost))]
    assert (lost > 0, [entry["reason"] for entry in logs]) == (True, ["their reader is too slow"])


async def test_lines_that_cannot_be_written_are_lost_whole(tmp_path: Path) -> None:
    file, (soft, hard) = tmp_path / "lines", resource.getrlimit(resource.RLIMIT_FSIZE)
    with forwarding(LogsSettings(forward="file", file=str(file))) as forwarder:
        assert isinstance(forwarder, Forwarder)
        for done, limit in (((1, 0), soft), ((1, 1), 300), ((2, 1), soft)):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
            forwarder.add(F, RUN, "i1", 1, ERROR, b"%d%d" % done)
            await until(partial(lambda counts: (forwarder.written, forwarder.lost) == counts, done))

    assert [json.loads(line)["text"] for line in file.read_text().splitlines()] == ["10", "21"]
