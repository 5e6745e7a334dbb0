"""Conversion of a function URN to a filter that selects its invocations in lists."""

from __future__ import annotations

from engine.functions.catalog import Catalog
from engine.model.urn import FunctionUrn
from engine.protocols import Selection


def selection_of(catalog: Catalog, urn: FunctionUrn) -> Selection:
    """Return a filter for invocations of the version or alias that a URN names, or of all versions if it names neither.

    If the function has a single version, the filter selects all invocations of the function, even for an alias. Raises
    UnknownFunction, UnknownVersion or UnknownAlias if the function, the version or the alias does not exist.
    """
    function_id = catalog.find(urn).function_id
    # A filter by version would only cost time if there is a single version.
    if not urn.qualified or len(catalog.versions(function_id)) == 1:
        return Selection(function_id=function_id)
    if urn.alias is not None:
        return Selection(function_id=function_id, alias=urn.alias)
    return Selection(function_id=function_id, version=urn.qualifier)
