"""Log lines for requests that are denied."""

from __future__ import annotations

from structlog.testing import capture_logs

from engine.auth.denials import LINES, SPAN, DenialLog
from engine.auth.roles import Principal
from tests.doubles import ManualClock


def test_lines_about_anonymous_clients_are_limited_and_the_others_counted() -> None:
    clock = ManualClock()
    denials = DenialLog(clock)

    with capture_logs() as lines:
        for number in range(LINES + 5):
            denials.anonymous("not authenticated", client=f"192.0.2.{number}")
        clock.advance(SPAN)
        for _ in range(2):
            denials.anonymous("not authenticated", client="192.0.2.1")

    assert len(lines) == LINES + 2
    assert [line.get("left_out") for line in lines[-3:]] == [None, 5, None]


def test_denials_of_one_credential_neither_fill_the_log_nor_hide_those_of_another() -> None:
    clock = ManualClock()
    denials = DenialLog(clock)
    noisy, other = (Principal(name=name, project="p", prefix="/v2/p/", expires=0.0) for name in ("AK1", "AK2"))
    scope = {"method": "GET", "path": "/v2/other/x", "client": ("192.0.2.1", 1)}

    with capture_logs() as lines:
        for _ in range(LINES + 5):
            denials.known(noisy, scope, "these credentials are for project p only")
        denials.known(other, scope, "these credentials are for project p only")
        denials.anonymous("access denied")
        clock.advance(SPAN)
        denials.known(noisy, scope, "these credentials are for project p only")

    assert [line.get("credential") for line in lines] == [*["AK1"] * LINES, "AK2", None, "AK1"]
    assert [line.get("left_out") for line in lines[-3:]] == [None, None, 5]


def test_a_clock_that_is_set_back_silences_nothing() -> None:
    clock = ManualClock()
    denials = DenialLog(clock)
    with capture_logs() as lines:
        for _ in range(LINES + 1):
            denials.anonymous("not authenticated")
        clock.advance(-3600.0)
        denials.anonymous("not authenticated")

    assert len(lines) == LINES + 1
