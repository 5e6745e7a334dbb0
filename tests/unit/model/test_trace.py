"""Trace contexts in the form of the header ``traceparent``."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.model.trace import parse_trace, span_id_of, trace_id_of, trace_of

TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = "b7ad6b7169203331"


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        (f"00-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}-01"),
        (f"00-{TRACE}-{SPAN}-00", f"00-{TRACE}-{SPAN}-00"),
        (f"00-{TRACE}-{SPAN}-03", f"00-{TRACE}-{SPAN}-01"),
        (f"cc-{TRACE}-{SPAN}-01-more", f"00-{TRACE}-{SPAN}-01"),
        ("", ""),
        (f"ff-{TRACE}-{SPAN}-01", ""),
        (f"00-{TRACE}-{SPAN}-01-more", ""),
        (f"00-{TRACE}-{SPAN}-01\n", ""),
        (f"00-{'0' * 32}-{SPAN}-01", ""),
        (f"00-{TRACE}-{'0' * 16}-01", ""),
        (f"00-{TRACE.upper()}-{SPAN}-01", ""),
        (f"00-{TRACE}-{SPAN}", ""),
    ],
)
def test_a_valid_header_is_stored_as_version_00_and_another_counts_as_none(value: str, stored: str) -> None:
    assert trace_of(value.encode()) == stored


@given(st.binary(max_size=80))
def test_any_header_is_stored_in_one_form_or_not_at_all(value: bytes) -> None:
    stored = trace_of(value)

    assert stored == "" or str(parse_trace(stored)) == stored


def test_ids_are_derived_from_what_they_name() -> None:
    ids = {span_id_of("request", "run", attempt) for attempt in (1, 2, 1)}

    assert len(ids) == 2
    assert parse_trace(f"00-{trace_id_of('request')}-{ids.pop()}-01") is not None
