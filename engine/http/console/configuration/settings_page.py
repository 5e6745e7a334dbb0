"""Page of settings of a function, and its forms: what they show, what was typed, and the requests that store it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Generic, TypeVar

from msgspec import Struct

from engine.asgi.wire import Reply
from engine.errors import FunctiondError
from engine.http.api.routing import Call, Handler
from engine.http.console.api_requests import ApiRequests
from engine.http.console.configuration.settings import (
    CHANGED,
    Setting,
    Value,
    changes,
    errors_beside,
    is_stale,
    typed_in,
)
from engine.http.console.forms import WHOLE, Form
from engine.http.console.function_frame import FunctionFrame
from engine.http.console.notes import see_other
from engine.http.console.pages import Action
from engine.http.console.paths import FUNCTION
from engine.model import Function

T = TypeVar("T")
Values = Mapping[str, Value]  #: by the name of the setting


class Update(Struct, frozen=True, kw_only=True):
    """Request to the API that stores something."""

    method: str
    target: str
    body: Mapping[str, Any]
    done: str = ""  #: before the error of a later request: what this one has changed


class SettingsForm(ABC, Generic[T]):
    """Form of a page. ``T`` is the type of what its reader has typed."""

    path: ClassVar[str] = ""  #: to which the form is sent, below that of its page
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
    def settings(self, function: Function) -> Sequence[Setting]:
        """Return the settings in the order of their requests."""

    @abstractmethod
    def shown(self, function: Function) -> Values: ...

    @abstractmethod
    def body(self, function: Function, typed: Values, changed: dict[str, Any]) -> Mapping[str, Any]:
        """Return the body of the request for ``changed`` values; empty if there is nothing to store."""

    def read(self, function: Function, form: Form) -> Values:
        return typed_in(self.settings(function), form, self.shown(function))

    def updates(self, function: Function, typed: Values) -> Sequence[Update]:
        body = self.body(function, typed, changes(self.settings(function), typed, self.shown(function)))
        target = self._frame.api_path(function, self.target)
        return [Update(method="PATCH", target=target, body=body)] if body else []

    def explain(self, typed: Values, error: FunctiondError) -> tuple[Values, Mapping[str, str]]:
        return typed, errors_beside(error, typed)


class SettingsPage(ABC, Generic[T]):
    """Page of one form or several. A form is stored at once, or shown again with its errors."""

    tab: ClassVar[str]  #: path below that of the function
    template: ClassVar[str]
    versioned: ClassVar[bool] = False  #: published versions have the page, too

    def __init__(self, frame: FunctionFrame, api: ApiRequests, forms: Iterable[SettingsForm[T]]) -> None:
        self._frame, self._api, self._forms = frame, api, forms

    @abstractmethod
    def data(self, call: Call, function: Function, typed: T | None) -> Mapping[str, Any]:
        """Return the data of the template, for what is ``typed`` in one of the forms or else for what is stored."""

    def pages(self) -> Mapping[str, Handler]:
        return {f"{FUNCTION}/{self.tab}": self.show}

    def actions(self) -> Mapping[str, Action]:
        return {f"{FUNCTION}/{self.tab}{one.path}": partial(self._save, one) for one in self._forms}

    async def show(self, call: Call) -> Reply:
        return await self._show(call, self._frame.version_of(call) if self.versioned else self._frame.function_of(call))

    async def _save(self, settings: SettingsForm[T], call: Call, form: Form) -> Reply:
        function = self._frame.function_of(call)
        typed = settings.read(function, form)
        if is_stale(form, settings.shown(function)):
            return await self._show(call, function, typed, {WHOLE: CHANGED})
        done = ""
        try:
            updates = settings.updates(function, typed)
            for one in updates:
                await self._api.send(call, one.method, one.target, one.body)
                done += one.done
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
        return see_other(self._frame.page_path(function, f"/{self.tab}"), note)
