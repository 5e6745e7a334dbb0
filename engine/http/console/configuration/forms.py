"""Pages of settings of a function, and their forms: what they show, what was typed, and the requests that store it.

A form sends all its fields, and a request to the API gets only those that differ from the stored ones. So a page that
is saved never resets a field of another, and a value that a browser cannot show as it is stays as it is.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Generic, TypeVar

import msgspec
from msgspec import Struct

from engine.asgi.wire import Reply
from engine.errors import FunctiondError
from engine.http.api.routing import Call
from engine.http.console.forms import WHOLE, Form, errors_of
from engine.http.console.functions.frame import FunctionFrame
from engine.http.console.pages import PageFamily, PageOperation, see_other
from engine.http.console.paths import FUNCTION, path_of
from engine.http.console.struct_forms import Field, changed_values, shown_values, typed_values
from engine.model import Function

T = TypeVar("T")
Values = Mapping[str, str]  #: texts by the names of fields

SEEN = "seen"  #: hidden field: what the page showed
CHANGED = "These settings were changed after you opened the page. Save again to replace them by what is shown here."


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
    errors = {name.rpartition(".")[2].partition("[")[0]: text for name, text in errors_of(error).items()}
    return errors if set(errors) <= {*names, WHOLE} else {WHOLE: str(error)}


class Update(Struct, frozen=True, kw_only=True):
    """Request to the API that stores something."""

    method: str
    target: str
    body: Mapping[str, Any]
    done: str = ""  #: before the error of a later request: what this one has changed


class SettingsForm(ABC, Generic[T]):
    """Form of a page. ``T`` is the type of what its reader has typed."""

    note: ClassVar[str] = "Saved."

    def __init__(self, frame: FunctionFrame) -> None:
        self._frame = frame

    @abstractmethod
    def shown(self, function: Function) -> object:
        """Return what the page shows. A form whose page showed something else is stale."""

    @abstractmethod
    def read(self, function: Function, form: Form) -> T:
        """Return what was typed."""

    @abstractmethod
    def updates(self, function: Function, typed: T) -> Sequence[Update]:
        """Return the requests that store what was changed, the first first. Raises InvalidField if one is invalid."""

    def explain(self, typed: T, error: FunctiondError) -> tuple[T, Mapping[str, str]]:
        """Return what was typed, with the error in its rows if it has some, and the message of the error by field."""
        return typed, errors_beside(error, ())


class FieldsForm(SettingsForm[Values]):
    """Form with one field for each setting."""

    target: ClassVar[str] = "/config"  #: of the operation, below the function's path in the API

    @abstractmethod
    def fields(self, function: Function) -> Sequence[Field]: ...

    @abstractmethod
    def stored(self, function: Function) -> Mapping[str, Any]:
        """Return the value of each field by its key."""

    @abstractmethod
    def body(self, function: Function, typed: Values, changed: dict[str, Any]) -> Mapping[str, Any]:
        """Return the body of the request for ``changed`` values; empty if there is nothing to store."""

    def shown(self, function: Function) -> Values:
        return shown_values(self.fields(function), self.stored(function))

    def read(self, function: Function, form: Form) -> Values:
        return typed_values(self.fields(function), form, self.stored(function))

    def updates(self, function: Function, typed: Values) -> Sequence[Update]:
        body = self.body(function, typed, changed_values(self.fields(function), typed, self.shown(function)))
        target = self._frame.api_path(function, self.target)
        return [Update(method="PATCH", target=target, body=body)] if body else []

    def explain(self, typed: Values, error: FunctiondError) -> tuple[Values, Mapping[str, str]]:
        return typed, errors_beside(error, typed)


class SettingsPage(PageFamily, ABC, Generic[T]):
    """Page of one form or several. A form is stored at once, or shown again with its errors."""

    operation: ClassVar[str]
    actions: ClassVar[Mapping[str, str]]  #: operations to which the forms are sent, with their paths below the page's
    tab: ClassVar[str]  #: path below that of the function
    template: ClassVar[str]
    versioned: ClassVar[bool] = False  #: published versions have the page, too

    def __init__(self, frame: FunctionFrame, *forms: SettingsForm[T]) -> None:
        self._frame, self._forms = frame, forms

    @abstractmethod
    def data(self, call: Call, function: Function, typed: T | None) -> Mapping[str, Any]:
        """Return the data of the template, for what is ``typed`` in one of the forms or else for what is stored."""

    @classmethod
    def operations(cls) -> Iterator[tuple[PageOperation, str]]:
        yield from super().operations()
        path = f"{FUNCTION}/{cls.tab}"
        yield PageOperation(name=cls.operation, method="GET", path=path), "show"
        for number, (name, rest) in enumerate(cls.actions.items()):
            yield PageOperation(name=name, method="POST", path=path + rest, given={"number": number}), "save"

    async def show(self, call: Call) -> Reply:
        return await self._show(call, self._frame.version_of(call) if self.versioned else self._frame.function_of(call))

    async def save(self, call: Call, form: Form, number: int) -> Reply:
        """Store what was typed in one of the forms."""
        settings, function = self._forms[number], self._frame.function_of(call)
        typed = settings.read(function, form)
        if is_stale(form, settings.shown(function)):
            return await self._show(call, function, typed, {WHOLE: CHANGED})
        done = ""
        try:
            updates = settings.updates(function, typed)
            for update in updates:
                await self._frame.api.send(call, update.method, update.target, update.body)
                done += update.done
        except FunctiondError as error:
            typed, errors = settings.explain(typed, error)
            return await self._show(call, function, typed, {name: done + text for name, text in errors.items()})
        return self._done(function, settings.note if updates else "Nothing was changed.")

    async def _show(
        self, call: Call, function: Function, typed: T | None = None, errors: Mapping[str, str] | None = None
    ) -> Reply:
        return await self._frame.show(
            call,
            self.template,
            tab=self.tab,
            errors=errors or {},
            **self.data(call, function, typed),
        )

    def _done(self, function: Function, note: str) -> Reply:
        return see_other(path_of(function, f"/{self.tab}"), note)
