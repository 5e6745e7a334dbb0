from __future__ import annotations

import errno

from engine.errors.groups import MOST_CAUSES, with_cause

REFUSED = ConnectionRefusedError(errno.ECONNREFUSED, "Connect call failed")


def raised(error: Exception, cause: BaseException | None) -> Exception:
    error.__cause__ = cause
    return error


def test_the_error_of_the_system_that_caused_another_is_added() -> None:
    middle = raised(OSError("All connection attempts failed"), REFUSED)
    error = raised(RuntimeError("no connection"), middle)

    assert with_cause("no connection", error) == f"no connection: {REFUSED}"


def test_a_cause_that_a_library_suppresses_is_added() -> None:
    middle = raised(OSError("All connection attempts failed"), None)
    middle.__context__ = REFUSED

    assert with_cause("failed", raised(RuntimeError("failed"), middle)) == f"failed: {REFUSED}"


def test_an_error_that_was_raised_from_none_has_no_cause() -> None:
    error = raised(OSError("not there"), None)
    error.__context__ = REFUSED

    assert with_cause("not there", error) == "not there"


def test_an_error_in_a_group_is_a_cause() -> None:
    error = raised(OSError("failed"), ExceptionGroup("attempts", [REFUSED, TimeoutError()]))

    assert with_cause("failed", error) == f"failed: {REFUSED}"


def test_a_cause_that_the_text_contains_is_not_repeated() -> None:
    assert with_cause(f"gone: {REFUSED}", raised(OSError("gone"), REFUSED)) == f"gone: {REFUSED}"


def test_a_cause_that_is_no_error_of_the_system_is_left_out() -> None:
    assert with_cause("bad", raised(ValueError("bad"), KeyError("x"))) == "bad"


def test_a_chain_without_end_ends() -> None:
    one, two = ValueError("one"), ValueError("two")
    one.__cause__, two.__cause__ = two, one

    assert MOST_CAUSES > 2
    assert with_cause("one", one) == "one"
