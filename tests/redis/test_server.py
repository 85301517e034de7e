"""What is said of a Redis that weakens a promise: pure, on a real Valkey, and by ``doctor``."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from tests.support.workers import WorkerMaker
from trio_worker.cli import app
from trio_worker.redis.client import RedisClient
from trio_worker.redis.durability import check_durability
from trio_worker.redis.server import find_risks
from trio_worker.worker.events import RedisWeak

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
    """Also a hosted one that tells nothing of its settings."""
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
        ({"maxmemory": "1000", "used_memory": "950"}, {}, "95 %", False),
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
    assert words in risk.what


def test_the_worst_comes_first() -> None:
    """What breaks a promise stands before what weakens one."""
    info = {**SOUND, "maxmemory": "1000", "used_memory": "999", "role": "slave"}
    assert [each.breaks for each in find_risks(info, SETTINGS, 100.0, 90.0)] == [True, False, False]


@given(st.dictionaries(st.sampled_from([*SOUND, "other"]), st.text()).map(lambda some: {**some, "maxmemory": "0"}))
def test_no_text_of_a_server_raises(info: dict[str, str]) -> None:
    """A fork of Redis may say anything in a field that is for people."""
    find_risks({**info, "used_memory": "0"}, {}, 0.0, 0.0)


@asynccontextmanager
async def configured(client: RedisClient, key: str, value: str) -> AsyncIterator[None]:
    before: Any = await client.command("CONFIG", "GET", key)
    await client.command("CONFIG", "SET", key, value)
    try:
        yield
    finally:
        old = before[key.encode()] if isinstance(before, dict) else before[1]
        await client.command("CONFIG", "SET", key, old)


@pytest.mark.case("A7", "A15")
async def test_a_worker_tells_at_its_start_what_is_weak(workers: WorkerMaker) -> None:
    """The embedded server is sound; one that may evict jobs is not."""
    assert await check_durability(workers.client) == []
    async with configured(workers.client, "maxmemory-policy", "allkeys-lru"):
        reporter = workers.make(workers.options(1), is_burst=False)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reporter.run)
            with trio.fail_after(60):
                await workers.wait_until(lambda: any(isinstance(event, RedisWeak) for event in workers.events))
            reporter.worker.drain("told")
    (weak,) = [event for event in workers.events if isinstance(event, RedisWeak)]
    assert "allkeys-lru" in weak.risk.what


async def test_a_redis_that_tells_nothing_of_its_settings_is_not_blamed(workers: WorkerMaker) -> None:
    """CONFIG is often forbidden; the rest is looked at all the same."""
    await workers.client.command("ACL", "SETUSER", "default", "-config")
    try:
        assert await check_durability(workers.client) == []
    finally:
        await workers.client.command("ACL", "SETUSER", "default", "+config")


def test_doctor_says_of_each_part_whether_it_will_do(
    work_folder: Path, valkey_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A relay that is not there fails it with 69; Redis, templates and journal are fine."""
    config = work_folder / "worker.toml"
    config.write_text(f'profile = "production"\n[redis]\nurl = "{valkey_url}"\n[smtp]\nport = 1\ntls = "none"\n')

    assert app(["doctor", "--config", str(config)]) == 69
    lines = {line.split()[1]: line for line in capsys.readouterr().out.splitlines() if not line.startswith("warn")}
    assert [name for name, line in lines.items() if line.startswith("fail")] == ["relay"]
    assert set(lines) == {"versions", "configuration", "templates", "journal", "redis", "relay"}
    assert app(["doctor", "--config", str(config), "--json"]) == 69
    assert {each["sign"] for each in json.loads(capsys.readouterr().out)} >= {"ok", "fail"}


def test_doctor_fails_on_what_breaks_a_promise(work_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A journal that cannot be read, a template that does not compile: with 78, all of them named."""
    (work_folder / "journal").mkdir()
    (work_folder / "journal" / "1-a.journal").write_text("nonsense\n")
    (work_folder / "types" / "Bad").mkdir(parents=True)
    config = work_folder / "worker.toml"
    config.write_text(
        'profile = "dev"\n[queue]\njournal_dir = "journal"\n[redis]\nurl = "embedded:valkey"\n'
        '[smtp]\ntls = "none"\nport = 1025\n[capture]\nlisten = "127.0.0.1:1025"\n[mail]\ntemplate_dirs = ["types"]\n'
    )

    assert app(["doctor", "--config", str(config)]) == 78
    failed = [line.split()[1] for line in capsys.readouterr().out.splitlines() if line.startswith("fail")]
    assert set(failed) == {"templates", "journal"}
