"""Path of an API, segment by segment: literal text, or one parameter with literal text before and after it.

Segments are checked and matched after percent-decoding, so all spellings of a parameter in an API's path, and of a
value in a request's path, are equal. Matching compares the beginning and the end of a segment, in time proportional to
the request's path. No regular expression is compiled from an API's path.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import unquote

from msgspec import Struct

from engine import InvalidField

CONSOLE = "console"  #: first segment of the paths of the engine's console, which gateways do not serve
_PATH = re.compile(r"/[\w\-.~%!$&'()*+,;=:@/{}]*", re.ASCII)
_PARAMETER = re.compile(r"\{([^{}]*)\}")


class Segment(Struct, frozen=True, kw_only=True):
    """Part of an API's path between two slashes."""

    before: str  #: the whole text if there is no parameter
    after: str = ""
    name: str | None = None  #: name of the parameter, if the segment has one

    @property
    def greedy(self) -> str:
        """Name of a parameter for the whole rest of the path, written ``{name+}``; empty for other segments."""
        alone = not self.before and not self.after
        return self.name[:-1] if alone and self.name is not None and self.name.endswith("+") else ""


def check_path(path: str) -> None:
    """Raise InvalidField unless ``path`` is the path of a URL, with at most one named parameter in each segment."""
    parts = path.split("/")
    if not _PATH.fullmatch(path) or any("{" in _PARAMETER.sub("", part) for part in parts):
        raise InvalidField("path", path, "must begin with / and be a URL's path, parameters as {name}")
    parameters = [_PARAMETER.findall(unquote(part)) for part in parts]
    names = [name for part in parameters for name in part]
    if unquote(parts[1]) == CONSOLE:
        raise InvalidField("path", path, "must not be below /console, for which browsers keep the console's cookies")
    if "" in names or len(set(names)) < len(names):
        raise InvalidField("path", path, "its parameters must have different names")
    # With two parameters, the end of the first value would be ambiguous.
    if any(len(part) > 1 for part in parameters):
        raise InvalidField("path", path, "may have one parameter between two slashes")


def read_path(path: str) -> Sequence[Segment]:
    return [_segment(unquote(part)) for part in path.split("/")[1:]]


def without_names(path: str) -> str:
    return _PARAMETER.sub("{}", path)


def value_between(before: str, text: str, after: str) -> str:
    """Return ``text`` without ``before`` at its beginning and ``after`` at its end; empty if one of them is missing."""
    if not (text.startswith(before) and text.endswith(after)):
        return ""
    return text[len(before) : len(text) - len(after)]


def have_common_text(one: Segment, other: Segment) -> bool:
    """Return whether one segment of a request can match both segments of APIs."""
    both = (one, other)
    longest = max(one.before, other.before, key=len) + "x" + max(one.after, other.after, key=len)
    text = next((segment.before for segment in both if segment.name is None), longest)
    return all(x.before == text if x.name is None else value_between(x.before, text, x.after) for x in both)


def _segment(text: str) -> Segment:
    match = _PARAMETER.search(text)
    if match is None:
        return Segment(before=text)
    return Segment(before=text[: match.start()], after=text[match.end() :], name=match[1])
