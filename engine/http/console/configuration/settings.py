"""Settings in the forms of a function's configuration: what a page shows, what was typed, and what changes.

A form sends all its fields, and a request to the API gets only those that differ from the stored ones. So a page that
is saved never resets a field of another, and a value that a browser cannot show as it is stays as it is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import msgspec
from msgspec import Struct

from engine.errors import FunctiondError
from engine.http.console.configuration.limits import Limits
from engine.http.console.forms import WHOLE, Form, errors_of

Value = str | bool  #: as a form has it
LARGEST = 1 << 62  #: larger numbers are sent as text
SEEN = "seen"  #: hidden field: what the page showed
CHANGED = "These settings were changed after you opened the page. Save again to replace them by what is shown here."


class Setting(Struct, frozen=True, kw_only=True):
    """Field of a form, and of the API."""

    name: str
    label: str
    kind: Literal["text", "number", "area", "flag", "choice"] = "text"
    help: str = ""
    unit: str = ""
    placeholder: str = ""  #: shown in an empty field
    empty: float | None = None  #: number for which an empty field stands
    limits: Limits = Limits()
    options: tuple[tuple[str, str], ...] = ()  #: values and names of a choice

    @property
    def hint(self) -> str:
        """Text below the field: its meaning, then its limits."""
        limits = " ".join(filter(None, (self.limits.text, self.unit)))
        return f"{self.help} From {limits}.".strip() if self.limits.text else self.help

    def read(self, value: Value) -> Any:
        """Return a value for the API. A text that is no number is returned as it is, and the API refuses it."""
        if self.kind != "number" or isinstance(value, bool):
            return value
        text = value.strip()
        if not text and self.empty is not None:
            return self.empty
        return _number(text, whole=self.limits.whole)


def typed_in(settings: Iterable[Setting], form: Form, shown: Mapping[str, Value]) -> dict[str, Value]:
    """Return the values of a form. Fields that it does not have are as ``shown``."""
    return {
        one.name: one.name in form
        if one.kind == "flag"
        else form.raw(one.name)
        if one.name in form
        else shown[one.name]
        for one in settings
    }


def changes(settings: Iterable[Setting], typed: Mapping[str, Value], shown: Mapping[str, Value]) -> dict[str, Any]:
    """Return the values for the API, by name, of those settings whose typed value is not the one shown."""
    return {one.name: one.read(typed[one.name]) for one in settings if typed[one.name] != shown[one.name]}


def digest_of(shown: object) -> str:
    """Return a short digest of what a page shows. The form sends it back, so that a change in between is noticed."""
    return hashlib.blake2b(msgspec.json.encode(shown), digest_size=8).hexdigest()


def is_stale(form: Form, shown: object) -> bool:
    """Return whether the page of the form showed something else than ``shown``."""
    return SEEN in form and form.text(SEEN) != digest_of(shown)


def errors_beside(error: FunctiondError, names: Iterable[str]) -> Mapping[str, str]:
    """Return the message of an error by the name of its field, without the path of it in the request.

    An error of a field that is not among ``names`` belongs to the whole form. Raises an AccessDenied again.
    """
    found = {name.rpartition(".")[2].partition("[")[0]: text for name, text in errors_of(error).items()}
    return found if set(found) <= {*names, WHOLE} else {WHOLE: str(error)}


def one_line(text: str) -> str:
    """Return a text as a browser has it in a field of one line."""
    return text.replace("\r", "").replace("\n", "")


def lines(text: str) -> str:
    """Return a text with the line breaks of a form."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def number_text(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)


def _number(text: str, *, whole: bool) -> float | str:
    """Return the number in a text; the text itself if it is none that JSON can hold."""
    try:
        number = int(text) if whole else float(text)
    except ValueError:
        return text
    return number if -LARGEST < number < LARGEST else text
