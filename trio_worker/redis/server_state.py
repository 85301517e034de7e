"""Pure. How the Redis server is, as far as it tells: memory, clients, persistence, role."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import frozen


@frozen
class ServerState:
    """What INFO says; None or empty where it does not. ``most_bytes`` is 0 for a server without a limit."""

    role: str = ""
    used_bytes: int | None = None
    most_bytes: int | None = None
    policy: str = ""  # what it does when memory is full
    clients: int | None = None
    has_aof: bool | None = None
    unsaved_changes: int | None = None  # since the last snapshot file


def read_server_state(info: Mapping[str, str]) -> ServerState:
    """Read the fields of INFO."""
    return ServerState(
        role=info.get("role", ""),
        used_bytes=_whole(info.get("used_memory")),
        most_bytes=_whole(info.get("maxmemory")),
        policy=info.get("maxmemory_policy", ""),
        clients=_whole(info.get("connected_clients")),
        has_aof={"1": True, "0": False}.get(info.get("aof_enabled", "")),
        unsaved_changes=_whole(info.get("rdb_changes_since_last_save")),
    )


def _whole(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdigit() else None
