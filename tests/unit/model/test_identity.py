from __future__ import annotations

import uuid

from hypothesis import given
from hypothesis import strategies as st

from engine.model.identity import NODE_BITS, Identity, accepted_at, key_at

KEYS = st.integers(0, (1 << 63) - 1)
NODES = st.integers(0, (1 << NODE_BITS) - 1)


@given(KEYS, NODES)
def test_a_request_id_is_a_uuid_that_gives_its_key_back(key: int, node: int) -> None:
    identity = Identity(node)

    request_id = identity.request_id(key)

    parsed = uuid.UUID(request_id)
    assert (parsed.version, parsed.variant) == (7, uuid.RFC_4122)
    assert identity.key_of(request_id) == identity.key_of(request_id.upper()) == key


@given(KEYS)
def test_the_id_of_another_data_directory_is_not_ours(key: int) -> None:
    assert Identity(1).key_of(Identity(2).request_id(key)) is None


@given(st.text(max_size=40))
def test_other_text_is_no_request_id(text: str) -> None:
    assert Identity(0xABC).key_of(text) is None


@given(st.lists(st.floats(0, 4e9), min_size=1), KEYS.filter(lambda key: key < 1 << 62))
def test_keys_grow_whatever_the_clock_does(moments: list[float], last: int) -> None:
    identity = Identity(1, last)

    keys = [last, *(identity.next_key(moment) for moment in moments)]

    assert keys == sorted(set(keys))


def test_a_key_tells_the_millisecond_of_acceptance() -> None:
    key = Identity(1).next_key(1_700_000_000.1234)

    assert accepted_at(key) == 1_700_000_000.123
    assert key >= key_at(1_700_000_000.123)
