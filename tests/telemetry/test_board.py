"""The board: events become the figures of a snapshot, each counted once, at any time of reading."""

from __future__ import annotations

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from tests.support.snapshot import (
    fleet,
)
from trio_worker.queue.claim import Source
from trio_worker.queue.record import Cause
from trio_worker.telemetry.board import Board
from trio_worker.telemetry.feed import FeedOutcome
from trio_worker.telemetry.heartbeat import DeathCount, WorkerSeen
from trio_worker.worker.events import Claimed, PhaseChanged, Settled, SettledJob
from trio_worker.worker.phase import Disposition, Phase
from trio_worker.worker.state import WorkerState

STATE = WorkerState(number_workers=4, max_connections=4, depth=1)
seconds_between = st.floats(0, 400)


@given(st.lists(st.tuples(seconds_between, st.sampled_from(["451", "550"])), max_size=30), seconds_between)
def test_failures_are_those_of_the_last_fifteen_minutes(gaps: list[tuple[float, str]], later: float) -> None:
    """By the minute, as in heartbeats: no older one is shown, no younger one is left out."""
    board = Board("jobs", "redis", "relay:25", started_at=0.0)
    now, ends = 0.0, []
    for gap, code in gaps:
        now += gap
        ends.append(now)
        board.note(Settled((SettledJob("id", Disposition.DELAYED, cause=Cause("refused", code)),)), now, now)
    now += later

    counted = sum(cause.count for cause in board.snapshot(now, now, STATE).causes)
    assert sum(now - end < 14 * 60 for end in ends) <= counted <= sum(now - end <= 15 * 60 for end in ends)


@given(st.lists(st.tuples(st.floats(0, 3), st.sampled_from(["sent", "dead", "look"])), max_size=60), st.floats(0, 3))
def test_settlements_show_in_their_second_whenever_anybody_looks(gaps: list[tuple[float, str]], later: float) -> None:
    """The chart, the rates, the times and the latest outcomes count each once, with snapshots in between or without."""
    board = Board("jobs", "redis", "relay:25", started_at=0.0)
    now, sent, ends = 0.0, [], []
    for number, (gap, what) in enumerate(gaps):
        now += gap
        if what == "look":
            board.snapshot(now, now, STATE)
            continue
        settled = SettledJob(
            f"{number}",
            Disposition(what),
            waited_seconds=1.0,
            smtp_seconds=0.5,
            total_seconds=2.0,
            latency_seconds=3.0,
        )
        board.note(Settled((settled,)), now, now)
        ends.append(FeedOutcome(now, settled))
        if what == "sent":
            sent.append(now)
    now += later
    snapshot = board.snapshot(now, now, STATE)

    assert list(snapshot.spark_sent) == [
        sum(int(end) == int(now) - ago for end in sent) for ago in range(len(snapshot.spark_sent), 0, -1)
    ]
    assert round(snapshot.rates.sent * min(10.0, max(1.0, now))) == sum(snapshot.spark_sent[-10:])
    assert (snapshot.wait.count, snapshot.smtp.count) == (len(ends), len(ends))
    assert (snapshot.total.count, snapshot.latency.count) == (len(sent), len(sent))
    assert snapshot.latest == tuple(ends[-60:])


def test_failures_are_those_of_all_workers() -> None:
    """The causes of other workers are added to those of this worker; its own heartbeat is not counted twice."""
    board = Board("jobs", "redis", "relay:25", started_at=0.0, worker_name="here:1")
    board.note(Settled((SettledJob("id", Disposition.DELAYED, cause=Cause("refused", "451")),)), 1.0, 1001.0)
    told = (DeathCount("451", "refused", Disposition.DELAYED, 5, 1003.0),)
    workers = [
        WorkerSeen(evolve(beat, causes=told, worker=name), seen_seconds)
        for name, seen_seconds in (("here:1", 1.0), ("there:2", 1.0), ("gone:3", 100.0))
        for beat in [fleet().workers[0].beat]
    ]

    (cause,) = board.snapshot(2.0, 1004.0, STATE, workers).causes
    assert (cause.count, cause.last_at) == (6, 1003.0)


def test_the_figures_beside_a_poll_are_of_its_moment() -> None:
    """A screen that is drawn later shows as many jobs in hand as were leased; without a young poll it shows now."""
    board = Board("jobs", "redis", "relay:25", started_at=0.0)
    board.note(PhaseChanged(Phase.RUNNING), 0.0, 0.0)
    board.note(Claimed((("a", Source.FRESH, 1), ("b", Source.FRESH, 1))), 1.0, 1.0)
    board.keep_moment(1.0, evolve(STATE, at_work=2, busy_consumers=2))
    board.note(Settled((SettledJob("a", Disposition.SENT), SettledJob("b", Disposition.SENT))), 1.5, 1.5)

    beside = board.snapshot(1.9, 1.9, STATE)
    assert (beside.in_hand, beside.at_work, beside.busy_consumers) == (2, 2, 2)
    assert beside.ledger.in_hand == beside.in_hand
    later = board.snapshot(9.0, 9.0, STATE)
    assert (later.in_hand, later.at_work, later.ledger.settled[Disposition.SENT]) == (0, 0, 2)
