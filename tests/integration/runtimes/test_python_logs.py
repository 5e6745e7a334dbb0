"""Output of a Python function through every channel: LOG frames and raw bytes."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from engine.runtimes.protocol import LONGEST_TEXT
from tests.support.python_process import VERSIONS, Line, PythonProcess, interpreter

STDOUT, STDERR, LOGGER = 1, 2, 3


def written(folder: Path, body: str) -> list[Line]:
    """Return the output of a handler with this body."""
    with PythonProcess(folder, _handler(body)) as instance:
        instance.call()
        return instance.lines


def _handler(body: str) -> str:
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    return f"import codecs, io, logging, os, sys, threading\ndef handler(event, context):\n{lines}"


@pytest.mark.parametrize(
    ("body", "line"),
    [
        ("print('out')", Line(1, STDOUT, "out")),
        ("print('err', file=sys.stderr)", Line(1, STDERR, "err")),
        ("sys.stdout.write('no end')", Line(1, STDOUT, "no end")),
        ("sys.stdout.buffer.write(b'bytes\\n')", Line(1, STDOUT, "bytes")),
        ("sys.stdout.writelines(['a', 'b\\n'])", Line(1, STDOUT, "ab")),
        ("sys.__stdout__.write('original')", Line(1, STDOUT, "original")),
        ("codecs.getwriter('utf-8')(sys.stdout.detach()).write('wrapped')", Line(1, STDOUT, "wrapped")),
        ("io.TextIOWrapper(sys.stderr.buffer).write('wrapped')", Line(1, STDERR, "wrapped")),
        ("print(sys.stdout.encoding, sys.stdout.isatty(), sys.stdout.closed)", Line(1, STDOUT, "utf-8 False False")),
        ("print('ünï ✓ \\U0001f600')", Line(1, STDOUT, "ünï ✓ \U0001f600")),
        ("print('\\ud800')", Line(1, STDOUT, "\\ud800")),
        ("logging.warning('by %s', 'logging')", Line(1, STDERR, "WARNING:root:by logging")),
        ("logging.getLogger('mine').error('named')", Line(1, STDERR, "named")),
        (
            "import warnings; warnings.warn_explicit('old', UserWarning, 'f.py', 7)",
            Line(1, STDERR, "f.py:7: UserWarning: old"),
        ),
    ],
)
def test_a_line_is_the_requests_however_it_is_written(tmp_path: Path, body: str, line: Line) -> None:
    assert written(tmp_path, body) == [line]


@pytest.mark.parametrize(
    ("call", "level", "text"),
    [
        ("logger.info('%d of %s', 1, 'two')", "INFO", "1 of two"),
        ("logger.warn('w')", "WARN", "w"),
        ("logger.warning('w')", "WARN", "w"),
        ("logger.error({'a': 1})", "ERROR", "{'a': 1}"),
        ("logger.debug('100%')", "DEBUG", "100%"),
        ("logger.info('%s and %s', 'one')", "INFO", "%s and %s one"),
        ("logger.info('took %d', float('inf'))", "INFO", "took %d inf"),
        ("logger.info('plain', 'extra')", "INFO", "plain extra"),
        ("logger.log('error', 'by name')", "ERROR", "by name"),
        ("logger.log(20, 'by %s', 'number')", "INFO", "by number"),
        ("logger.setLevel('ERROR'); logger.warn('no'); logger.error('yes')", "ERROR", "yes"),
        ("logger.setLevel(logging.WARNING); logger.info('no'); logger.warn('yes')", "WARN", "yes"),
    ],
)
def test_the_logger_writes_time_request_level_and_text(tmp_path: Path, call: str, level: str, text: str) -> None:
    (line,) = written(tmp_path, f"logger = context.getLogger()\n{call}")

    stamp, request, *rest = line.text.split(" ", 3)
    assert (line.ticket, line.stream, request, rest) == (1, LOGGER, "request-1", [level, text])
    assert (len(stamp), stamp[10], stamp[-1]) == (24, "T", "Z")


def test_a_logged_exception_brings_its_trace(tmp_path: Path) -> None:
    lines = written(tmp_path, "try: 1 / 0\nexcept Exception: context.getLogger().exception('it %s', 'failed')")

    assert (lines[0].text[-15:], lines[-1].text) == ("ERROR it failed", "ZeroDivisionError: division by zero")


def test_a_logger_that_is_kept_writes_for_the_request_that_runs(tmp_path: Path) -> None:
    source = """
def prepare(context):
    global logger
    logger = context.getLogger()
    logger.info("prepared")


def handler(event, context):
    logger.info("served")
"""
    with PythonProcess(tmp_path, source, initializer="index.prepare") as instance:
        instance.call()

    assert [line.text.split(" ", 1)[1] for line in instance.lines] == [" INFO prepared", "request-1 INFO served"]
    assert [line.ticket for line in instance.lines] == [0, 1]


@pytest.mark.parametrize("end", ["", "\\n"])
def test_a_line_longer_than_a_frame_is_split_between_characters(tmp_path: Path, end: str) -> None:
    with PythonProcess(tmp_path, _handler(f"print('a' + 'é' * 100_000, end='{end}')")) as instance:
        instance.call()

    assert "".join(line.text for line in instance.lines) == "a" + "é" * 100_000
    assert max(instance.sizes) <= LONGEST_TEXT


def test_lines_of_threads_stay_whole(tmp_path: Path) -> None:
    body = """
