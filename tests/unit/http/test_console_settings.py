"""Settings, rows and limits in the forms of a function's configuration."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from engine.errors import AccessDenied, InvalidField
from engine.http.api.controls import ControlsBody
from engine.http.api.function_shapes import PatchBody
from engine.http.console.configuration.forms import errors_beside
from engine.http.console.configuration.reserved import read_form as read_reservation
from engine.http.console.configuration.rows import rows_in, with_errors
from engine.http.console.configuration.versions import NO_VERSION, body_of, errors_in, form_of, read_form
from engine.http.console.forms import Form
from engine.http.console.struct_forms import Field, changed_values, fields_of, shown_values, typed_values
from engine.model import Alias, Rule, Strategy

SIZE = Field(name="a", key="a", label="A", control="number", whole=True, initial=5)
SHARE = Field(name="a", key="a", label="A", control="number")


def typed(field: Field, text: str) -> object:
    return changed_values([field], {"a": text}, {"a": "1"}).get("a")


def test_fields_have_the_words_and_limits_of_the_api() -> None:
    basics = {field.key: field for field in fields_of(PatchBody)}
    controls = {field.key: field for field in fields_of(ControlsBody)}

    assert (basics["timeout"].label, basics["timeout"].hint) == ("Timeout", "From 3 to 259,200 seconds.")
    assert (basics["pre_stop_timeout"].low, basics["pre_stop_timeout"].high) == (1, 90)
    assert (basics["description"].control, basics["description"].longest) == ("area", 512)
    assert (controls["rate"].high, controls["rate"].whole) == (1_000_000, False)
    assert (basics["runtime"].low, basics["runtime"].longest) == (None, None)


@pytest.mark.parametrize(
    ("text", "value"),
    [("7", 7), (" 7 ", 7), ("", 5), ("seven", "seven"), ("7.5", "7.5"), ("²", "²"), ("9" * 5000, "9" * 5000)],
)
def test_a_text_that_is_no_number_is_sent_as_it_is(text: str, value: object) -> None:
    assert typed(SIZE, text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [("0.5", 0.5), (".5", 0.5), ("7", 7), ("", ""), ("nan", "nan"), ("inf", "inf"), ("1e400", "1e400")],
)
def test_numbers_with_fractions_are_finite(text: str, value: object) -> None:
    assert typed(SHARE, text) == value


def test_a_number_is_shown_as_it_is_typed() -> None:
    shown = [shown_values([SHARE], {"a": value})["a"] for value in (0.0, 2.5, 1_000_000.0, 0.001)]

    assert shown == ["0", "2.5", "1000000", "0.001"]


def test_only_values_that_differ_are_sent() -> None:
    fields = [replace(SIZE, name=name, key=name) for name in "abc"]
    stored = {"a": 1, "b": 2, "c": 3}
    texts = typed_values(fields, Form([("a", "1"), ("b", "9")]), stored)

    assert changed_values(fields, texts, shown_values(fields, stored)) == {"b": 9}


def test_an_error_stands_beside_its_field() -> None:
    error = InvalidField("strategy_config.concurrency", 5000, "must be from -1 to 1000")

    assert errors_beside(error, ["concurrency"]) == {"concurrency": "must be from -1 to 1000"}
    assert errors_beside(error, ["timeout"]) == {"": str(error)}


def test_a_denied_request_is_no_error_of_a_field() -> None:
    with pytest.raises(AccessDenied):
        errors_beside(AccessDenied("no"), ["timeout"])


def test_a_row_whose_name_was_emptied_is_not_removed_silently() -> None:
    form = Form([("key", "A"), ("value", "1"), ("old", "A"), ("key", ""), ("value", ""), ("old", "B")])
    removed = Form([("key", "B"), ("value", "2"), ("old", "B"), ("remove", "B"), ("key", ""), ("value", "")])
    form_with_value = Form([("key", ""), ("value", "2"), ("old", "")])

    assert [row.error for row in with_errors(rows_in(form))] == ["", "needs a name; remove the row to delete B"]
    assert rows_in(removed) == []
    assert [row.error for row in with_errors(rows_in(form_with_value))] == ["needs a name"]


def test_rules_of_an_alias_that_are_not_changed_are_sent_as_they_are() -> None:
    rules = (Rule(rule_type="Header", param="X-A", value="1"), Rule(rule_type="cookie", param="b", op="in", value="2"))
    strategies = {"v2": Strategy(combine_type="or", rules=rules), "v3": Strategy(rules=rules[:1])}
    alias = Alias(name="prod", version="v1", description="one\r\ntwo", strategies=strategies)
    shown = form_of(alias)
    pairs = [(f"r-{name}", value) for row in shown.rules for name, value in row.items()]
    typed = read_form(
        Form([("version", "v1"), ("description", "one\r\ntwo"), ("combine", shown.combine), *pairs]), "prod"
    )

    assert body_of(typed, alias)["additional_version_strategy"]["v2"]["rules"][0]["rule_type"] == "Header"
    assert body_of(typed, alias) == body_of(shown, alias)
    assert body_of(typed, alias)["description"] == "one\r\ntwo"


def test_rows_of_an_alias_with_input_need_a_version() -> None:
    shares = [("w-version", ""), ("w-percent", "10"), ("w-version", ""), ("w-percent", " ")]
    rule = {"version": "", "type": "header", "param": "X-A", "op": "=", "value": ""}
    spare = {"version": "", "type": "cookie", "param": "", "op": "in", "value": ""}
    rules = [(f"r-{name}", value) for row in (rule, spare) for name, value in row.items()]
    twice = [("w-version", "v2"), ("w-percent", "1"), ("w-version", "v2"), ("w-percent", "2")]
    typed = read_form(Form([("version", "v1"), *shares, *rules]))

    assert (len(typed.shares), len(typed.rules)) == (1, 1)
    assert errors_in(typed) == {"shares": NO_VERSION, "rules": NO_VERSION}
    assert errors_in(read_form(Form(twice))) == {"shares": "v2 is given twice; remove one"}
    assert errors_in(read_form(Form(twice[:2]))) == {}


def test_a_row_of_a_schedule_is_left_out_if_it_is_empty() -> None:
    names = ("c-cron", "c-count", "c-name", "c-start", "c-end")
    form = Form(
        [(name, value) for row in (["", "1", "", "", ""], [""] * 5) for name, value in zip(names, row, strict=True)]
    )

    assert [row["count"] for row in read_reservation(form).crons] == ["1"]
