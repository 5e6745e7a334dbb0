from __future__ import annotations

import uuid

from hypothesis import given
from hypothesis import strategies as st

from engine.model.identity import COUNTER_BITS, NODE_BITS, SLOT_BITS, Identity, accepted_at, key_at

KEYS = st.integers(0, (1 << 63) - 1)
NODES = st.integers(0, (1 << NODE_BITS) - 1)
SLOTS = st.integers(0, (1 << SLOT_BITS) - 1)
MOMENTS = st.lists(st.floats(0, 4e9), min_size=1)
LAST_KEYS = KEYS.filter(lambda key: key < 1 << 62)


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


@given(MOMENTS, LAST_KEYS, SLOTS)
def test_keys_increase_from_any_earlier_key_and_whatever_the_clock_does(
    moments: list[float], last: int, slot: int
) -> None:
    identity = Identity(1, last, slot)

    keys = [last, *(identity.next_key(moment) for moment in moments)]

    assert keys == sorted(set(keys))


@given(MOMENTS, LAST_KEYS, SLOTS)
def test_keys_after_a_passed_key_are_larger(moments: list[float], passed: int, slot: int) -> None:
    identity = Identity(1, slot=slot)
    before = identity.next_key(moments[0])
    identity.pass_by(passed)

    assert identity.next_key(moments[-1]) > max(before, passed)


@given(st.lists(st.tuples(st.sampled_from([3, 17]), st.integers(0, 5)), max_size=2000), LAST_KEYS)
def test_engines_with_different_slots_never_issue_the_same_key(calls: list[tuple[int, int]], last: int) -> None:
    engines = {slot: Identity(1, last, slot) for slot in (3, 17)}

    keys = [engines[slot].next_key(1_700_000_000 + millisecond / 1000) for slot, millisecond in calls]

    assert len(set(keys)) == len(keys)


def test_a_millisecond_with_more_keys_than_the_counter_holds_continues_in_the_next() -> None:
    identity, moment = Identity(1, slot=63), 1_700_000_000.5

    *first, over = [identity.next_key(moment) for _ in range((1 << COUNTER_BITS) + 1)]

    assert {accepted_at(key) for key in first} == {moment}
    assert accepted_at(over) == moment + 0.001


def test_keys_issued_after_an_upgrade_are_larger_than_those_with_a_counter_of_15_bits() -> None:
    moment = 1_700_000_000.5
    old = key_at(moment) + (1 << 15) - 1  # the last key of this millisecond

    assert Identity(1, old).next_key(moment) > old
    assert accepted_at(old) == moment


def test_the_request_id_of_a_key_stays_as_earlier_versions_wrote_it() -> None:
    key = key_at(1_700_000_000.123) + 12_345

    assert Identity(0x123456789ABCDEF).request_id(key) == "018bcfe5-687b-7607-8923-456789abcdef"


@given(st.floats(0, 4e9), SLOTS)
def test_a_key_lies_between_its_moment_and_the_next_millisecond(moment: float, slot: int) -> None:
    key = Identity(1, slot=slot).next_key(moment)

    assert key_at(moment) <= key < key_at(moment + 0.0011)
    assert accepted_at(key) == int(moment * 1000) / 1000


def test_a_beginning_of_a_request_id_names_the_keys_that_have_it() -> None:
    identity = Identity(node=12345)
    key = identity.next_key(1_700_000_000.0)
    request_id = identity.request_id(key)

    for length in range(1, 37):
        ends = identity.range_of(request_id[:length].upper())
        assert ends is not None
        first, last = ends
        assert first <= key <= last
        if length > 1:
            outer = identity.range_of(request_id[: length - 1])
            assert outer is not None
            assert outer[0] <= first <= last <= outer[1]
    assert identity.range_of(request_id) == (key, key)


def test_texts_that_begin_no_request_id_name_no_keys() -> None:
    identity = Identity(node=12345)
    request_id = identity.request_id(identity.next_key(1_700_000_000.0))
    other = Identity(node=54321).request_id(identity.next_key(1_700_000_000.0))

    texts = ("", "-", "x", "<script>", request_id + "0", request_id.replace("-", ""), "018bcfe5-6800-4", other)
    assert [identity.range_of(text) for text in texts] == [None] * len(texts)
