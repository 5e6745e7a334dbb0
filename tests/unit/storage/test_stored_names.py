"""Names of fields in stored JSON, which outlive names in the code."""

from __future__ import annotations

import msgspec
import pytest

from engine.model import Function
from engine.resources.reservations import Reservation


@pytest.mark.parametrize("kind", [Function, Reservation])
def test_the_key_at_creation_is_stored_under_its_first_name(kind: type[msgspec.Struct]) -> None:
    fields = {field.name: field.encode_name for field in msgspec.structs.fields(kind)}

    assert fields["created_key"] == "born"
