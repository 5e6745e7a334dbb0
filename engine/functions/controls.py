"""Controls of all functions, in memory and on disk: pause, start rate, recycling of instances, soft timeout.

The store keeps one resource for each function whose controls were ever changed. An engine that takes over reads the
same resources before it recovers the backlog, so that a paused function stays paused.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from engine.errors import InvalidField
from engine.functions.catalog import Catalog
from engine.model import Function
from engine.model.controls import Controls
from engine.model.signal import Signal
from engine.model.urn import LATEST, FunctionUrn
from engine.protocols import ResourceStore, StoredResource
from engine.protocols.catalog import decode_resource

KIND = "controls"
_OWNER = "function:"
_DEFAULT = Controls()


class FunctionControls:
    """Controls by function. ``load`` must run before the other methods, after the catalog is loaded.

    ``changed(function_id)`` announces that controls of a function were changed and are on disk.
    """

    def __init__(self, catalog: Catalog, store: ResourceStore) -> None:
        self.changed: Signal[[int]] = Signal()
        self._catalog, self._store = catalog, store
        self._controls: dict[int, Controls] = {}

    async def load(self) -> None:
        for row in await self._store.load(KIND):
            self._controls[int(row.owner.removeprefix(_OWNER))] = decode_resource(row, Controls)

    def of(self, function_id: int) -> Controls:
        """Return the controls of a function; the defaults if they were never changed."""
        return self._controls.get(function_id, _DEFAULT)

    def paused(self) -> Sequence[Function]:
        """Return version ``latest`` of each paused function."""
        functions = (
            self._catalog.resolve(function_id, LATEST)
            for function_id, controls in self._controls.items()
            if controls.paused
        )
        return [function for function in functions if function is not None]

    def show(self, urn: FunctionUrn) -> Controls:
        """Return the controls of the function that a URN names. Raise the errors of ``Catalog.find``."""
        return self.of(self._catalog.find(urn).function_id)

    async def change(self, urn: FunctionUrn, changes: dict[str, Any]) -> Controls:
        """Set the controls that ``changes`` names, and return all of them.

        The end of a pause removes its reason. Raises InvalidField if a reason is given for a function that is not
        paused, and the errors of ``Catalog.find``.
        """
        async with self._catalog.changing():
            function_id = self._catalog.find(urn).function_id
            old = self.of(function_id)
            new = msgspec.structs.replace(old, **changes)
            if not new.paused:
                if changes.get("pause_reason"):
                    raise InvalidField("pause_reason", new.pause_reason, "needs paused = true")
                new = msgspec.structs.replace(new, pause_reason="")
            if new != old:
                body = msgspec.json.encode(new)
                await self._store.put(StoredResource(kind=KIND, owner=f"{_OWNER}{function_id}", id=KIND, body=body))
                self._controls[function_id] = new
                self.changed(function_id)
        return new

    def follow(self, function_id: int, latest: Function | None) -> None:
        """Remove the controls of a deleted function from memory. The store deletes them with the function."""
        if latest is None:
            self._controls.pop(function_id, None)
