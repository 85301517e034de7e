"""Commands and dashboard show the same consumers, mails in flight and suspended connections, for any version."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.commands import Ask, push
from tests.support.jobs import job_bytes
from trio_worker.queue.broker import Broker
from trio_worker.queue.keys import keys_of
from trio_worker.queue.options import QueueOptions
from trio_worker.telemetry.heartbeat import DepthLimit, Heartbeat, Suspended, Vitals, write_heartbeat
from trio_worker.telemetry.quantiles import Window
from trio_worker.worker.phase import Phase

WHY = "refuses the login with 535 5.7.8 (Wrong user or password)"


def held_for(seconds: float) -> Window:
    window = Window()
    window.note(0, [seconds] * 100)
    return window


def tell(ask: Ask, beat: Heartbeat) -> None:
    ask(
        lambda client: client.run_script("beat", keys_of("jobs"), beat.worker, write_heartbeat(beat), 60_000, 0),
    )


@pytest.fixture
def two_workers(ask: Ask) -> None:
    """One that lacks eight of ten connections, and one of the version before, which had no consumers."""
    now = time.time()
    new = Heartbeat(
        "new:1", "0.2.0", now, Phase.RUNNING, number_workers=10, max_connections=10, depth=16, at_work=31,
        mails_in_flight=31,
        connections=2, busy_connections=2, busy_consumers=10, idle_share=0.0, smtp=held_for(0.5).histogram(0),
        vitals=Vitals(0.1), suspended=Suspended(8, WHY, now + 60, "login"),
    )  # fmt: skip
    old = Heartbeat("old:2", "0.1.0", now, Phase.RUNNING, number_workers=640, max_connections=10, at_work=3)
    push(ask, *(job_bytes(number) for number in range(84)))
    ask(lambda client: Broker(client, QueueOptions()).claim(34, is_idle=True))
    tell(ask, new)
    tell(ask, old)


def said(run: Callable[..., int], capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    assert run(*words) == code
    return capsys.readouterr().out


def document(run: Callable[..., int], capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    return json.loads(said(run, capsys, *words, "--json"))


@pytest.mark.usefixtures("two_workers")
def test_status_names_what_is_suspended(run: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    """A queue whose relay lets fewer in is not healthy, though mail goes out."""
    screen = said(run, capsys, "status", "--exit-code", code=1)

    assert "DEGRADED" in screen
    assert "consumers busy 10/10, 31 mails in flight" in screen
    assert "  suspended: 8 of 20 connections for " in screen
    assert f" more: {WHY}\n" in screen
    assert document(run, capsys, "status")["suspended"]["how"] == "login"


@pytest.mark.usefixtures("two_workers")
def test_list_of_workers_names_what_is_suspended(run: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    """Under the worker that lacks connections; a version that had no consumers has none that are busy."""
    heads, new, below, old = said(run, capsys, "worker", "list").splitlines()

    assert heads.split()[:5] == ["worker", "state", "consumers", "in", "flight"]
    assert new.split()[:4] == ["new:1", "running", "10/10", "31"]
    assert below.startswith("  suspended: 8 of 10 connections for ")
    assert below.endswith(f" more: {WHY}")
    assert old.split()[:4] == ["old:2", "running", "-", "-"]
    listed = document(run, capsys, "worker", "list")["workers"]
    assert [(each["busy_consumers"], each["number_workers"]) for each in listed] == [(10, 10), (None, 640)]
    assert [each["suspended"] and each["suspended"]["why"] for each in listed] == [WHY, None]


@pytest.mark.usefixtures("two_workers")
def test_rates_and_frames_have_the_same_figures(run: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    """A line of stats, one frame of all workers, and the document of both."""
    heads, line = said(run, capsys, "stats", "--count", "1", "--interval", "1").splitlines()
    frame = said(run, capsys, "top", "--once")
    snapshot = document(run, capsys, "top", "--once")

    assert heads.split()[-4:] == ["consumers", "in", "flight", "idle"]
    assert line.split()[-3:] == ["10/10", "31", "0%"]
    assert "! SUSPENDED  8 of 20 connections for " in frame
    assert "consumers busy 10/10" in frame
    assert (snapshot["busy_consumers"], snapshot["number_workers"], snapshot["at_work"]) == (10, 10, 34)
    assert snapshot["at_work_limit"] == 10 * 16 + 640
    assert snapshot["suspended"]["count"] == 8
    assert {"word": "SUSPENDED", "severity": "trouble"} in snapshot["alerts"]


@pytest.mark.usefixtures("two_workers")
def test_why_reckons_with_the_connections_that_are_left(
    run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    """What the relay refuses is the limit, though another worker has connections to spare."""
    printed = said(run, capsys, "why")

    assert printed.startswith("Limited by: The number of connections that the relay accepts.\n")
    assert f": {WHY}." in printed
    assert "Write the right password to smtp.password_file" in printed
    assert document(run, capsys, "why")["limit"] == "connections"


def test_one_mail_at_a_time_is_shown_and_is_no_problem(
    ask: Ask, run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    """Mail goes, only not as deep as the settings say: status and list say why, and the queue is healthy."""
    now, why = time.time(), "ahead at mail: 503 5.5.1 Bad sequence of commands"
    vitals, limit = Vitals(0.1), DepthLimit(why, now + 3000)
    beat = Heartbeat("new:1", "0.2.0", now, Phase.RUNNING, 10, 10, vitals=vitals, busy_consumers=1, depth_limit=limit)
    tell(ask, beat)
    screen, listed = said(run, capsys, "status", "--exit-code"), said(run, capsys, "worker", "list")

    assert "HEALTHY" in screen
    for printed in (screen, listed):
        (line,) = [line for line in printed.splitlines() if line.startswith("  depth: ")]
        assert line.startswith("  depth: one mail at a time on each connection for 49m")
        assert line.endswith(why)
    assert document(run, capsys, "status")["depth_limit"]["why"] == why
    assert "! DEPTH  one mail at a time" in said(run, capsys, "top", "--once")
