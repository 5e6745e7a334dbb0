"""Settings of nodes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct


class GpuType(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Kind of GPU that functions ask for by its name."""

    memory: Annotated[int, Meta(ge=1)]  #: MB of one card; ``gpu_memory`` of a function is a share of it
    labels: tuple[str, ...] = ()  #: of the nodes that have such cards, each as ``key=value``


class NodesOptions(Struct, frozen=True, kw_only=True):
    """Settings of the listener for agents, of their nodes, and of the choice between nodes."""

    version: str  #: of functiond; that of agents must be the same
    listen: str  #: address and port on which agents connect, such as ``10.0.0.1:8090``
    folder: Path  #: of the certificate and the token files
    agents: dict[str, tuple[str, ...]] = {}  #: labels of each node, by its name; others cannot join
    needs: dict[str, tuple[str, ...]] = {}  #: labels that the node of a function must have, by ``project/function``
    certificate: str = ""  #: PEM file; empty: self-signed
    key: str = ""
    lease: float = 5.0  #: seconds
    local: Literal["first", "fallback", "never"] = "fallback"  #: use of this machine for instances
    local_slots: int = -1  #: most instances on this machine; -1: no limit
    api_ports: tuple[int, ...] = ()  #: ports at which functions expect the API
    api: int = 0  #: port on loopback of the API for functions; 0: they have no access
    ray: str = ""  #: address of the head of a Ray cluster, whose nodes join when they are needed; empty: none
    python: str = "python3"  #: interpreter with Ray, for the placement process
    command: str = ""  #: starts an agent on a node of the cluster; options are appended
    url: str = ""  #: address of ``listen``, as the nodes of the cluster reach it
    linger: float = 60.0  #: seconds from the end of the last instance on a node of the cluster to that of its agent
    gpus: dict[str, GpuType] = {}
    sandbox: dict[str, Any] = {}  #: fields of ``IsolationOptions`` that nodes have in place of the engine's
