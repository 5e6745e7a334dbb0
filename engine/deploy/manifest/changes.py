"""Changes that a manifest asks for: what each does, with old and new values, and how it is made."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

from engine.deploy.client import Client


@dataclass(frozen=True, kw_only=True)
class Field:
    """Old and new value of a field. None stands for no value."""

    old: Any = None
    new: Any = None
    secret: bool = False


@dataclass(frozen=True, kw_only=True)
class Change:
    action: Literal["create", "update", "delete"]
    kind: str  #: such as ``function``
    name: str
    run: Callable[[], object]  #: makes the change
    fields: Mapping[str, Field] = field(default_factory=dict)
    due: Callable[[Any], str] = lambda made: ""  #: next due times of what ``run`` has made

    @property
    def title(self) -> str:
        return f"{self.action} {self.kind} {self.name}"


@dataclass(frozen=True, kw_only=True)
class Plan:
    changes: list[Change]
    unnamed: list[Change]  #: deletions of what the manifest does not name; empty if ``changes`` has them


def changes(
    kind: str, name: str, old: Mapping[str, Any] | None, new: Mapping[str, Any], run: Callable[[], object]
) -> Iterator[Change]:
    """Yield the change by which ``run`` creates an object, or updates it if its fields differ. ``old``: None if new."""
    if old is None:
        yield Change(action="create", kind=kind, name=name, fields=created(new), run=run)
    elif fields := differences(old, new):
        yield Change(action="update", kind=kind, name=name, fields=fields, run=run)


def deletion(client: Client, kind: str, name: str, path: str) -> Change:
    return Change(action="delete", kind=kind, name=name, run=partial(client.send, "DELETE", path))


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Field]:
    """Return the fields whose values differ between two objects as a whole."""
    names = [*new, *(name for name in old if name not in new)]
    return {name: Field(old=old.get(name), new=new.get(name)) for name in names if old.get(name) != new.get(name)}


def part_of(old: Mapping[str, Any] | None, new: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the fields of ``old`` that ``new`` names, for updates that leave the others unchanged."""
    return None if old is None else {name: old.get(name) for name in new}


def created(new: Mapping[str, Any]) -> dict[str, Field]:
    return {name: Field(new=value) for name, value in new.items() if value not in (None, "", {}, [])}


def hidden(fields: Mapping[str, Field], prefix: str = "") -> dict[str, Field]:
    """Return fields with secret values, each name after a prefix."""
    return {f"{prefix}{name}": Field(old=value.old, new=value.new, secret=True) for name, value in fields.items()}
