"""What a server says of itself, and which of it weakens a promise."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_worker.redis.server import ServerState, find_risks, read_server_state

SOUND = {
    "redis_version": "7.2.4",
    "valkey_version": "9.1.2",
    "role": "master",
    "aof_enabled": "1",
    "aof_last_write_status": "ok",
    "rdb_last_bgsave_status": "ok",
    "maxmemory": "0",
    "used_memory": "1000",
    "maxmemory_policy": "noeviction",
}
SETTINGS = {"maxmemory-policy": "noeviction", "save": "", "appendfsync": "everysec"}


def test_a_sound_redis_is_not_complained_of() -> None:
    """Nor is a hosted one that does not show its settings."""
    assert find_risks(SOUND, SETTINGS, 100.0, 100.0) == []
    assert find_risks({}, {}, 100.0, 101.0) == []


@pytest.mark.case("A7", "A15")
@pytest.mark.parametrize(
    ("info", "settings", "word", "breaks"),
    [
        ({"redis_version": "6.0.16", "valkey_version": None}, {}, "BLMOVE", True),
        ({"role": "slave"}, {}, "replica", True),
        ({}, {"maxmemory-policy": "allkeys-lru"}, "noeviction", True),
        ({"maxmemory_policy": "allkeys-random"}, {"maxmemory-policy": None}, "noeviction", True),
        ({"aof_enabled": "0"}, {}, "every job", True),
        ({"aof_enabled": "0"}, {"save": "3600 1"}, "since the last save", False),
        ({"aof_enabled": "0"}, {"save": None}, "since the last save", False),
        ({}, {"appendfsync": "no"}, "half a minute", False),
        ({"aof_last_write_status": "err"}, {}, "append-only file", True),
        ({"rdb_last_bgsave_status": "err"}, {}, "snapshot", True),
        ({"maxmemory": "1000", "used_memory": "950"}, {}, "95 % of maxmemory is used: soon no producer", False),
        ({"maxmemory": "1000", "used_memory": "1950"}, {}, "195 % of maxmemory is used: no producer", False),
    ],
)
def test_each_risk_is_named_with_the_promise_it_weakens(
    info: dict[str, str | None], settings: dict[str, str | None], word: str, *, breaks: bool
) -> None:
    """One risk for one cause, and whether the promise holds at all."""
    merged = {key: value for key, value in {**SOUND, **info}.items() if value is not None}
    configured = {key: value for key, value in {**SETTINGS, **settings}.items() if value is not None}
    (risk,) = find_risks(merged, configured, 100.0, 100.0)

    assert word in str(risk)
    assert risk.breaks == breaks


@pytest.mark.parametrize(("theirs", "words"), [(110.0, "10 s ahead of"), (90.0, "10 s behind")])
def test_clocks_that_differ_are_told(theirs: float, words: str) -> None:
    """In which direction, too."""
    (risk,) = find_risks(SOUND, SETTINGS, theirs, 100.0)
    assert words in risk.reason


def test_the_worst_comes_first() -> None:
    """Risks that break a promise come before those that weaken one."""
    info = {**SOUND, "maxmemory": "1000", "used_memory": "999", "role": "slave"}
    assert [each.breaks for each in find_risks(info, SETTINGS, 100.0, 90.0)] == [True, False, False]


@given(st.dictionaries(st.sampled_from([*SOUND, "other"]), st.text()).map(lambda some: {**some, "maxmemory": "0"}))
def test_no_text_of_a_server_raises(info: dict[str, str]) -> None:
    """A fork of Redis may say anything in a field that is for people."""
    find_risks({**info, "used_memory": "0"}, {}, 0.0, 0.0)


def test_server_says_what_it_says() -> None:
    """What INFO leaves out, or says in words, is unknown and no error."""
    assert read_server_state({}) == ServerState()
    assert read_server_state({"maxmemory": "much", "aof_enabled": "0", "connected_clients": "9"}) == ServerState(
        clients=9, has_aof=False
    )
