"""What ``status`` calls wrong, and what it calls the whole: a pause and a missing worker by their names."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import evolve, fields

from tests.support.snapshot import fleet
from trio_worker.cli.status import Health, find_problems, health_of, print_status, troubles_of
from trio_worker.queue.counts import Counts
from trio_worker.queue.history import MinuteSample
from trio_worker.telemetry.heartbeat import DeathCount, Rates, Suspended
from trio_worker.telemetry.snapshot import Snapshot
from trio_worker.worker.phase import Disposition
from trio_worker.worker.queue_seen import QueueSeen

AT = 1_741_089_871.0  # 2025-03-04T12:04:31Z
MINUTE_FIELDS = [each.name for each in fields(MinuteSample)]
NOTHING: dict[str, Any] = {each.name: 0 for each in fields(Counts)}


def counts(**changes: Any) -> Counts:
    """An empty queue, but for what is said."""
    return Counts(**{**NOTHING, "at": AT, "paused": "", "next_due_at": None, "pause_seconds_left": None, **changes})


@pytest.mark.parametrize(
    ("left", "until"),
    [(1800.0, "until 2025-03-04T12:34:31Z (30m00s more)"), (None, "until it is resumed")],
)
def test_a_paused_queue_is_called_paused_and_no_worker_is_missed(left: float | None, until: str) -> None:
    """Why, by whom, until when; jobs that are due or whose leases ran out wait for its end, not for a worker."""
    paused = counts(
        paused="relay maintenance (ana)", pause_seconds_left=left, due=3, delayed=3, leased=1, run_out=1,
        bodies=4, leases=4, next_due_at=AT - 60,
    )  # fmt: skip

    problems = find_problems(paused, live=2, able=2)

    assert problems[0] == f"paused: relay maintenance (ana), {until}"
    assert problems[1:] == ["1 lease expired: taken over when the queue is resumed"]


@pytest.mark.parametrize("paused", ["", "relay maintenance (ana)"])
def test_a_queue_that_is_down_for_want_of_a_worker_says_so(paused: str) -> None:
    """DOWN is never said without a reason, and the reason names what to do."""
    waiting, nobody = counts(waiting=1, paused=paused), evolve(fleet(), workers=())

    problems = find_problems(waiting, live=0, able=0)

    assert problems[-1] == "no worker is heard, and 1 job could be sent: start one, or read its log"
    assert health_of(waiting, nobody, problems) is Health.DOWN


def test_what_no_worker_that_is_alive_takes_is_told() -> None:
    """Leases that ran out and a job that is long due, where nothing is paused."""
    late = counts(due=1, delayed=1, leased=2, run_out=2, bodies=3, leases=3, next_due_at=AT - 75)

    assert find_problems(late, live=1, able=1) == [
        "2 leases expired and no worker took over: see trio-worker worker list",
        "a delayed job is due for 1m15s and no worker claimed it: see trio-worker worker list",
    ]


def test_a_calm_queue_has_no_problem() -> None:
    """Nothing is said, with or without a worker: there is nothing to do."""
    assert find_problems(counts(), live=0, able=0) == []


def test_what_no_worker_may_take_is_not_missed() -> None:
    """While all of them are quiet, or have no relay, that is the problem, and what is late follows from it."""
    late = counts(due=1, delayed=1, leased=2, run_out=2, bodies=3, leases=3, next_due_at=AT - 75)

    assert find_problems(late, live=2, able=0) == []


def test_delayed_jobs_without_a_worker_are_told() -> None:
    """They are not late yet, but no worker runs that could send them."""
    delayed, nobody = counts(delayed=2, bodies=2, leases=2, next_due_at=AT + 60), evolve(fleet(), workers=())

    problems = find_problems(delayed, live=0, able=0)

    assert problems == ["no worker is heard, and 2 jobs will become due: see trio-worker run"]
    assert health_of(delayed, nobody, problems) is Health.DEGRADED


def sample(minutes_ago: int, **changes: int) -> MinuteSample:
    """The totals of a minute; zeros, but for what is said."""
    return MinuteSample(**{**dict.fromkeys(MINUTE_FIELDS, 0), "minute": int(AT // 60) - minutes_ago, **changes})


def calm_fleet(**changes: Any) -> Snapshot:
    """Workers that are well, of one version, with what is said of their queue."""
    workers = [evolve(each, beat=evolve(each.beat, version="1.2.3"), seen_seconds=1.0) for each in fleet().workers]
    return evolve(fleet(), workers=tuple(workers), causes=(), **changes)


def queue_of(counted: Counts, oldest_seconds: float | None) -> QueueSeen:
    states = (counted.waiting, counted.delayed, counted.leased, counted.held, counted.dead)
    return QueueSeen(*states, due=counted.due, oldest_seconds=oldest_seconds)


@pytest.mark.parametrize(
    ("slope", "words"),
    [
        (0.0, "none is sent, 4m10s behind"),
        (2.0, "growing +2.0/s, none is sent, 4m10s behind"),
        (None, "none is sent, 4m10s behind"),
    ],
)
def test_a_queue_from_which_nothing_is_sent_is_not_healthy(slope: float | None, words: str) -> None:
    """Also where no alert says why: workers are alive, their relay is not known to be down, and mails are late."""
    late = counts(waiting=40, bodies=0)
    snapshot = calm_fleet(queue=queue_of(late, 250.0), rates=Rates(claimed=1.0), waiting_slope=slope)

    problems = troubles_of(late, snapshot)

    assert problems == [f"{words}: see trio-worker why"]
    assert health_of(late, snapshot, problems) is Health.DEGRADED


def test_a_queue_that_grows_while_mails_are_sent_says_so_and_is_healthy(capsys: pytest.CaptureFixture[str]) -> None:
    """A burst of pushes is no trouble; the screen and the document tell where it goes."""
    burst = counts(waiting=12_431)
    snapshot = calm_fleet(queue=queue_of(burst, 30.2))
    problems = troubles_of(burst, snapshot)

    assert health_of(burst, snapshot, problems) is Health.HEALTHY
    print_status("jobs @ cache", burst, snapshot, problems, Health.HEALTHY)
    assert "  outlook: growing +38/s, 30s behind\n" in capsys.readouterr().out


@pytest.mark.parametrize(("sent", "is_told"), [(200, False), (20, True)])
@pytest.mark.parametrize("word", ["deferred", "early"])
def test_a_relay_that_delays_more_than_it_takes_is_a_problem(sent: int, word: str, *, is_told: bool) -> None:
    """Nothing waits then, and no breaker is open; what was pushed ahead of its time is no delay."""
    idle = counts(sent=1000 + sent, delayed=120, bodies=120, leases=120)
    cause = DeathCount("451 4.7.1", word, Disposition.DELAYED, 120, AT - 1)
    snapshot = evolve(calm_fleet(queue=queue_of(idle, None), waiting_slope=0.0), causes=(cause,))
    minutes = [sample(17, sent=1000), sample(3, sent=1000 + sent // 2)]

    problems = troubles_of(idle, snapshot, minutes)

    told = [f"120 delays, {sent} sent in the last 15 minutes: see trio-worker delayed groups"]
    assert problems == (told if is_told and word == "deferred" else [])


@pytest.mark.parametrize("how", ["login", "greeting"])
def test_suspended_connections_are_a_problem(how: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Mail goes on over the other connections, but an operator should know; the screen names consumers and mails."""
    told = Suspended(8, "refuses the login with 535 5.7.8 (no)", AT + 23, how)
    snapshot = calm_fleet(suspended=told)
    problems = troubles_of(counts(), snapshot)

    assert problems == ["suspended: 8 of 48 connections for 23s more: refuses the login with 535 5.7.8 (no)"]
    assert health_of(counts(), snapshot, problems) is Health.DEGRADED
    print_status("jobs @ cache", counts(), snapshot, problems, Health.DEGRADED)
    printed = capsys.readouterr().out
    assert "  now: 374 sent a second; consumers busy 42/48, 42 mails in flight; push to sent" in printed
    assert printed.endswith(f"Problems\n  {problems[0]}\n")
