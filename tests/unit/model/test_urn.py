from __future__ import annotations

import pytest

from engine.errors import InvalidField
from engine.model.urn import FunctionUrn, parse_urn

WHOLE = "urn:fss:r1:p1:function:default:hello"


def parsed(text: str) -> FunctionUrn:
    return parse_urn(text, region="here", project="mine")


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("hello", "urn:fss:here:mine:function:default:hello:latest"),
        ("tools:hello", "urn:fss:here:mine:function:tools:hello:latest"),
        ("p1:tools:hello", "urn:fss:here:p1:function:tools:hello:latest"),
        ("p1:tools:hello:v1", "urn:fss:here:p1:function:tools:hello:v1"),
        (WHOLE, f"{WHOLE}:latest"),
        (f"{WHOLE}:!live", f"{WHOLE}:!live"),
    ],
)
def test_parts_that_a_short_form_omits_are_filled_in(text: str, meaning: str) -> None:
    assert str(parsed(text)) == meaning


def test_an_alias_is_distinguished_from_a_version() -> None:
    assert parsed(f"{WHOLE}:!live").alias == "live"
    assert parsed(f"{WHOLE}:v1").alias is None


def test_a_urn_knows_whether_it_named_a_version() -> None:
    assert parsed(f"{WHOLE}:latest").qualified
    assert not parsed(WHOLE).qualified


@pytest.mark.parametrize(
    "text", ["", ":", "a::b", "urn:fss:x", "urn:smn:r1:p1:function:default:f", "a:b:c:d:e", "x" * 270]
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(InvalidField):
        parsed(text)
