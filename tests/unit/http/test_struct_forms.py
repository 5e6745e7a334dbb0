"""Forms made from struct types, and the objects that they describe."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from msgspec import Meta, Struct

from engine.http.console.forms import WHOLE, Form
from engine.http.console.struct_forms import (
    errors_beside,
    fields_of,
    label_of,
    lost_secrets,
    missing_values,
    read_struct,
    shown_values,
    typed_values,
)
from engine.model.text import MASK

Secret = Annotated[str, Meta(extra={"secret": True})]


class Inner(Struct, frozen=True, kw_only=True):
    mode: Literal["sync", "async"] = "sync"
    timeout: Annotated[int, Meta(ge=1, le=60)] = 5


class Options(Struct, frozen=True, kw_only=True):
    note: str = ""
    topic_urn: Annotated[str, Meta(title="Topic", examples=["urn:smn"], extra={"help": "Its URN."})]
    kind: Annotated[Literal[1, 2], Meta(extra={"labels": {2: "Private", 1: "Public"}})]
    size: Annotated[int, Meta(ge=1, le=100, extra={"initial": 10})]
    password: Secret = ""
    events: tuple[str, ...] = ()
    ssl_enable: bool = False
    inner: Inner = Inner()
    other: Annotated[bool | None, Meta(extra={"hidden": True})] = None
    tags: dict[str, str] = {}


FIELDS = fields_of(Options, "data.")
BY_KEY = {field.key: field for field in FIELDS}


def form(**typed: str) -> Form:
    return Form([(f"data.{name.replace('__', '.')}", value) for name, value in typed.items()])


def test_fields_have_the_words_bounds_and_initial_values_of_their_types() -> None:
    topic, kind, size = FIELDS[:3]

    assert (topic.name, topic.label, topic.help, topic.example) == ("data.topic_urn", "Topic", "Its URN.", "urn:smn")
    assert kind.options == [("2", "Private"), ("1", "Public")]
    assert (size.control, size.low, size.high, size.required) == ("number", 1, 100, True)
    assert BY_KEY["ssl_enable"].label == "SSL enable"
    assert [field.name for field in BY_KEY["inner"].fields] == ["data.inner.mode", "data.inner.timeout"]
    assert "other" not in BY_KEY
    shown = shown_values(FIELDS, None)
    assert (shown["data.size"], shown["data.kind"], shown["data.inner.timeout"]) == ("10", "2", "5")
    assert missing_values(FIELDS, form(kind="1")).keys() == {"data.topic_urn", "data.size"}


@pytest.mark.parametrize(("key", "label"), [("topic_urn", "Topic URN"), ("id", "ID"), ("Key_encode", "Key encode")])
def test_labels_are_made_from_names(key: str, label: str) -> None:
    assert label_of(key) == label


def test_a_form_becomes_an_object_without_defaults() -> None:
    typed = form(topic_urn="t", kind="1", size="7", events=" a \n\nb", inner__mode="async", inner__timeout="5")

    struct = read_struct(FIELDS, typed)

    assert struct == {"topic_urn": "t", "kind": 1, "size": 7, "events": ["a", "b"], "inner": {"mode": "async"}}


OLD: dict[str, Any] = {
    "topic_urn": " t ",
    "kind": 1,
    "size": 7,
    "password": MASK,
    "events": ["a"],
    "note": "",
    "inner": {"mode": "sync"},
    "other": True,
    "tags": {"a": "b"},
}


def unchanged(old: dict[str, Any]) -> Form:
    pairs = shown_values(FIELDS, old).items()
    flags = ("data.ssl_enable", "data.password")
    return Form([(name, value) for name, value in pairs if name not in flags])


def test_an_unchanged_form_changes_nothing() -> None:
    assert read_struct(FIELDS, unchanged(OLD), OLD) == OLD


def test_a_stored_secret_is_removed_by_its_checkbox() -> None:
    typed = Form([("data.topic_urn", "t"), ("data.kind", "1"), ("data.size", "7"), ("data.password.remove", "true")])

    assert "password" not in read_struct(FIELDS, typed, OLD)
    assert typed_values(FIELDS, typed, OLD)["data.password"] == MASK


@pytest.mark.parametrize("text", ["x", "1e9", "1" * 400, "٣", "1_0"])
def test_text_that_is_no_number_is_kept_for_the_error(text: str) -> None:
    assert read_struct(FIELDS, form(topic_urn="t", kind="1", size=text))["size"] == text


def test_typed_values_are_shown_again_except_for_secrets() -> None:
    shown = typed_values(FIELDS, form(topic_urn="<b>", password="secret", ssl_enable="true"))

    assert (shown["data.topic_urn"], shown["data.password"], shown["data.ssl_enable"]) == ("<b>", "", "true")


def test_a_secret_must_be_typed_again() -> None:
    assert lost_secrets(FIELDS, form(topic_urn="t", password="secret")).keys() == {"data.password"}
    assert lost_secrets(FIELDS, form(topic_urn="t", password="")) == {}


def test_errors_stand_beside_their_fields() -> None:
    errors = {"data.events[1]": "must be text", "data.size": "too large", "status": "unknown"}

    beside = errors_beside(FIELDS, errors)

    assert beside == {"data.events": "must be text", "data.size": "too large", WHOLE: "status: unknown"}
