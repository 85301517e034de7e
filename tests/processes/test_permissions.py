"""The permissions in Redis that docs/operations.md gives: a worker and every command work with them, and need each."""

from __future__ import annotations

import re
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import COMMANDS as ALL_COMMANDS
from tests.support.jobs import job_bytes
from tests.support.paths import ROOT
from tests.support.processes import Programs, patience, told
from trio_worker.capture.catcher import Catcher
from trio_worker.queue.needs import TO_REPORT, TO_WORK
from trio_worker.redis.client import RedisClient
from trio_worker.redis.scripts import read_scripts
from trio_worker.redis.trial import commands_of

PAGE = (ROOT / "docs" / "operations.md").read_text("utf-8")
# Refused to both users, and done without.
ORDER = b'{"task_type":"Email","id":"order-9","data":{"email_type":"Unknown","data":{}}}'
NOT_NEEDED = {"config|get", "client|setinfo"}


def rules_of(user: str) -> list[str]:
    """The rules that the page gives a user, with a password."""
    found = re.search(rf"^ACL SETUSER {user} on >PASSWORD (.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1].split()


def commands_in(rules: list[str]) -> set[str]:
    return {rule[1:] for rule in rules if rule.startswith("+")}


async def be(user: str, admin: RedisClient, programs: Programs, folder: Path) -> Programs:
    """Programs that log in as a user with the rules of the page."""
    assert await admin.command("ACL", "SETUSER", user, "reset", "on", ">secret", *rules_of(user)) in (b"OK", True)
    config = folder / f"{user}.toml"
    config.write_text(
        programs.config.read_text().replace("[redis]\n", f'[redis]\nusername = "{user}"\npassword = "secret"\n')
    )
    return Programs(folder, config, programs.started)


async def used(admin: RedisClient) -> set[str]:
    """The commands that anybody has run since the counts were reset, in scripts too."""
    stats: Any = await admin.command("INFO", "commandstats")
    return {name.removeprefix("cmdstat_") for name, counts in stats.items() if counts["calls"]}


async def refused(admin: RedisClient) -> set[str]:
    """What was refused to anybody."""
    log: Any = await admin.command("ACL", "LOG")
    entries = [dict(zip(each[::2], each[1::2], strict=True)) if isinstance(each, list) else each for each in log]
    return {(each.get(b"object") or each["object"]).decode() for each in entries}


async def reset(admin: RedisClient) -> None:
    await admin.command("ACL", "LOG", "RESET")
    await admin.command("SCRIPT", "FLUSH")
    await admin.command("CONFIG", "RESETSTAT")


async def test_a_worker_needs_the_permissions_of_the_page_and_no_others(
    programs: Programs, real_redis: RedisClient, relay: Catcher, tmp_path: Path
) -> None:
    """It sends, delays and buries, shows itself, obeys an order, publishes outcomes, and counts for its metrics."""
    mailer = await be("mailer", real_redis, programs, tmp_path)
    await real_redis.command("SET", "{jobs}:watch", "1")
    await reset(real_redis)
    worker = await mailer.start("run", "--no-dashboard")
    await real_redis.command("RPUSH", "jobs", *(job_bytes(number) for number in range(20)), b"nonsense")
    mails = 20
    with patience():
        await relay.wait_for_mails(mails)
        # A wait is counted when a job ends it, not when a drain does.
        while "blmove" not in await used(real_redis):
            mails += 1
            await real_redis.command("RPUSH", "jobs", job_bytes(mails))
            await relay.wait_for_mails(mails)
    await told(programs, "worker", "drain", "--all")
    assert await worker.end() == 0, worker.complained

    assert worker.ledger["sent"] == mails
    assert worker.ledger["dead"] == 1
    assert await refused(real_redis) <= NOT_NEEDED
    assert "Redis failed" not in mailer.log
    assert commands_in(rules_of("mailer")) - await used(real_redis) == set()


COMMANDS: tuple[tuple[str, ...], ...] = (
    ("worker", "list"),
    ("worker", "quiet", "--all"),
    ("worker", "tasks", "--all"),
    ("dead", "groups"),
    ("dead", "list"),
    ("dead", "export"),
    ("dead", "show", "last"),
    ("job", "show", "last"),
    ("dead", "edit", "last", "--yes"),
    ("dead", "retry", "--all", "--yes"),
    ("delayed", "groups"),
    ("delayed", "list"),
    ("delayed", "show", "last"),
    ("delayed", "export"),
    ("delayed", "retry", "last", "--yes"),
    ("delayed", "drop", "last", "--yes"),
    ("job", "retry", "last"),
    ("worker", "log-level", "debug", "--all", "--for", "1m"),
    ("relay", "probe"),
    ("job", "find", "--id", "order-9"),
    ("job", "find", "--type", "Unknown"),
    ("job", "cancel", "--id", "order-9", "--yes"),
    ("status",),
    ("audit", "--deep"),
    ("stats", "--last", "5"),
    ("stats", "--count", "1", "--interval", "1"),
    ("tail", "--for", "1s"),
    ("smtp", "trace", "--for", "1s"),
    ("why",),
    ("doctor",),
    ("queue", "list"),
    ("queue", "peek"),
    ("queue", "age"),
    ("queue", "export"),
    ("queue", "pause", "--reason", "a test"),
    ("queue", "resume"),
    ("queue", "drain-wait", "--timeout", "0s"),
    ("queue", "release", "--yes"),
    ("queue", "resume"),
    ("dead", "drop", "--all", "--yes"),
    ("held", "list"),
    ("queue", "purge", "--yes"),
    ("worker", "resume", "--all"),
)
OK_OR_NOTHING = {0, 3, 4, 75}
# These ask no Redis, need a terminal, or do what another one of the list does.
OTHERS = {
    *("capture", "completion", "config", "demo", "enqueue", "health", "held", "mail", "metrics", "run", "schema"),
    *("send", "shell", "smtp", "top"),
}


def test_no_script_needs_more() -> None:
    """Also where a test does not come by: in a branch for what is rare."""
    scripts = read_scripts()
    of_a_worker = commands_of(scripts, (*TO_WORK, *TO_REPORT))

    assert {command.lower() for command in of_a_worker} <= commands_in(rules_of("mailer"))
    assert {command.lower() for command in commands_of(scripts, tuple(scripts))} <= commands_in(rules_of("operator"))


def test_every_command_that_asks_redis_is_tried() -> None:
    """A new one must be entered in the list, or among those that ask no Redis."""
    tried = {words[:2] for words in COMMANDS} | {words[:1] for words in COMMANDS}

    for words in ALL_COMMANDS:
        assert words in tried or words[0] in OTHERS or words == ("worker", "drain"), words


@pytest.mark.slow
async def test_the_commands_need_the_permissions_of_the_page_and_no_others(
    programs: Programs, real_redis: RedisClient, relay: Catcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every command that asks Redis, beside a worker of the same user."""
    operator = await be("operator", real_redis, programs, tmp_path)
    await reset(real_redis)
    worker = await operator.start("run", "--no-dashboard")
    await real_redis.command("RPUSH", "jobs", job_bytes(0))
    with patience():
        await relay.wait_for_mails(1)
    (tmp_path / "jobs.ndjson").write_bytes(job_bytes(1))
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.setenv("EDITOR", f"cp {tmp_path}/jobs.ndjson")
    for words in (("enqueue", "jobs.ndjson"), *COMMANDS):
        await real_redis.command("RPUSH", "jobs", b"nonsense", ORDER)
        program = await operator.start(*words)
        code = await program.end()
        assert code in OK_OR_NOTHING, (words, program.printed, program.complained)
    worker.signal(signal.SIGTERM)
    assert await worker.end() == 0, worker.complained

    assert await refused(real_redis) <= NOT_NEEDED
    assert commands_in(rules_of("operator")) - await used(real_redis) == set()
