"""Validation of ``event_data``: accepted values are returned unchanged, others rejected with a reason."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Meta, Struct

from engine.config.plugin_registry import Registry, load_plugins
from engine.errors import InvalidTrigger
from engine.model.text import MASK, without_nulls
from engine.protocols import Plugin
from engine.resources.trigger_rules import (
    changed,
    check_mode,
    field_names,
    marked,
    masked,
    read_options,
    stored_form,
)
from plugins.cts.options import CtsOptions
from plugins.obs.options import ObsOptions, conflicts
from tests.acceptance.triggering import GOOD

REGISTRY = Registry(load_plugins())
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
)


class Login(Struct, frozen=True, kw_only=True):
    password: Annotated[str, Meta(extra={"secret": True})] = ""
    user: str = ""

    def __post_init__(self) -> None:
        if self.password and not self.user:
            raise ValueError("a password needs a user")


def test_options_that_exclude_each_other_are_refused_without_showing_secrets() -> None:
    plugin = Plugin(kinds=("OWN",), options=Login)

    with pytest.raises(InvalidTrigger, match=r"^event_data is .*a password needs a user") as told:
        read_options("OWN", plugin, {"password": "tiger"})
    assert "tiger" not in str(told.value)


def plugin_of(kind: str) -> Plugin:
    plugin = REGISTRY.trigger(kind)
    assert plugin is not None
    return plugin


@pytest.mark.parametrize("kind", sorted(GOOD))
@settings(max_examples=60)
@given(st.data())
def test_any_data_is_read_or_refused_and_comes_back_the_same(kind: str, data: st.DataObject) -> None:
    plugin = plugin_of(kind)
    changes = data.draw(st.dictionaries(st.sampled_from([*field_names(plugin.options), "x"]), anything, max_size=3))
    given_data = without_nulls({**GOOD[kind], **changes})

    options, refused = None, None
    try:
        options = read_options(kind, plugin, given_data)
        check_mode(kind, plugin, given_data, options, free=False)
    except InvalidTrigger as error:
        refused = error

    if refused is None:
        assert read_options(kind, plugin, stored_form(options, given_data)) == options
    else:
        assert (refused.kind, refused.field.partition(".")[0]) == (kind, "event_data")


@pytest.mark.parametrize("kind", sorted(GOOD))
def test_every_kind_has_all_it_needs_to_be_kept(kind: str) -> None:
    plugin, names = plugin_of(kind), set(field_names(plugin_of(kind).options))

    assert set(plugin.rules.unique) <= names
    assert {plugin.rules.mode_option} <= {"", *names}
    assert {name for name in names if "password" in name or name.endswith("_key")} == marked(plugin, "secret")
    assert plugin.rules.vendor


def test_a_mask_is_as_long_for_every_secret_and_absent_for_none() -> None:
    plugin = plugin_of("KAFKA")

    assert masked(plugin, {"kafka_password": "x" * 99, "batch_size": 1}) == {"kafka_password": MASK, "batch_size": 1}
    assert masked(plugin, {"kafka_password": ""}) == {"kafka_password": ""}


def test_objects_in_an_update_are_merged_into_those_that_are_there() -> None:
    old = {"name": "a", "func_info": {"timeout": 1, "invocation_type": "sync"}}

    new = changed(plugin_of("APIG"), old, [{"func_info": {"invocation_type": "async"}}, {"name": None}, {"path": "/"}])

    assert new == {"name": "a", "func_info": {"timeout": 1, "invocation_type": "async"}, "path": "/"}
    assert old["func_info"] == {"timeout": 1, "invocation_type": "sync"}


def test_data_is_stored_with_the_keys_that_were_given_at_any_depth() -> None:
    plugin, short = plugin_of("APIG"), {**GOOD["APIG"], "func_info": {"timeout": 7}, "cors": False, "unknown": 1}

    stored = stored_form(read_options("APIG", plugin, short), short)

    assert stored == {**GOOD["APIG"], "func_info": {"timeout": 7}, "cors": False}


def test_an_object_in_an_update_replaces_all_that_was_there() -> None:
    old = {"instance_id": "i", "batch_size": 1, "kafka_user": "u", "kafka_password": "tiger"}

    new = changed(plugin_of("KAFKA"), old, {"instance_id": "j", "kafka_password": MASK, "kafka_user": None})
    without = changed(plugin_of("KAFKA"), {"instance_id": "i"}, {"instance_id": "j", "kafka_password": MASK})

    assert new == {"instance_id": "j", "kafka_password": "tiger"}
    assert without == {"instance_id": "j"}
    assert changed(plugin_of("KAFKA"), old, []) == old


@pytest.mark.parametrize(
    "events",
    [
        ["ObjectCreated"],
        ["s3:ObjectCreated:*"],
        ["ObjectCreated:*"],
        ["Put", "Post", "Copy", "CompleteMultipartUpload"],
    ],
)
def test_creations_have_many_spellings(events: list[str]) -> None:
    options = obs(events=events)

    assert options.wanted == {f"ObjectCreated:{name}" for name in ("Put", "Post", "Copy", "CompleteMultipartUpload")}


@pytest.mark.parametrize(
    ("mine", "other", "clashes"),
    [
        ({}, {}, True),
        ({}, {"bucket": "other"}, False),
        ({"prefix": "in/"}, {"prefix": "out/"}, False),
        ({"prefix": "in/"}, {"prefix": "in/small/"}, True),
        ({"suffix": ".jpg"}, {"suffix": ".png"}, False),
        ({"suffix": ".jpg"}, {}, True),
        ({"events": ["Put"]}, {"events": ["Post"]}, False),
        ({"events": ["Put"]}, {"events": ["s3:ObjectCreated:*"]}, True),
        ({"prefix": "in/", "suffix": ".jpg"}, {"prefix": "in/", "suffix": ".png"}, False),
    ],
)
def test_rules_of_a_bucket_clash_if_an_object_may_fit_both(
    mine: dict[str, Any], other: dict[str, Any], clashes: bool
) -> None:
    assert conflicts(obs(**mine), obs(**other), True) is clashes
    assert conflicts(obs(**other), obs(**mine), True) is clashes


def obs(**fields: Any) -> ObsOptions:
    options = read_options("OBS", plugin_of("OBS"), {"bucket": "b", "events": ["Put"], **fields})
    assert isinstance(options, ObsOptions)
    return options


@pytest.mark.parametrize(
    ("operations", "problem"),
    [
        (["ECS:ecs"], "needs Service"),
        (["ECS:ecs:start", "ECS:ecs:start"], "repeat"),
        ([f"S{number}:r:a" for number in range(11)], "at most 10 are allowed"),
        (["S:r:" + ";".join(f"a{number}" for number in range(11))], "at most 10 actions a service"),
    ],
)
def test_audits_ask_for_a_bounded_number_of_operations(operations: list[str], problem: str) -> None:
    with pytest.raises(InvalidTrigger, match=problem):
        read_options("CTS", plugin_of("CTS"), {"name": "n", "operations": operations})


def test_the_longest_list_of_audited_operations_is_taken() -> None:
    actions = ";".join(f"a{number}" for number in range(10))
    data = {"name": "n", "operations": [f"S{number}:r:{actions}" for number in range(10)]}

    options = read_options("CTS", plugin_of("CTS"), data)

    assert isinstance(options, CtsOptions)
    assert len(options.operations) == 10
