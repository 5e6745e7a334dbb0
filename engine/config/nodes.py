"""Settings of nodes: machines on which agents run instances for the engine."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from msgspec import Meta, Struct


class NodesSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of the section ``executor.nodes``."""

    listen: str = ""  #: address and port on which agents connect, such as 10.0.0.1:8443; empty: no nodes
    certificate: str = ""  #: PEM file for ``listen``; empty: self-signed, in the data directory
    key: str = ""  #: PEM file with the private key of ``certificate``; accessible to its owner only
    lease: Annotated[float, Meta(ge=1, le=60)] = 5.0  #: seconds without the engine after which a node kills all it runs
    local: Literal["first", "fallback", "never"] = "fallback"  #: whether instances run on the engine's machine, too
    slots: Annotated[int, Meta(ge=1)] = 1000  #: concurrent invocations, instead of ``executor.slots``
    agents: dict[str, tuple[str, ...]] = {}  #: labels of each node, by its name; no other node can join
    needs: dict[str, tuple[str, ...]] = {}  #: labels that the node of a function must have, by ``project/function``
    max_losses: Annotated[int, Meta(ge=1)] = 10  #: losses of nodes after which an invocation ends as FAIL

    def __post_init__(self) -> None:
        address, _, port = self.listen.rpartition(":")
        if self.listen and not (address and port.isdecimal() and int(port) < 1 << 16):
            raise ValueError("executor.nodes.listen must be address:port, such as 10.0.0.1:8443")
        if bool(self.certificate) != bool(self.key):
            raise ValueError("set executor.nodes.certificate and executor.nodes.key, or neither")
        if self.agents and not self.listen:
            raise ValueError("executor.nodes.agents needs executor.nodes.listen, to which the agents connect")
        if wrong := [name for name in self.agents if not re.fullmatch("[a-z0-9-]{1,63}", name)]:
            raise ValueError(f"executor.nodes.agents: {wrong[0]!r} must be 1 to 63 of a-z, 0-9 and -")
        for function, labels in self.needs.items():
            if not any({*labels} <= {*offered} for offered in self.agents.values()):
                raise ValueError(f"executor.nodes.needs: no agent has all labels of {function}: {', '.join(labels)}")
