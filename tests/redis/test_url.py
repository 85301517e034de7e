"""Redis URLs: where the servers are, and what is wrong with a URL that names none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_worker.redis.primary import slot_of
from trio_worker.redis.url import RedisUrl, RedisUrlFault, Way, parse_redis_url, shown_redis_url


@pytest.mark.parametrize(
    ("url", "parsed"),
    [
        ("redis://db:7000/2", RedisUrl(Way.DIRECT, "redis://db:7000/2", (("db", 7000),))),
        ("rediss://me:pw@db", RedisUrl(Way.DIRECT, "rediss://me:pw@db:6379", (("db", 6379),))),
        ("redis://[::1]:7000?protocol=2", RedisUrl(Way.DIRECT, "redis://[::1]:7000?protocol=2", (("::1", 7000),))),
        ("unix:///run/valkey.sock?db=1", RedisUrl(Way.DIRECT, "unix:///run/valkey.sock?db=1")),
        (
            "redis+sentinel://:pw@a,b:7001/my%20primary/3",
            RedisUrl(Way.SENTINEL, "redis://:pw@a:26379/3", (("a", 26379), ("b", 7001)), "my primary"),
        ),
        ("rediss+sentinel://a/p", RedisUrl(Way.SENTINEL, "rediss://a:26379", (("a", 26379),), "p")),
        (
            "redis+cluster://a,b:7001,[::1]:7002/0",
            RedisUrl(Way.CLUSTER, "redis://a:6379/0", (("a", 6379), ("b", 7001), ("::1", 7002))),
        ),
    ],
)
def test_a_url_names_its_servers(url: str, parsed: RedisUrl) -> None:
    """Ports have their usual numbers; login, database and query go on to redis-py."""
    assert parse_redis_url(url) == parsed


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("http://secret@a", "must begin with redis://"),
        ("redis://", "has no host"),
        ("redis://a:0", "has no host, or a port"),
        ("redis://a:seven", "has no host, or a port"),
        ("redis://a b", "has no host"),
        ("redis+cluster://a,b\t", "has no host"),
        ("redis://a/jobs", "must be the number of a database"),
        ("unix://", "names no socket"),
        ("redis+sentinel://a,b", "names no primary"),
        ("redis+sentinel://a,,b/p", "has no host"),
        ("redis+cluster://a/1", "database 0 only"),
        ("redis://a?socket_timeout=5", "option that is not known"),
        ("redis://a?protocol=two", "protocol that is not a number"),
    ],
)
def test_a_url_that_cannot_be_used_says_why(url: str, what: str) -> None:
    """The fault never repeats a login."""
    fault = parse_redis_url(url)
    assert isinstance(fault, RedisUrlFault)
    assert what in fault.reason
    assert "secret" not in fault.reason


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://me:secret@db", "db:6379"),
        ("redis://db:7000/2?password=secret", "db:7000/2"),
        ("redis+sentinel://:secret@a,b/p/0", "a:26379,b:26379/p"),
        ("unix://me:secret@/run/valkey.sock", "unix:/run/valkey.sock"),
    ],
)
def test_a_shown_url_has_no_login(url: str, shown: str) -> None:
    """Nor options, and no database 0."""
    assert shown_redis_url(url) == shown


@given(st.text(max_size=40).map("redis+sentinel://".__add__) | st.text(max_size=40))
def test_any_text_is_a_url_or_a_fault(text: str) -> None:
    """Nothing raises."""
    try:
        parsed = parse_redis_url(text)
    except ValueError as error:
        raise AssertionError(text) from error
    assert isinstance(parsed, RedisUrl | RedisUrlFault)


def test_all_keys_of_a_queue_share_the_slot_of_its_list() -> None:
    """9631 is what CLUSTER KEYSLOT says of jobs and of {jobs}:leased."""
    assert slot_of("jobs") == slot_of("{jobs}:leased") == 9631


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://cache:6380/3", "cache:6380/3"),
        ("redis://cache?db=3", "cache:6379/3"),
        ("redis://cache/1?db=3", "cache:6379/3"),
        ("redis://cache?db=0", "cache:6379"),
        ("redis+sentinel://a,b/mail/2", "a:26379,b:26379/mail/2"),
        ("redis+sentinel://a/mail?db=2", "a:26379/mail/2"),
        ("unix:///run/redis.sock?db=2", "unix:/run/redis.sock (database 2)"),
    ],
)
def test_the_database_in_use_is_shown(url: str, shown: str) -> None:
    """Wherever the URL names it: a command that looks at another one finds an empty queue."""
    assert shown_redis_url(url) == shown
