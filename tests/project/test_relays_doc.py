"""docs/relays.md against a relay that says what it says: each row, each configuration."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import trio

from tests.support.jobs import job_bytes
from tests.support.limited_relay import InAll, open_limited_relay, take_all
from tests.support.paths import ROOT
from tests.support.workers import WorkerMaker
from trio_worker.settings.reader import Settings, read_settings
from trio_worker.smtp.backoff import BackOff
from trio_worker.smtp.events import ConnectionClosed, PlacesSuspended
from trio_worker.smtp.reply import Stage, reply_from
from trio_worker.worker import breaker
from trio_worker.worker.breaker import Open
from trio_worker.worker.events import BreakerChanged, RateLimited
from trio_worker.worker.options import RetryPolicy
from trio_worker.worker.phase import Disposition
from trio_worker.worker.reply_classes import classify
from trio_worker.worker.reply_rule import ReplyClass

PAGE = (ROOT / "docs/relays.md").read_text("utf-8")
ROWS = re.findall(r"^\| `([45][0-9]{2}) (.*)` \| (mail|rcpt|final) \| `(\w+)` \|$", PAGE, re.MULTILINE)
CONFIGURATIONS = [text for text in re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL) if "[smtp]" in text]


def test_the_page_has_all_relays() -> None:
    """Ten relays, with settings and replies."""
    assert len(CONFIGURATIONS) == 10
    assert len(ROWS) >= 30
    assert set(re.findall(r"^\| `(\w+)` \| [a-z]", PAGE, re.MULTILINE)) == set(ReplyClass)


@pytest.mark.parametrize("text", CONFIGURATIONS)
def test_each_configuration_is_one(text: str, tmp_path: Path) -> None:
    """As it stands."""
    path = tmp_path / "production.toml"
    path.write_text(text, "utf-8")
    # Hosts under example.com stand for one's own, which production refuses.
    read = read_settings(path, {"TRIO_WORKER__SMTP__ALLOW_REAL_RELAY": "true"})

    assert isinstance(read, Settings), read
    host = tomllib.loads(text)["smtp"]["host"]
    assert (read.smtp.host, read.smtp.tls) == (host, "starttls")


@pytest.mark.parametrize(("code", "text", "at", "name"), ROWS)
async def test_each_reply_is_taken_for_what_the_page_says(
    workers: WorkerMaker, code: str, text: str, at: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three mails are accepted, then every one gets this reply; then the relay takes mail again."""
    words = f"{code} {text}"
    reply = reply_from(int(code), text, Stage(at))
    assert classify(reply).reply_class == name
    for backoff in ("STANDING_BACKOFF", "LOGIN_BACKOFF", "DOUBTFUL_BACKOFF"):
        monkeypatch.setattr(breaker, backoff, BackOff(0.1, 0.1))
    is_about_one = name in {"mail", "recipient"}
    async with open_limited_relay(InAll(3, at.upper(), words)) as relay:
        retry = RetryPolicy(max_attempts=2, base_seconds=0.05, cap_seconds=0.1)
        reporter = workers.make(workers.options(relay.port, retry=retry), is_burst=False)
        await workers.push(*map(job_bytes, range(12)))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reporter.run)
            with trio.fail_after(60):
                if is_about_one:
                    await workers.wait_until(lambda: _count(workers, Disposition.DEAD) == 9)
                else:
                    await workers.wait_until(lambda: bool(troubles(workers)) or name in {"rate", "concurrency"})
                    await relay.wait_for_refusals(1)
                    relay.policy = take_all
                    await relay.wait_for(12)
            reporter.worker.drain("seen")

    kinds = {type(event) for event in workers.events}
    if is_about_one:
        assert troubles(workers) == set()
        assert (_count(workers, Disposition.DELAYED) > 0) == reply.is_transient
        return
    assert _count(workers, Disposition.DEAD) == 0
    match name:
        case "rate":
            assert RateLimited in kinds
            assert troubles(workers) == set()
        case "concurrency":
            # Where no other connection works, the last one stays, and the breaker opens.
            closed = {each.why for each in workers.events if isinstance(each, ConnectionClosed)}
            assert (PlacesSuspended in kinds and "concurrency" in closed) or troubles(workers) == {"concurrency"}
        case _:
            assert troubles(workers) == {name}


def _count(workers: WorkerMaker, disposition: Disposition) -> int:
    return sum(job.disposition is disposition for job in workers.jobs)


def troubles(workers: WorkerMaker) -> set[str]:
    """The kinds of trouble that opened the breaker."""
    changes = [event.breaker for event in workers.events if isinstance(event, BreakerChanged)]
    return {each.trouble.how for each in changes if isinstance(each, Open)}