def work(name):
    for n in range(200):
        print(name, n, name)
threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
for thread in threads: thread.start()
for thread in threads: thread.join()"""

    lines = written(tmp_path, body)

    assert sorted(line.text for line in lines) == sorted(f"{name} {n} {name}" for name in "abcd" for n in range(200))


def test_a_signal_handler_that_writes_or_raises_tears_nothing(tmp_path: Path) -> None:
    body = """
import signal
class Late(Exception): pass
rounds, may_raise = [0], [False]
def alarm(*unused):
    rounds[0] += 1
    print("alarm")
    if rounds[0] % 2 and may_raise[0]:
        may_raise[0] = False
        raise Late
signal.signal(signal.SIGALRM, alarm)
signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
while rounds[0] < 200:
    try:
        may_raise[0] = True
        print("x" * 300_000)
        print("short")
        may_raise[0] = False
    except Late:
        pass
signal.setitimer(signal.ITIMER_REAL, 0)
return rounds[0]"""

    lines = written(tmp_path, body)

    assert set("".join(line.text for line in lines)) <= set("xalarmshort")
    assert "alarm" in "".join(line.text for line in lines)


def test_a_signal_between_requests_ends_nothing(tmp_path: Path) -> None:
    body = """
import signal
def ring(*unused):
    os.write(1, b"rung")
    raise TimeoutError("too late")
signal.signal(signal.SIGUSR1, ring)
return os.getpid()"""
    with PythonProcess(tmp_path, _handler(body)) as instance:
        instance.call()
        instance.process.send_signal(signal.SIGUSR1)
        assert instance.raw(4) == b"rung"

        assert instance.call() == instance.process.pid
    assert instance.lines[-1] == Line(0, STDERR, "between requests: TimeoutError: too late")


@pytest.mark.parametrize("version", VERSIONS)
async def test_whenever_a_signal_handler_raises_each_request_has_one_answer(tmp_path: Path, version: str) -> None:
    source = """
import random, signal
class Late(Exception): pass
def ring(*unused): raise Late
signal.signal(signal.SIGALRM, ring)
def handler(event, context): signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-6, 1e-4))
"""
    with PythonProcess(tmp_path, source, python=await interpreter(version)) as instance:
        for ticket in range(1, 2001):
            instance.ask(ticket=ticket)

            assert instance.answer().ticket == ticket


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_second_error_while_the_first_is_reported_ends_nothing(tmp_path: Path, version: str) -> None:
    source = """
import sys
class Late(Exception): pass
def raise_in(name):
    def ring(frame, event, arg):
        if event == "call" and frame.f_code.co_name == name: raise Late(name)
    return ring
def handler(event, context):
    sys.settrace(raise_in("recover"))
    sys.setprofile(raise_in("finish"))
"""
    with PythonProcess(tmp_path, source, python=await interpreter(version)) as instance:
        for ticket in range(1, 4):
            instance.ask(ticket=ticket)
            answer = instance.answer()

            assert (answer.ticket, answer.message.rpartition("error: ")[2]) == (ticket, "Late: recover")


def test_what_is_written_past_python_goes_to_the_descriptors(tmp_path: Path) -> None:
    body = """
import subprocess
os.write(1, b"os\\n")
os.system("echo shell")
subprocess.run(["echo", "sub"], check=True, stdout=sys.stdout)
if os.fork() == 0:
    print("child", 1)
    sys.stdout.write("no end")
    sys.stdout.flush()
    os._exit(0)
os.wait()"""
    with PythonProcess(tmp_path, _handler(body)) as instance:
        instance.call()
        instance.socket.close()

        assert (instance.raw(), instance.lines) == (b"os\nshell\nsub\nchild 1\nno end", [])


def test_lines_of_processes_stay_whole(tmp_path: Path) -> None:
    source = """
import multiprocessing


def work(name):
    for n in range(200):
        print(name, n, name)


def handler(event, context):
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=work, args=(name,)) for name in "abcd"]
    for child in children: child.start()
    for child in children: child.join()
"""
    with PythonProcess(tmp_path, source) as instance:
        instance.call()
        instance.socket.close()
        raw = instance.raw().decode().splitlines()

    assert sorted(raw) == sorted(f"{name} {n} {name}" for name in "abcd" for n in range(200))


@pytest.mark.parametrize("concurrency", [1, 2])
def test_what_a_thread_writes_after_the_answer_is_the_instances(tmp_path: Path, concurrency: int) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    body = "threading.Thread(target=lambda: print(open(event).read())).start()"
    with PythonProcess(tmp_path, _handler(body), concurrency=concurrency) as instance:
        instance.call(str(gate))
        gate.write_text("late")
        next(instance.frames())

    assert instance.lines == [Line(0, STDOUT, "late")]


def test_lines_before_the_first_request_are_the_instances(tmp_path: Path) -> None:
    source = (
        "print('loaded')\ndef prepare(context): print('prepared', end='')\ndef handler(event, context): print('served')"
    )
    with PythonProcess(tmp_path, source, initializer="index.prepare") as instance:
        instance.call()

    assert instance.lines == [Line(0, STDOUT, "loaded"), Line(0, STDOUT, "prepared"), Line(1, STDOUT, "served")]
