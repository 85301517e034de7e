"""Privacy: a whole run with known addresses, tokens and bodies, and none of them in any output."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator

import pytest
import trio

from tests.support.faults import faults
from tests.support.processes import Programs, patience, told
from tests.support.terminal import open_window
from trio_worker.capture.actions import CaughtMail
from trio_worker.capture.catcher import Catcher
from trio_worker.capture.store import MaildirStore
from trio_worker.queue.keys import keys_of
from trio_worker.redis.client import RedisClient
from trio_worker.telemetry import probe

LOCAL, TOKEN, BODY, NAME = (
    "margarete.vogelsang",
    "tok3n-8f2a61c0",
    "the diagnosis is in the letter",
    "Margarete Vogelsang",
)
ADDRESS = f"{LOCAL}@example.org"
COMMANDS = (
    ("status",),
    ("status", "--json"),
    ("top", "--once"),
    ("top", "--json"),
    ("worker", "list"),
    ("worker", "list", "--json"),
    ("why",),
    ("stats", "--count", "1", "--interval", "1"),
    ("queue", "list", "--json"),
    ("queue", "age", "--by", "domain"),
    ("dead", "list"),
    ("dead", "list", "--json"),
    ("dead", "groups", "--json"),
    ("audit",),
    ("doctor",),
    ("config", "show"),
)


def jobs() -> Iterator[bytes]:
    """One job of each kind: sent, refused by a relay that repeats the address, not understood, no JSON."""
    fields = {"email": f"{NAME} <{ADDRESS}>", "username": NAME, "token": TOKEN}
    for email_type in ("Registration", "ResetPassword", "EmailChange"):
        yield job(email_type, fields)
    yield job("Message", {"to": ADDRESS, "cc": [f"{LOCAL}.2@example.org"], "subject": BODY, "text": BODY})
    yield job("Message", {"to": f"refused.{LOCAL}@example.org", "subject": "x", "text": BODY})
    yield job("Registration", {"email": f"{LOCAL} example.org", "token": TOKEN})
    yield job("NoSuchType", fields)
    yield f'{{"broken": "{ADDRESS} {TOKEN}'.encode()


def job(email_type: str, fields: object) -> bytes:
    return json.dumps({"task_type": "Email", "data": {"email_type": email_type, "data": fields}}).encode()


def assert_names_nobody(shown: str, where: str) -> None:
    # A screen draws over itself: what an escape sequence parts belongs together.
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown)
    for secret in (LOCAL, TOKEN, BODY, NAME):
        assert secret.lower() not in plain.lower(), (where, secret)


async def test_nothing_that_is_shown_names_anybody(programs: Programs, real_redis: RedisClient, relay: Catcher) -> None:
    """Frames, log, metrics, heartbeats, outcomes in Redis, and every command that reads, with its defaults."""
    listen = f"unix:{programs.folder}/w.sock"
    with programs.config.open("a") as config:
        config.write(f'[metrics]\nlisten = "{listen}"\n[log]\nlevel = "debug"\n')
    relay.faults = faults("rcpt=550:12%")
    with patience():
        worker, window, (_outside, _before) = await open_window(programs, "run")
        await window.until("1-5 pages")
        tail = await programs.start("tail", "--for", "20")
        while not await real_redis.command("EXISTS", keys_of("jobs").latest):
            await real_redis.command("RPUSH", "jobs", *jobs())
            with trio.move_on_after(0.5):
                await window.until("nothing of the kind")
        window.press("5")
        await window.until("LATEST")
        shown = [(await told(programs, *words), " ".join(words)) for words in COMMANDS]
        (dead, *_) = json.loads(await told(programs, "dead", "list", "--json"))["jobs"]
        shown += [(await told(programs, noun, "show", dead["job_id"]), noun) for noun in ("dead", "job")]
        metrics = await trio.to_thread.run_sync(probe.ask, listen, "/metrics")
        ready = await trio.to_thread.run_sync(probe.ask, listen, "/readyz")
        heartbeats = await real_redis.command("HVALS", keys_of("jobs").heartbeats)
        outcomes = await real_redis.command("XRANGE", keys_of("jobs").latest, "-", "+")
        worker.send_signal(signal.SIGUSR1)
        await window.until("SIGUSR1: state and tasks are in ")
        worker.send_signal(signal.SIGTERM)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(window.read_on)
            assert await worker.wait() == 0
            nursery.cancel_scope.cancel()
        tail.signal(signal.SIGINT)
        await tail.end()
    trio.lowlevel.notify_closing(window.fd)

    assert relay.mails
    assert any(LOCAL in recipient for mail in relay.mails for recipient in mail.recipients)
    assert metrics[0] == 200
    shown += [
        (window.seen, "frames"),
        (programs.log, "log"),
        (metrics[1], "metrics"),
        (ready[1], "readyz"),
        (str(heartbeats), "heartbeats"),
        (str(outcomes), "outcomes"),
        (tail.printed, "tail"),
        (tail.complained, "tail's complaints"),
        *((path.read_text(), path.name) for path in (programs.folder / "logs").glob("state-*.txt")),
    ]
    assert "Buried job" in programs.log
    assert "…" in window.seen
    for text, where in shown:
        assert_names_nobody(text, where)


async def test_what_was_caught_and_what_waits_names_nobody_unasked(programs: Programs, real_redis: RedisClient) -> None:
    """Showing them on request leaves a line in the log."""
    mail = CaughtMail("us@example.com", (ADDRESS,), f"Subject: {BODY}\r\n\r\n{TOKEN}\r\n".encode())
    await MaildirStore(programs.folder / "var" / "capture").keep([mail])
    await real_redis.command("RPUSH", "jobs", *jobs())
    with patience():
        for words in (("capture", "ls"), ("capture", "ls", "--json"), ("queue", "peek"), ("queue", "peek", "--json")):
            assert_names_nobody(await told(programs, *words), " ".join(words))
        assert BODY in await told(programs, "capture", "ls", "--reveal")
        assert TOKEN in await told(programs, "capture", "show", "last")
        assert TOKEN in await told(programs, "queue", "peek", "--reveal")

    assert [command for command in ("capture ls", "capture show", "queue peek") if command in programs.log] == [
        "capture ls",
        "capture show",
        "queue peek",
    ]
    assert_names_nobody(programs.log, "log")


@pytest.mark.parametrize("secret", [LOCAL, TOKEN, BODY, NAME])
def test_the_test_would_see_it(secret: str) -> None:
    """A screen that shows a secret, drawn in pieces, is found out."""
    with pytest.raises(AssertionError):
        assert_names_nobody(f"ok {secret[:3]}\x1b[1m{secret[3:]} ok", "a frame")
