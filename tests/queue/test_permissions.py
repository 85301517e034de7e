"""Permissions in Redis: a script that may not do all that it needs does nothing, and the missing command is named."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.support.jobs import job_bytes
from trio_worker.queue.broker import Broker
from trio_worker.queue.claim import Claims
from trio_worker.queue.keys import keys_of
from trio_worker.queue.needs import TO_REPORT, find_refusal
from trio_worker.queue.options import QueueOptions
from trio_worker.redis.calls import Unavailable
from trio_worker.redis.client import RedisClient, open_redis_client
from trio_worker.redis.errors import PERMISSIONS_PAGE
from trio_worker.redis.options import RedisOptions
from trio_worker.redis.scripts import read_scripts
from trio_worker.redis.trial import commands_of

SCRIPTS = read_scripts()
OF_A_WORKER = commands_of(SCRIPTS, ("claim", "settle", "renew"))
ALL_IN_SCRIPTS = [
    (script.name, command)
    for script in SCRIPTS.values()
    if script.writes and script.commands
    for command in script.commands
]


@asynccontextmanager
async def open_as(admin: RedisClient, url: str, *rules: str) -> AsyncIterator[RedisClient]:
    """A client whose user has only these permissions."""
    await admin.command("ACL", "SETUSER", "mailer", "reset", "on", ">secret", "~jobs", "~{jobs}:*", *rules)
    async with open_redis_client(RedisOptions(url=url, username="mailer", password="secret"), 5.0) as client:
        yield client
    await admin.command("ACL", "DELUSER", "mailer")


async def everything(admin: RedisClient) -> dict[bytes, bytes]:
    """All keys with their values, as DUMP writes them."""
    keys = await admin.command("KEYS", "*")
    assert isinstance(keys, list), keys
    return {key: await _dump(admin, key) for key in keys}


async def _dump(admin: RedisClient, key: bytes) -> bytes:
    dumped = await admin.command("DUMP", key)
    assert isinstance(dumped, bytes), dumped
    return dumped


async def fill(admin: RedisClient) -> None:
    """Put jobs in each state."""
    keys = keys_of("jobs")
    await admin.command("RPUSH", "jobs", *(job_bytes(number) for number in range(3)))
    for state in ("leased", "delayed", "held", "dead"):
        await admin.command("ZADD", keys.of_state(state), 1, state)
        await admin.command("HSET", keys.body, state, job_bytes(9))
        await admin.command("HSET", keys.lease, state, "a.1|1|")
    await admin.command("ZADD", keys.workers, 1, "w")
    await admin.command("SET", keys.watch, "1")


@pytest.mark.parametrize("command", OF_A_WORKER)
async def test_a_worker_that_may_not_do_all_it_needs_claims_nothing_and_names_the_command(
    command: str, real_redis: RedisClient, valkey_url: str
) -> None:
    """What is needed to settle is needed to claim: no job is popped, leased or counted."""
    await real_redis.command("RPUSH", "jobs", job_bytes(0))
    before = await everything(real_redis)
    async with open_as(real_redis, valkey_url, "+@all", f"-{command.lower()}") as client:
        answer = await Broker(client, QueueOptions()).claim(10)

    assert isinstance(answer, Unavailable)
    assert answer.is_denied
    assert answer.is_refusal
    assert answer.reason == f"the user of Redis has no permission for {command}: see {PERMISSIONS_PAGE}"
    assert await everything(real_redis) == before


async def test_all_missing_permissions_are_named_at_once(real_redis: RedisClient, valkey_url: str) -> None:
    """An operator need not come back for each."""
    async with open_as(real_redis, valkey_url, "+@all", "-hincrby", "-lpop", "-zadd") as client:
        answer = await Broker(client, QueueOptions()).claim(10)

    assert isinstance(answer, Unavailable)
    assert answer.denied == "HINCRBY, LPOP, ZADD"


async def test_a_permission_that_comes_back_is_noticed(real_redis: RedisClient, valkey_url: str) -> None:
    """The next claim tries again; nothing has to be started anew."""
    await real_redis.command("RPUSH", "jobs", job_bytes(0))
    async with open_as(real_redis, valkey_url, "+@all", "-hincrby") as client:
        broker = Broker(client, QueueOptions())
        assert isinstance(await broker.claim(10), Unavailable)
        await real_redis.command("ACL", "SETUSER", "mailer", "+hincrby")
        claims = await broker.claim(10)

    assert isinstance(claims, Claims)
    assert len(claims.jobs) == 1


@pytest.mark.parametrize(("name", "command"), ALL_IN_SCRIPTS)
async def test_no_script_writes_anything_before_it_may_write_everything(
    name: str, command: str, real_redis: RedisClient, valkey_url: str
) -> None:
    """Also where a permission is taken away between two calls, when no trial goes before."""
    await fill(real_redis)
    before = await everything(real_redis)
    job = {"settle": ("leased", "a.1|done|0|0|"), "renew": ("leased", "a.1"), "claim": ()}.get(name, ("dead", "dead"))
    head = {"claim": ("a.2", 60000, 10, 5, 100000, "0" * 16, 0, 1), "renew": (60000, ""), "tell": (9,), "purge": (1,)}
    args = (*head.get(name, ()), *job) if name != "beat" else ("w", "{}", 1000, 0)
    keys = keys_of("jobs")
    async with open_as(real_redis, valkey_url, "+@all", f"-{command.lower()}") as client:
        answer = await client.command("EVAL", SCRIPTS[name].text, len(keys), *keys, *args)

    assert isinstance(answer, Unavailable)
    assert answer.is_denied
    assert await everything(real_redis) == before


async def test_a_missing_permission_for_a_key_is_told_as_that(real_redis: RedisClient, valkey_url: str) -> None:
    """With ~jobs alone nothing can be claimed."""
    await real_redis.command("ACL", "SETUSER", "mailer", "reset", "on", ">secret", "~jobs", "+@all")
    async with open_redis_client(RedisOptions(url=valkey_url, username="mailer", password="secret"), 5.0) as client:
        answer = await Broker(client, QueueOptions()).claim(10)
    await real_redis.command("ACL", "DELUSER", "mailer")

    assert isinstance(answer, Unavailable)
    assert answer.is_denied
    assert "no permission for a key" in answer.reason


async def test_a_trial_leaves_nothing_behind(redis: RedisClient) -> None:
    """On the real server and on the fake one, for the commands of all scripts."""
    names = [name for name, script in SCRIPTS.items() if script.writes]
    commands = commands_of(SCRIPTS, tuple(names))
    answer = await redis.command("EVAL", SCRIPTS["trial"].text, 2, "jobs", "{jobs}:leased", *commands)

    assert answer == []
    assert await redis.command("KEYS", "*") == []


async def test_a_worker_tries_its_permissions_once(redis: RedisClient) -> None:
    """Before its first claim; a claim is one call after that."""
    broker = Broker(redis, QueueOptions())
    await broker.claim(1)
    before = redis.calls
    for _ in range(3):
        assert isinstance(await broker.claim(1), Claims)

    assert redis.calls - before == 3


async def test_keys_that_are_not_permitted_are_found_by_the_trial(real_redis: RedisClient, valkey_url: str) -> None:
    """Of a worker that may write jobs, but not the keys by which it is seen."""
    keys = [f"~{key}" for key in keys_of("jobs").of_jobs]
    await real_redis.command("ACL", "SETUSER", "mailer", "reset", "on", ">secret", *keys, "~{jobs}:trial", "+@all")
    async with open_redis_client(RedisOptions(url=valkey_url, username="mailer", password="secret"), 5.0) as client:
        work, report = await find_refusal(client, "jobs"), await find_refusal(client, "jobs", TO_REPORT)
    await real_redis.command("ACL", "DELUSER", "mailer")

    assert work is None
    assert report is not None
    assert report.is_denied
    assert "no permission for a key" in report.reason
