"""Settings of nodes: machines on which agents run instances for the engine."""

from __future__ import annotations

import re
from itertools import chain
from typing import Annotated, Literal

from msgspec import Meta, Struct

from engine.executors.nodes.options import GpuType


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
    ray: str = ""  #: address of the head of a Ray cluster, such as 10.0.0.9:6379, whose nodes are used; empty: none
    python: str = "python3"  #: interpreter with the Ray of the cluster, on the engine's machine
    command: str = "functiond agent --data-dir functiond-agent"  #: starts an agent on a node of the Ray cluster
    url: str = ""  #: address of ``listen`` as nodes of the Ray cluster reach it; empty: ``https://`` and ``listen``
    linger: Annotated[float, Meta(ge=0)] = 60.0  #: seconds after the last instance until a node's agent ends; with Ray
    gpus: dict[str, GpuType] = {}  #: kinds of GPU, by the ``gpu_type`` of functions; with Ray

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
        if self.ray and not re.fullmatch(r"\S+:\d{1,5}", self.ray):
            raise ValueError("executor.nodes.ray must be HOST:PORT of the head, such as 10.0.0.9:6379")
        if self.ray and (not self.listen or self.agents):
            raise ValueError("executor.nodes.ray needs executor.nodes.listen, and excludes executor.nodes.agents")
        if self.ray and not self.url and self.listen.startswith(("0.0.0.0:", "[::]:")):
            raise ValueError("executor.nodes.ray needs executor.nodes.url: nodes cannot connect to all addresses")
        if self.gpus and not self.ray:
            raise ValueError("executor.nodes.gpus needs executor.nodes.ray, which grants GPUs")
        labels = chain(*self.needs.values(), *(kind.labels for kind in self.gpus.values()))
        if self.ray and (wrong := [label for label in labels if not re.fullmatch(r"[\w./-]+=[\w.,()!-]+", label)]):
            raise ValueError(f"executor.nodes: label {wrong[0]!r} must be key=value, as labels of Ray are")
        for function, needed in self.needs.items():
            if not self.ray and not any({*needed} <= {*offered} for offered in self.agents.values()):
                raise ValueError(f"executor.nodes.needs: no agent has all labels of {function}: {', '.join(needed)}")
