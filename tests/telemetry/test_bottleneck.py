"""Why it is not faster: each limit by figures that lead to it, and the arithmetic of the advice."""

from __future__ import annotations

import re
from typing import Any

import pytest
from attrs import evolve

from trio_worker.fleet.summary import Fleet, QueueTotals
from trio_worker.telemetry.bottleneck import find_bottleneck
from trio_worker.telemetry.heartbeat import Heartbeat, Rates, Suspended, Vitals, WorkerSeen
from trio_worker.telemetry.quantiles import Window
from trio_worker.telemetry.snapshot import Snapshot
from trio_worker.worker.phase import Phase
from trio_worker.worker.queue_seen import QueueSeen


def smtp_times(seconds: float) -> Window:
    window = Window()
    window.note(0, [seconds] * 100)
    return window


def beat(**changes: Any) -> Heartbeat:
    made = Heartbeat(
        "a:1",
        "1.2.3",
        900.0,
        Phase.RUNNING,
        number_workers=20,
        busy_consumers=19,
        busy_connections=9,
        max_connections=15,
        smtp=smtp_times(0.161).histogram(0),
        idle_share=0.1,
        vitals=Vitals(cpu_share=0.3, redis_seconds=0.001),
    )
    return evolve(made, **changes)


def seen(
    *beats: Heartbeat, waiting: int = 12_431, paused: str = "", sent: float = 0.0, slope: float = 38.0
) -> Snapshot:
    fleet = Fleet("jobs", "cache")
    queue = QueueSeen(waiting, 0, 0, 0, 0, oldest_seconds=30.0, paused=paused)
    workers = [WorkerSeen(each, 1.0) for each in beats]
    fleet.note_poll(QueueTotals(1000.0, 0, 0, 0, 0, waiting), queue, workers, 10.0, 0.001)
    found = fleet.snapshot(10.0, 1000.0)
    return evolve(found, rates=Rates(claimed=sent, sent=sent), waiting_slope=slope)


def test_full_connections_are_named_with_how_many_it_takes() -> None:
    """Four workers with 60 slots and mails of 161 ms can send 372 a second (Little): 398 arrive, so it takes more."""
    found = find_bottleneck(seen(*[beat()] * 4, sent=360.0))

    assert found.limit == "connections"
    assert "at most 37" in found.reasons[0]
    assert "Incoming: 398/s" in found.reasons[0]
    # 398 a second for 0.161 s each, with room for bursts.
    assert "To keep up: 7" in found.reasons[1]
    assert "smtp.pool.max_size" in found.advice[0]
    assert any(words.startswith("processor 30%") for words in found.not_the_limit)


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("waiting", [0, 100, 2_000, 20_000, 2_000_000])
@pytest.mark.parametrize("slope", [-50.0, 0.0, 40.0, 4000.0])
def test_more_slots_are_advised_only_where_more_are_wanted(workers: int, waiting: int, slope: float) -> None:
    """A backlog that goes in ten minutes by itself needs no setting changed."""
    found = find_bottleneck(seen(*[beat()] * workers, waiting=waiting, sent=90.0 * workers, slope=slope))
    if found.limit != "connections":
        assert not waiting
        return
    wanted = re.match(r"Raise .* has ([0-9,]+) slots", found.advice[0])
    if wanted is None:
        assert "No setting needs to be raised" in found.advice[0]
        assert max(0.0, 90.0 * workers + slope) + waiting / 600 <= 15 * workers / 0.15
    else:
        assert int(wanted[1].replace(",", "")) > 15


def test_retries_take_slots_as_well() -> None:
    """A relay that puts everything off is kept busy by what comes back."""
    snapshot = evolve(seen(beat(), slope=0.0), rates=Rates(claimed=92.0, delayed=92.0))
    found = find_bottleneck(snapshot)

    assert found.limit == "connections"
    assert "Incoming: 92/s" in found.reasons[0]
    assert "To keep up: 18 slots" in found.reasons[1]


def test_fewer_consumers_than_connections_are_named() -> None:
    """Each uses one connection: five can send 31 mails of 161 ms a second (Little), however many connections stand."""
    found = find_bottleneck(seen(beat(idle_share=0.02, number_workers=5, busy_consumers=5), sent=30.0))

    assert found.limit == "consumers"
    assert found.reasons == ("5 consumers of 1 worker are 98% busy; each sends over one connection, and there are 15.",)
    assert found.advice == ("Raise number_workers (now 5 in each) to 15.",)
    assert "connections 97%" in found.not_the_limit


def test_busy_consumers_with_free_connections_are_named() -> None:
    """Where consumers wait for something else than the relay, more of them than connections help."""
    found = find_bottleneck(seen(beat(idle_share=0.02, number_workers=15), sent=30.0))

    assert found.limit == "consumers"
    assert "98% busy, and connections are not" in found.reasons[0]
    assert found.advice == ("Raise number_workers (now 15 in each) to 23.",)


def test_consumers_that_have_room_on_every_connection_are_no_limit() -> None:
    """With many mails on a connection all consumers may have one, and each could have more."""
    deep = beat(idle_share=0.0, number_workers=15, depth=64, busy_connections=15)

    assert find_bottleneck(seen(deep, sent=90.0)).limit == "nothing"


