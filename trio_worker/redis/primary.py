"""Asyncio. Which server takes our writes: Sentinel is asked for the primary, a cluster for the owner of our slot.

Everything here runs inside a connection that is being opened, on the bridge's loop.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol, TypeAlias

from attrs import define, field
from redis.crc import key_slot
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

Node: TypeAlias = tuple[str, int]
# Ask one server one thing; raises what redis-py raises.
AskNode: TypeAlias = Callable[[Node, Sequence[str]], Awaitable[Any]]


class Primary(Protocol):
    """Where the server that takes our writes is, as far as is known."""

    async def locate(self, ask: AskNode) -> Node:
        """Return its address; raises a redis-py ConnectionError when nobody can tell."""

    async def check(self, command: Callable[[str], Awaitable[Any]], /) -> None:
        """Raise a redis-py ConnectionError if the server just connected to is the wrong one."""

    def forget(self) -> None:
        """Drop what was known: it turned out wrong or cannot be reached, and the next look is a new one."""


@define
class SentinelPrimary:
    """The primary as the Sentinels name it; they are asked anew for every connection.

    A Sentinel that was cut off may name a server that is a replica by now, so ROLE is asked of every server that was
    connected to; after a wrong answer the next Sentinel is asked first.
    """

    sentinels: list[Node]
    service: str

    async def locate(self, ask: AskNode) -> Node:
        troubles = []
        for sentinel in list(self.sentinels):
            try:
                answer = await ask(sentinel, ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.service))
            except (RedisError, OSError, TimeoutError) as error:
                troubles.append(f"{_text(sentinel)}: {str(error) or type(error).__name__}")
                self._prefer_another(sentinel)
                continue
            if answer:
                return _decoded(answer[0]), int(answer[1])
            troubles.append(f"{_text(sentinel)}: knows no primary named {self.service}")
        raise RedisConnectionError("no Sentinel names the primary: " + "; ".join(troubles))

    async def check(self, command: Callable[[str], Awaitable[Any]]) -> None:
        role = _decoded((await command("ROLE"))[0])
        if role != "master":
            misled, self.sentinels = self.sentinels[0], [*self.sentinels[1:], self.sentinels[0]]
            raise RedisConnectionError(f"Sentinel {_text(misled)} names a server that is a replica")

    def forget(self) -> None:
        """Nothing is remembered."""

    def _prefer_another(self, sentinel: Node) -> None:
        self.sentinels.remove(sentinel)
        self.sentinels.append(sentinel)


@define
class ClusterPrimary:
    """The owner of the slot that all keys of one queue share; remembered until it answers that it is not."""

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
            try:
                ranges = await ask(node, ("CLUSTER", "SLOTS"))
            except (RedisError, OSError, TimeoutError) as error:
                troubles.append(f"{_text(node)}: {str(error) or type(error).__name__}")
                continue
            owners = [(first, last, _node(server, node)) for first, last, server, *_replicas in ranges]
            replicas = [_node(server, node) for _first, _last, _server, *replicas in ranges for server in replicas]
            # The nodes of the URL come last: they may have left the cluster, and may come back.
            self._known = list(dict.fromkeys([*(server for *_, server in owners), *replicas, *self.nodes]))
            for first, last, server in owners:
                if first <= self.slot <= last:
                    self._owner = server
                    return server
            troubles.append(f"{_text(node)}: nobody owns slot {self.slot}")
        raise RedisConnectionError("no node names the owner of our slot: " + "; ".join(troubles))

    async def check(self, _command: Callable[[str], Awaitable[Any]]) -> None:
        """Nothing to ask: a node that does not own the slot answers every command on it with MOVED."""

    def forget(self) -> None:
        self._owner = None


def slot_of(queue_name: str) -> int:
    """Return the hash slot of a queue: of its list's name, which is the hash tag of all its other keys."""
    return key_slot(queue_name.encode())


def _node(server: Sequence[Any], asked: Node) -> Node:
    # A node that does not know its own address leaves it empty: it is the one that was asked.
    host = _decoded(server[0]) if server[0] else ""
    return (host if host not in {"", "?"} else asked[0]), int(server[1])


def _decoded(word: bytes | str) -> str:
    return word.decode("utf-8", "replace") if isinstance(word, bytes) else word


def _text(node: Node) -> str:
    return f"{node[0]}:{node[1]}"
