"""Forms of the console: reading of their fields and of a file, and the errors beside the fields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import parse_qsl

import anyio.to_thread
import msgspec

from engine.asgi.wire import read_body
from engine.code.store import PACKAGE_LIMIT
from engine.errors import AccessDenied, FunctiondError, InvalidField, InvalidRequest
from engine.http.api.routing import Call

if TYPE_CHECKING:
    from engine.http.console.uploads import UploadedFile

T = TypeVar("T", bound=msgspec.Struct)

FORM = b"application/x-www-form-urlencoded"
MULTIPART = b"multipart/form-data"
FIELDS = 2000  #: most fields of a form
LIMIT = 8 << 20  #: bytes of a form; an event of 6 MiB fits, unless it is percent-encoded
AT_ONCE = 64 << 10  #: bytes of a form without a file that is decoded at once; a larger one takes up to a second
FILE_LIMIT = PACKAGE_LIMIT + (1 << 20)  #: bytes of a form with a file, which is read piece by piece
WHOLE = ""  #: name under which an error stands that belongs to no single field


class Form:
    """Fields that a browser sent. Line breaks in values are ``\\n``, as a handler would write them."""

    def __init__(self, pairs: list[tuple[str, str]], file: UploadedFile | None = None) -> None:
        self.file = file  #: None if the form has no file
        self._values: dict[str, list[str]] = {}
        for name, value in pairs:
            self._values.setdefault(name, []).append(value.replace("\r\n", "\n"))

    def text(self, name: str, default: str = "") -> str:
        """Return the last value of a field, without surrounding spaces; ``default`` if the field is absent."""
        return self._values[name][-1].strip() if name in self._values else default

    def raw(self, name: str) -> str:
        """Return the last value of a field as it was typed; empty if the field is absent."""
        return self._values[name][-1] if name in self._values else ""

    def all(self, name: str) -> list[str]:
        return self._values.get(name, [])

    def rows(self, prefix: str, names: Sequence[str]) -> list[dict[str, str]]:
        """Return the rows of a table, whose columns are the fields ``names`` after ``prefix``, as they were typed."""
        columns = (self.all(prefix + name) for name in names)
        return [dict(zip(names, row, strict=True)) for row in zip_longest(*columns, fillvalue="")]

    def __contains__(self, name: str) -> bool:
        """Return whether a field was sent. Of checkboxes, browsers send only those that are checked."""
        return name in self._values


async def read_form(call: Call) -> Form:
    """Read the form in a request's body. The file of a form stays unread.

    Raises InvalidRequest unless the body is a form; PayloadTooLarge above ``LIMIT``, or ``FILE_LIMIT`` with a file.
    """
    kind = call.headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if kind == MULTIPART:
        from engine.http.console.uploads import MultipartReader  # its parser is not needed before

        reader = MultipartReader(call.receive, call.headers, limit=FILE_LIMIT, most=FIELDS, size=LIMIT)
        return Form(*await reader.read())
    return await read_fields(call, LIMIT)


async def read_fields(call: Call, limit: int) -> Form:
    """Read a form without a file. Raises InvalidRequest unless the body is one, PayloadTooLarge above ``limit``."""
    kind = call.headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if kind != FORM:
        raise InvalidRequest(f"the body must be a form ({FORM.decode()}), as the console's pages send it")
    body = await read_body(call.receive, call.headers, limit)
    try:
        pairs = _decoded(body) if len(body) <= AT_ONCE else await anyio.to_thread.run_sync(_decoded, body)
    except ValueError:
        raise InvalidRequest("the form is not UTF-8, or has too many fields") from None
    return Form(pairs)


def _decoded(body: bytes) -> list[tuple[str, str]]:
    return parse_qsl(body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=FIELDS)


def struct_of(form: Form, kind: type[T]) -> T:
    """Return the struct whose fields a form has, as ``hidden_fields`` writes them. False is left out there."""
    values = {name: form.raw(name) for name in kind.__struct_fields__ if name in form}
    flags = {name: False for name in kind.__struct_fields__ if kind.__annotations__[name] == "bool"}
    try:
        return msgspec.convert({**flags, **values}, kind, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"the form is invalid: {error}") from None


def error_of_whole(error: FunctiondError) -> Mapping[str, str]:
    """Return the message of an error as one of the whole form. An AccessDenied is raised again."""
    return {WHOLE: "; ".join(errors_of(error).values())}


def errors_of(error: FunctiondError) -> Mapping[str, str]:
    """Return the message of an error by the name of its field, or by ``WHOLE`` if it names none.

    An AccessDenied is raised again: it is an error of the request, has a status of its own, and is logged.
    """
    if isinstance(error, AccessDenied):
        raise error
    if isinstance(error, InvalidField):
        return {error.field: error.allowed if error.value is not None else str(error)}
    return {WHOLE: str(error)}
