"""Metadata of topics: their ids, partitions and leaders, and the reason why a topic cannot be read.

A topic that is deleted and made anew under its name has another id (KIP-516). A broker that serves the records of the
new topic also knows its id. Thus records are of the topic whose id their leader reports after they were fetched.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from msgspec import Struct

#: Connections of their own, since a broker answers the requests of a connection in order, and fetches wait for records.
_CONNECTIONS = "metadata"
_MISSING, _NEW, _INVALID, _FORBIDDEN = 3, 5, 17, 29
_PROBLEMS = {
    _MISSING: "there is no topic {name} at {cluster}",
    _NEW: "topic {name} at {cluster} has no leader yet",
    _INVALID: "{name!r} is not a valid name of a topic",
    _FORBIDDEN: "the login may not see topic {name} (operation Describe)",
}


class Topic(Struct, frozen=True, kw_only=True):
    id: str = ""  #: hexadecimal; empty: the broker gives none
    leaders: Mapping[int, int] = {}  #: node by partition; -1: no broker leads it now
    problem: str = ""  #: reason why it cannot be read; empty: it can


class Topics:
    """Reader of the metadata of topics, through a client of the library.

    ``create``: missing topics are created if the cluster's settings let them be.
    """

    def __init__(self, client: Any, names: Collection[str], cluster: str, *, create: bool = False) -> None:
        self._client, self._names, self._cluster, self._create = client, tuple(names), cluster, create
        self._last: tuple[bytes, dict[str, Topic]] = b"", {}  #: last reply, and what it says

    async def look(self, node: int | None = None) -> dict[str, Topic]:
        """Return the topics by name as a broker knows them: ``node``, or else the first that answers.

        For a topic with a problem the other brokers are asked, too: one that starts does not know all topics yet.
        Raises ConnectionError or the library's error if no broker answers.
        """
        topics: dict[str, Topic] = {}
        failure: Exception = ConnectionError("the cluster has no brokers")
        nodes = [broker.nodeId for broker in self._client.cluster.brokers()]
        for node_id in sorted(nodes, key=lambda node_id: node_id != node):
            try:
                told = await self._ask(node_id)
            except Exception as error:
                failure = error
                continue
            topics |= {name: topic for name, topic in told.items() if name not in topics or topics[name].problem}
            if not any(topic.problem for topic in topics.values()):
                break
        if not topics:
            raise failure
        return topics

    async def _ask(self, node: int) -> dict[str, Topic]:
        from plugins.kafka.protocol import Metadata, MetadataOf  # needs the client library

        reply = await self._client.send(node, MetadataOf(self._names, create=self._create), group=_CONNECTIONS)
        if not isinstance(reply, Metadata):  # of a broker without ids
            return {name: self._topic(name, error, "", parts) for error, name, _, parts in reply.topics}
        if reply.data != self._last[0]:
            topics = {
                name: self._topic(name, error, topic.hex() if any(topic) else "", parts)
                for error, name, topic, _, parts, *_ in reply.topics
            }
            self._last = reply.data, topics
        return self._last[1]

    def _topic(self, name: str, error: int, topic_id: str, partitions: Iterable[Any]) -> Topic:
        leaders = {} if error else {number: leader for _, number, leader, *_ in partitions}
        return Topic(id=topic_id, leaders=leaders, problem=self._problem(name, error))

    def _problem(self, name: str, error: int) -> str:
        if not error:
            return ""
        text = _PROBLEMS.get(error, "the cluster reports error {error} for topic {name}")
        return text.format(name=name, cluster=self._cluster, error=error)

    async def remade(self, partitions: Collection[Any], ids: Mapping[str, str]) -> set[str]:
        """Return the topics of ``partitions`` that have another id than in ``ids`` now, as their leaders know them."""
        asked: defaultdict[int | None, set[str]] = defaultdict(set)
        for partition in partitions:
            if ids.get(partition.topic):
                asked[self._client.cluster.leader_for_partition(partition)].add(partition.topic)
        topics: set[str] = set()
        for node, names in asked.items():
            now = await self.look(node)
            topics |= {name for name in names if now[name].id != ids[name]}
        return topics
