"""Tags: keys and values that clients attach to functions, and by which they find functions."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

import msgspec
from msgspec import Struct

from engine.errors import InvalidField
from engine.functions.catalog import Catalog
from engine.model import Function
from engine.resources.repository import Repository, function_owner

MAX_TAGS = 20  #: tags per function; system tags are counted separately
KEY, VALUE = 128, 255  #: characters
_TEXT = re.compile(r"[\w .:=+\-@/]*")
_ID = "tags"


class TagSet(Struct, frozen=True, kw_only=True):
    """Tags and system tags of one function, each a map of keys to values."""

    tags: dict[str, str] = {}
    sys_tags: dict[str, str] = {}


class _Item(Struct, frozen=True, kw_only=True):
    key: str
    value: str = ""


class TagFilter(Struct, frozen=True, kw_only=True):
    """Filter of functions by their tags.

    A function matches if it has every key of the filter with one of the key's values.

    An empty list of values matches any value. ``untagged`` selects functions without tags.
    """

    tags: Mapping[str, Collection[str]] = {}  #: sets: each function is compared with all values
    sys_tags: Mapping[str, Collection[str]] = {}
    untagged: bool = False
    name_part: str = ""


class Tags:
    def __init__(self, repository: Repository[TagSet], catalog: Catalog) -> None:
        self._repository, self._catalog = repository, catalog

    def of(self, function: Function) -> TagSet:
        """Return a function's tags: those with which the function was created, if they were never changed."""
        stored = self._repository.of(function_owner(function)).get(_ID)
        return TagSet(tags=_first_tags(function)) if stored is None else stored

    def of_project(self, project: str) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
        """Return all values of each tag key in a project, separately for tags and for system tags."""
        sets = [self.of(function) for function in self._catalog.list(project)]
        return _values([tagged.tags for tagged in sets]), _values([tagged.sys_tags for tagged in sets])

    def find(self, project: str, wanted: TagFilter) -> Sequence[Function]:
        return [function for function in self._catalog.list(project) if self._matches(function, wanted)]

    async def add(self, function: Function, added: TagSet) -> None:
        """Add tags to a function; the value of an existing key is replaced.

        Raises InvalidField if a key or value is invalid, or the function would have too many tags.
        """
        for key, value in [*added.tags.items(), *added.sys_tags.items()]:
            check_tag(key, value)
        async with self._repository.change():
            old = self.of(function)
            new = TagSet(tags=old.tags | added.tags, sys_tags=old.sys_tags | added.sys_tags)
            _check_number("tags", new.tags)
            _check_number("sys_tags", new.sys_tags)
            await self._repository.put(function_owner(function), _ID, new)

    async def remove(self, function: Function, keys: Sequence[str], sys_keys: Sequence[str]) -> None:
        """Remove tags from a function by key. Keys that the function does not have are ignored."""
        async with self._repository.change():
            old = self.of(function)
            new = TagSet(tags=_without(old.tags, keys), sys_tags=_without(old.sys_tags, sys_keys))
            if new != old:
                await self._repository.put(function_owner(function), _ID, new)

    def _matches(self, function: Function, wanted: TagFilter) -> bool:
        own = self.of(function)
        if wanted.name_part not in function.name or (wanted.untagged and own.tags):
            return False
        return _has(own.tags, wanted.tags) and _has(own.sys_tags, wanted.sys_tags)


def check_tag(key: str, value: str) -> None:
    if not 1 <= len(key) <= KEY or not _TEXT.fullmatch(key) or key != key.strip():
        raise InvalidField("tags.key", key, f"needs 1 to {KEY} letters, digits, spaces and _ . : = + - @ /")
    if len(value) > VALUE or not _TEXT.fullmatch(value):
        raise InvalidField("tags.value", value, f"may have {VALUE} letters, digits, spaces and _ . : = + - @ /")


def read_tags(text: str) -> dict[str, str]:
    """Parse the tags of a new function: JSON text of an object, or of a list of objects with ``key`` and ``value``.

    Raises InvalidField if the text has another form, a tag is invalid, or there are too many.
    """
    try:
        given = msgspec.json.decode(text or "{}", type=dict[str, str] | list[_Item])
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
        raise InvalidField("tags", text, f"must be the text of a JSON object of strings ({error})") from None
    tags = given if isinstance(given, dict) else {item.key: item.value for item in given}
    for key, value in tags.items():
        check_tag(key, value)
    _check_number("tags", tags)
    return tags


def _first_tags(function: Function) -> dict[str, str]:
    try:
        return read_tags(str(function.details.get("tags", "")))
    except InvalidField:  # earlier engines accepted any text
        return {}


def _check_number(field: str, tags: Mapping[str, str]) -> None:
    if len(tags) > MAX_TAGS:
        raise InvalidField(field, f"{len(tags)} tags", f"a function may have {MAX_TAGS}")


def _has(own: Mapping[str, str], wanted: Mapping[str, Collection[str]]) -> bool:
    return len(wanted) <= len(own) and all(
        key in own and (not values or own[key] in values) for key, values in wanted.items()
    )


def _without(tags: Mapping[str, str], keys: Sequence[str]) -> dict[str, str]:
    return {key: value for key, value in tags.items() if key not in keys}


def _values(sets: Sequence[Mapping[str, str]]) -> dict[str, list[str]]:
    by_key: dict[str, set[str]] = {}
    for tags in sets:
        for key, value in tags.items():
            by_key.setdefault(key, set()).add(value)
    return {key: sorted(values) for key, values in sorted(by_key.items())}
