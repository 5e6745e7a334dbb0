"""Which invocations a URN means."""

from __future__ import annotations

from engine.functions.catalog import Catalog
from engine.model.urn import FunctionUrn
from engine.protocols import Selection


def selection_of(catalog: Catalog, urn: FunctionUrn) -> Selection:
    """Those of its version or alias, of the whole function if it has none. Raises UnknownFunction."""
    function_id = catalog.find(urn).function_id
    # A function that has but one version need not be looked through for it.
    if not urn.qualified or len(catalog.versions(function_id)) == 1:
        return Selection(function_id=function_id)
    if urn.alias is not None:
        return Selection(function_id=function_id, alias=urn.alias)
    return Selection(function_id=function_id, version=urn.qualifier)
