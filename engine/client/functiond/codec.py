"""JSON of events and results. Beside the types of msgspec: paths, and models of pydantic."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any

import msgspec

from functiond.errors import BadArgument, BadResult


def encode(value: object) -> bytes:
    """Return a value as JSON. Raise BadArgument if JSON has no form for it."""
    try:
        return msgspec.json.encode(value, enc_hook=_encode_other)
    except (TypeError, ValueError, NotImplementedError, RecursionError, msgspec.EncodeError) as error:
        raise BadArgument(f"the value cannot be written as JSON: {error}") from None


def decode(text: bytes | str, kind: Any) -> Any:
    """Return the value of a JSON text as an object of the type ``kind``. Raise msgspec.DecodeError if it does not fit.

    ValidationError, a subclass, says which part of the text does not fit.
    """
    return msgspec.json.decode(text, type=kind, dec_hook=_decode_other)


def decode_result(text: str, kind: Any, request_id: str) -> Any:
    """Return what a function returned, as an object of the type ``kind``. Raise BadResult if it does not fit.

    If any type will do, a text that is not JSON is returned as it is: engines store texts without quotes.
    """
    try:
        return decode(text or "null", kind)
    except msgspec.DecodeError as error:
        if kind is Any:
            return text
        if not text:
            hint = "of queued calls, results of more than 256 KiB are not kept"
            raise BadResult(f"the engine has no result of {request_id}: {hint}") from None
        raise BadResult(f"the result of {request_id} does not fit the return annotation: {error}") from None
    except (TypeError, NotImplementedError) as error:
        raise BadResult(f"the return annotation for {request_id} cannot be used: {error}") from None


def _encode_other(value: Any) -> Any:
    if isinstance(value, PurePath):
        return str(value)
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    raise NotImplementedError(f"an object of type {type(value).__name__} has no form in JSON")


def _decode_other(kind: Any, value: Any) -> Any:
    if isinstance(kind, type) and issubclass(kind, PurePath):
        if not isinstance(value, str):
            raise ValueError(f"Expected a path, got `{type(value).__name__}`")
        return kind(value)
    if hasattr(kind, "model_validate"):
        return kind.model_validate(value)
    raise NotImplementedError(f"values of type {kind} have no form in JSON")
