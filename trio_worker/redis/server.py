"""Pure. State of a Redis server, read from INFO and CONFIG, and the risks of its settings for our promises."""

from __future__ import annotations

from collections.abc import Mapping

from trio_worker.records import frozen

# BLMOVE, the blocking peek, came with 6.2; Valkey began after that, at 7.2.
MIN_REDIS_VERSION = (6, 2)
# Leases use only Redis' clock. Times shown to people use ours too: a larger difference would mislead them.
CLOCKS_APART_SECONDS = 2.0
# Claims and settlements need memory too; above this share a burst of jobs can fill the rest.
MEMORY_SHARE = 0.9


@frozen
class DurabilityRisk:
    """A setting or state of Redis that weakens a promise: what it is, which promise, and what to do about it.

    ``breaks``: the promise does not hold at all; without it, it does not hold in rare cases.
    """

    reason: str
    promise: str
    advice: str
    breaks: bool = False

    def __str__(self) -> str:
        return f"{self.reason}: {self.promise} ({self.advice})"


def find_risks(
    info: Mapping[str, str], settings: Mapping[str, str], their_time: float, our_time: float
) -> list[DurabilityRisk]:
    """Return the risks, the worst first.

    ``info``: the fields of INFO. ``settings``: those of CONFIG GET that could be read; a hosted Redis may refuse all of
    them. Times are epoch seconds.
    """
    found = [
        _version(info),
        _role(info),
        _eviction(info, settings),
        _persistence(info, settings),
        _syncing(info, settings),
        _writes(info),
        _memory(info),
        _clocks(their_time, our_time),
    ]
    return sorted((each for each in found if each is not None), key=lambda each: not each.breaks)


def _version(info: Mapping[str, str]) -> DurabilityRisk | None:
    if "valkey_version" in info:
        return None
    version = info.get("redis_version", "")
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if not version or numbers >= MIN_REDIS_VERSION:
        return None
    return DurabilityRisk(
        f"Redis {version}", "it has no BLMOVE, so nothing is claimed", "use 6.2 or later", breaks=True
    )


def _role(info: Mapping[str, str]) -> DurabilityRisk | None:
    if info.get("role", "master") == "master":
        return None
    return DurabilityRisk(
        "this is a replica", "nothing can be claimed from it", "name the primary in redis.url", breaks=True
    )


def _eviction(info: Mapping[str, str], settings: Mapping[str, str]) -> DurabilityRisk | None:
    policy = settings.get("maxmemory-policy") or info.get("maxmemory_policy", "")
    if not policy.startswith("allkeys"):
        return None
    return DurabilityRisk(
        f"maxmemory-policy is {policy}",
        "when memory is full Redis deletes accepted jobs",
        "set it to noeviction",
        breaks=True,
    )


def _persistence(info: Mapping[str, str], settings: Mapping[str, str]) -> DurabilityRisk | None:
    if info.get("aof_enabled", "1") != "0":
        return None
    if settings.get("save") == "":
        what = "neither appendonly nor save is on"
        return DurabilityRisk(what, "a restart of Redis loses every job", "set appendonly yes", breaks=True)
    what = "appendonly is off"
    return DurabilityRisk(what, "a crash of Redis loses the jobs pushed since the last save", "set appendonly yes")


def _syncing(info: Mapping[str, str], settings: Mapping[str, str]) -> DurabilityRisk | None:
    if info.get("aof_enabled") != "1" or settings.get("appendfsync") != "no":
        return None
    what = "appendfsync is no"
    return DurabilityRisk(what, "a power cut loses the jobs of about half a minute", "set it to everysec or always")


def _writes(info: Mapping[str, str]) -> DurabilityRisk | None:
    for field, what in (("aof_last_write_status", "append-only file"), ("rdb_last_bgsave_status", "snapshot")):
        if info.get(field, "ok") != "ok":
            promise = "Redis cannot write to its disk, and a restart loses jobs"
            return DurabilityRisk(f"the last write of the {what} failed", promise, "free disk space", breaks=True)
    return None


def _memory(info: Mapping[str, str]) -> DurabilityRisk | None:
    limit, used = int(info.get("maxmemory", "0")), int(info.get("used_memory", "0"))
    if not limit or used < MEMORY_SHARE * limit:
        return None
    what = f"{100 * used // limit} % of maxmemory is used"
    promise = "no producer can push" if used > limit else "soon no producer can push"
    return DurabilityRisk(what, promise, "raise maxmemory")


def _clocks(their_time: float, our_time: float) -> DurabilityRisk | None:
    apart = their_time - our_time
    if abs(apart) < CLOCKS_APART_SECONDS:
        return None
    what = f"the clock of Redis is {abs(apart):.0f} s {'ahead of' if apart > 0 else 'behind'} ours"
    return DurabilityRisk(what, "times in logs and enqueued_at of producers do not fit together", "keep both with NTP")


def info_fields(info: object) -> dict[str, str]:
    """Return the fields of INFO as text, whether redis-py has parsed it or not."""
    if isinstance(info, dict):
        return {_text(key): _text(value) for key, value in info.items()}
    lines = (line.partition(":") for line in _text(info).splitlines())
    return {key: value for key, colon, value in lines if colon}


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def pairs(answer: object) -> list[tuple[bytes, bytes | float]]:
    """Return (member, value) pairs from any form that RESP2 and RESP3 have for them: flat, nested or a map."""
    if isinstance(answer, dict):
        return list(answer.items())
    if not isinstance(answer, list):
        raise TypeError(f"no pairs: {type(answer).__name__}")
    if answer and isinstance(answer[0], list | tuple):
        return [(member, value) for member, value in answer]
    return list(zip(answer[::2], answer[1::2], strict=True))


@frozen
class ServerState:
    """Fields of INFO; None or empty if it has no such field. ``most_bytes`` is 0 for a server without a limit."""

    role: str = ""
    used_bytes: int | None = None
    most_bytes: int | None = None
    policy: str = ""  # maxmemory-policy: what happens when memory is full
    clients: int | None = None
    has_aof: bool | None = None
    unsaved_changes: int | None = None  # since the last snapshot file; only for `stats --json`


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
