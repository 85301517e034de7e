"""Asyncio. Finds the server that takes our writes: Sentinel's primary, or the owner of our slot in a cluster.

All of it runs while a connection is being opened, on the bridge's loop.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol, TypeAlias

from attrs import field
from redis.crc import key_slot
from redis.exceptions import ConnectionError as RedisConnectionError

from trio_worker.records import define
from trio_worker.redis.calls import Unavailable, UnavailableError

Node: TypeAlias = tuple[str, int]
# Sends one command to one server; a failure is returned as `Unavailable`.
AskNode: TypeAlias = Callable[[Node, Sequence[str]], Awaitable[Any]]


class Primary(Protocol):
    """The address of the server that takes our writes, as far as it is known."""

    async def locate(self, ask: AskNode) -> Node:
        """Return the address; raises `UnavailableError` if no server knows it."""

    async def check(self, command: Callable[[str], Awaitable[Any]], /) -> None:
        """Raise a redis-py ConnectionError if the server of this new connection is the wrong one."""

    def forget(self) -> None:
        """Forget the address, because it is wrong or cannot be reached; `locate` then asks again."""


@define
class SentinelPrimary:
    """The primary that the Sentinels name; they are asked for every new connection.

    A Sentinel that was cut off may name a server that is a replica by now. So every server is asked for its ROLE; after
    a wrong answer the next Sentinel is asked first.
    """

    sentinels: list[Node]
    service: str

    async def locate(self, ask: AskNode) -> Node:
        troubles = []
        for sentinel in list(self.sentinels):
            answer = await ask(sentinel, ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.service))
            if isinstance(answer, Unavailable):
                troubles.append((sentinel, answer))
                self._prefer_another(sentinel)
                continue
            if answer:
                return _decoded(answer[0]), int(answer[1])
            troubles.append((sentinel, Unavailable(f"knows no primary named {self.service}")))
        raise UnavailableError(_summed_up("no Sentinel names the primary", troubles))

    async def check(self, command: Callable[[str], Awaitable[Any]]) -> None:
        role = _decoded((await command("ROLE"))[0])
        if role != "master":
            misled, self.sentinels = self.sentinels[0], [*self.sentinels[1:], self.sentinels[0]]
            raise RedisConnectionError(f"Sentinel {_text(misled)} names a server that is a replica")

    def forget(self) -> None:
        """Nothing to forget: the address is not kept."""

    def _prefer_another(self, sentinel: Node) -> None:
        self.sentinels.remove(sentinel)
        self.sentinels.append(sentinel)


@define
class ClusterPrimary:
    """The owner of the slot that has all keys of one queue; kept until it answers that it is not the owner."""

    nodes: list[Node]
    slot: int
    _owner: Node | None = None
    _known: list[Node] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._known = list(self.nodes)

    async def locate(self, ask: AskNode) -> Node:
        if self._owner is not None:
            return self._owner
        troubles = []
        for node in list(self._known):
            ranges = await ask(node, ("CLUSTER", "SLOTS"))
            if isinstance(ranges, Unavailable):
                troubles.append((node, ranges))
                continue
            owners = [(first, last, _node(server, node)) for first, last, server, *_replicas in ranges]
            replicas = [_node(server, node) for _first, _last, _server, *replicas in ranges for server in replicas]
            # The nodes of the URL come last: they may have left the cluster, and may return.
            self._known = list(dict.fromkeys([*(server for *_, server in owners), *replicas, *self.nodes]))
            for first, last, server in owners:
                if first <= self.slot <= last:
                    self._owner = server
                    return server
            troubles.append((node, Unavailable(f"no node owns slot {self.slot}")))
        raise UnavailableError(_summed_up("no node names the owner of our slot", troubles))

    async def check(self, _command: Callable[[str], Awaitable[Any]]) -> None:
        """Nothing to check: a node that does not own the slot answers every command on it with MOVED."""

    def forget(self) -> None:
        self._owner = None


def slot_of(queue_name: str) -> int:
    """Return the hash slot of a queue: that of its name, which is the hash tag of all its other keys."""
    return key_slot(queue_name.encode())


def _node(server: Sequence[Any], asked: Node) -> Node:
    # A node that does not know its own address leaves it empty: then it is the node that was asked.
    host = _decoded(server[0]) if server[0] else ""
    return (host if host not in {"", "?"} else asked[0]), int(server[1])


def _decoded(word: bytes | str) -> str:
    return word.decode("utf-8", "replace") if isinstance(word, bytes) else word


def _summed_up(what: str, troubles: Sequence[tuple[Node, Unavailable]]) -> Unavailable:
    """Return one failure for those of several servers; a reason that they share is told once."""
    places: dict[str, list[str]] = {}
    for node, trouble in troubles:
        places.setdefault(trouble.reason, []).append(_text(node))
    told = "; ".join(f"{', '.join(nodes)}: {reason}" for reason, nodes in places.items())
    return Unavailable(f"{what}: {told}", is_login=any(trouble.is_login for _, trouble in troubles))


def _text(node: Node) -> str:
    return f"{node[0]}:{node[1]}"
