"""FunctionGraph as a destination: the outcome of one function is the event of another function on this engine."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from engine import DeliveryContext, InvalidField, PendingDelivery, Plugin, Request, parse_urn


class FunctionParam(Struct, frozen=True, kw_only=True):
    func_urn: Annotated[
        str,
        Meta(
            title="Function URN",
            examples=["urn:fss:local-1:default:function:default:report:latest"],
            extra={"help": "Complete URN of a version, an alias or latest."},
        ),
    ]

    def __post_init__(self) -> None:
        try:
            complete = parse_urn(self.func_urn, region="", project="").region != ""
        except InvalidField:
            complete = False
        if not complete:
            allowed = "must be a complete URN: urn:fss:<region>:<project>:function:<package>:<name>"
            raise InvalidField("func_urn", self.func_urn, allowed)


class FunctionDestination:
    def __init__(self, param: FunctionParam) -> None:
        self._urn = parse_urn(param.func_urn, region="", project="")

    async def deliver(self, pending: PendingDelivery, record: bytes, context: DeliveryContext) -> None:
        await context.accept(Request(function=self._urn, payload=record, source="FunctionGraph"))


plugin = Plugin(kinds=("FunctionGraph",), param=FunctionParam, destination=FunctionDestination)