def test_slots_are_what_consumers_can_use_of_the_connections_that_are_left() -> None:
    """Two of fifteen connections at a depth of four are eight slots: 50 mails of 161 ms a second, and no more."""
    told = Suspended(13, "refuses the login with 535 5.7.8 (no)", 1023.0, "login")
    found = find_bottleneck(seen(beat(depth=4, suspended=told, busy_connections=2), sent=48.0))

    assert found.limit == "connections"
    assert found.headline == "The number of connections that the relay accepts."
    assert found.reasons[0] == "13 of 15 connections for 23s more: refuses the login with 535 5.7.8 (no)."
    assert found.reasons[1] == "2 are left, with 8 slots; a mail holds one for 161ms, so they can send at most 50/s."
    assert found.advice[0].startswith("Write the right password to smtp.password_file")


@pytest.mark.parametrize(
    ("how", "advice"),
    [
        ("greeting", "ask its operator for more, or raise smtp.pool.pipeline_depth (now 1)"),
        ("closing", "The relay may limit connections"),
        ("local", "open files"),
        ("resolve", "trio-worker smtp check"),
        ("", "trio-worker smtp check"),
    ],
)
def test_suspended_connections_are_the_limit_while_the_others_are_busy(how: str, advice: str) -> None:
    """What to do depends on the trouble; while the others have room, it is none."""
    told = Suspended(13, "refuses the connection with 421 4.7.0 (too many)", 1023.0, how)
    busy = find_bottleneck(seen(beat(suspended=told, busy_connections=2), sent=11.0))
    free = find_bottleneck(seen(beat(suspended=told, busy_connections=1, idle_share=0.9), sent=3.0))

    assert busy.limit == "connections"
    assert advice in busy.advice[0]
    assert free.limit == "nothing"


def test_more_connections_want_consumers_that_use_them() -> None:
    """Advice to open more names both settings where consumers are too few for it, and one where they are not."""
    as_many = find_bottleneck(seen(beat(number_workers=15), sent=92.0))
    more = find_bottleneck(seen(beat(number_workers=200), sent=92.0))
    deep = find_bottleneck(seen(beat(number_workers=15, depth=8, smtp=smtp_times(1.5).histogram(0)), sent=79.0))

    assert as_many.advice[0].startswith("Raise smtp.pool.max_size and number_workers until each worker has")
    assert more.advice[0].startswith("Raise smtp.pool.max_size until each worker has")
    assert deep.advice[0].startswith("Raise smtp.pool.max_size and number_workers, or smtp.pool.pipeline_depth, until")
    assert "now 120 in each of 1 worker" in deep.advice[1]


def test_a_version_without_consumers_has_slots_of_its_connections() -> None:
    """Its number_workers was of jobs, so it is no bound to connections."""
    old = beat(busy_consumers=None, number_workers=10, idle_share=0.3)

    assert find_bottleneck(seen(old, sent=92.0)).limit == "connections"


@pytest.mark.parametrize(
    ("changes", "limit"),
    [
        ({"vitals": Vitals(cpu_share=0.97, redis_seconds=0.001)}, "processor"),
        ({"vitals": Vitals(cpu_share=0.1, redis_seconds=0.2), "idle_share": 0.5}, "redis"),
        ({"idle_share": 0.5}, "nothing"),
        ({"is_quiet": True}, "quiet"),
        ({"trouble": "refuses the login with 535 5.7.8"}, "relay"),
    ],
)
def test_each_limit_has_its_name(changes: dict[str, object], limit: str) -> None:
    """The figures that lead to a limit name it, and say what to do unless there is nothing to do."""
    found = find_bottleneck(seen(beat(**changes), sent=10.0))

    assert found.limit == limit
    assert bool(found.advice) is (limit != "nothing")


def test_workers_that_do_not_send_have_no_limit() -> None:
    """Some are quiet and the others have no relay: no figure of theirs is one of sending."""
    quiet, troubled = beat(is_quiet=True, idle_share=0.0), beat(trouble="cannot be reached", idle_share=0.0)

    assert find_bottleneck(seen(quiet, troubled)).limit == "nothing"


def test_paused_queue_says_by_whom_and_until_when() -> None:
    """A pause is the limit before all others."""
    paused = seen(beat(), paused="relay maintenance (ana)")
    assert paused.queue is not None
    ends = evolve(paused, at=1000.0, queue_seen_seconds=2.0, queue=evolve(paused.queue, pause_seconds_left=602.0))

    assert find_bottleneck(paused).limit == "paused"
    assert find_bottleneck(paused).headline.endswith("relay maintenance (ana), until it is resumed")
    assert "relay maintenance (ana), until 1970-01-01T00:26:40Z" in find_bottleneck(ends).headline


def test_queue_without_workers_says_so() -> None:
    """Nobody runs: that is the limit."""
    assert find_bottleneck(seen()).limit == "workers"


def test_empty_queue_has_no_limit() -> None:
    """Nothing waits: nothing limits."""
    found = find_bottleneck(seen(beat(), waiting=0, slope=0.0))

    assert found.limit == "nothing"
    assert "no job waits" in found.headline


@pytest.mark.parametrize(("lag", "limit"), [(0.001, "redis"), (0.04, "processor")])
def test_a_busy_host_is_not_called_a_distant_redis(lag: float, limit: str) -> None:
    """A reply that lies there until the loop wakes has not taken long on its way."""
    late = beat(vitals=Vitals(cpu_share=0.5, redis_seconds=0.08, lag_seconds=lag), busy_consumers=2, idle_share=0.9)

    assert find_bottleneck(seen(late, sent=1.0)).limit == limit
