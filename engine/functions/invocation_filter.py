"""Look-up of a function's invocations: the filter for lists, and the record of one request id."""

from __future__ import annotations

from engine.errors import UnknownInvocation
from engine.functions.catalog import Catalog
from engine.model import Function, Record
from engine.model.identity import Identity
from engine.model.urn import FunctionUrn
from engine.protocols import Records, Selection


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


async def record_of(records: Records, identity: Identity, function: Function, request_id: str) -> Record:
    """Return the record of a function's invocation.

    Raises UnknownInvocation if no such record is stored, or if the invocation is of another function.
    """
    key = identity.key_of(request_id)
    record = await records.get(key) if key is not None else None
    if record is None or record.function_id != function.function_id:
        raise UnknownInvocation(request_id)
    return record
