"""One synthetic snapshot of a busy worker, whose figures agree with each other, and what it looks like in trouble.

Four workers of sixteen consumers share the queue: 412 jobs arrive a second, 374 leave it, so 38 more wait every
second, and 12,431 waiting jobs are 30 seconds of arrivals. This worker claims 99.3 a second, and sixteen in hand for
161 ms each are just that (Little's law).
"""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime

from attrs import evolve

from trio_worker.queue.ages import AgeBars
from trio_worker.queue.record import Cause
from trio_worker.redis.server import ServerState
from trio_worker.smtp.events import ConnectionView
from trio_worker.smtp.failure_kind import FailureKind
from trio_worker.smtp.outcome import Trouble
from trio_worker.smtp.reply import Reply, Stage
from trio_worker.telemetry.feed import FeedOutcome
from trio_worker.telemetry.heartbeat import DeathCount, Heartbeat, Rates, Suspended, Vitals, WorkerSeen
from trio_worker.telemetry.ledger import Ledger
from trio_worker.telemetry.quantiles import Histogram, Quantiles
from trio_worker.telemetry.snapshot import Scope, Snapshot
from trio_worker.worker.breaker import Closed, Open
from trio_worker.worker.events import SettledJob
from trio_worker.worker.phase import Disposition, Phase
from trio_worker.worker.queue_seen import QueueSeen

NOW = datetime(2025, 3, 4, 12, 4, 31, tzinfo=UTC).timestamp()
UP_SECONDS = 4324.0
REFUSED_LOGIN = Trouble(
    FailureKind.LOGIN, Stage.AUTH, "", Reply(535, "Authentication credentials invalid", Stage.AUTH, "5.7.8")
)


def _spark() -> tuple[int, ...]:
    # A gentle, repeating swell; the last ten seconds sum up to ten times the rate.
    swell = (88, 91, 97, 104, 112, 118, 121, 116, 109, 102, 94, 90, 86, 84, 87)
    older = tuple(swell[second % 15] + second % 7 for second in range(290))
    return (*older, 92, 95, 99, 101, 97, 94, 98, 96, 95, 94)


def _connections() -> tuple[ConnectionView, ...]:
    states = [("FINAL", 0.11), ("FINAL", 0.09), ("idle", 0.2), ("RCPT", 0.04), ("DATA", 2.9), ("MAIL", 0.02)]
    return tuple(
        ConnectionView(
            connection_id=number,
            state=states[number % 6][0],
            state_seconds=states[number % 6][1] + number * 0.001,
            delivered=977 - number * 13,
            age_seconds=206.0 - number * 3,
            tls="TLSv1.3",
            last_reply="451 4.7.1" if number == 4 else "250 2.0.0",
        )
        for number in range(1, 17)
    )


def _outcome(seconds_ago: int, disposition: Disposition, email_type: str, name: str, cause: Cause) -> FeedOutcome:
    place = 60 - seconds_ago
    return FeedOutcome(
        NOW - seconds_ago * 0.1,
        SettledJob(
            job_id=f"01JNH5QZ4RC8{place:02}7KM2T0"[:20],
            disposition=disposition,
            email_type=email_type,
            attempt=2 if disposition is Disposition.DELAYED else 1,
            cause=cause,
            recipients=(name,) if name else ("a…@example.com", "b…@example.com", "c…@example.com"),
            delay_seconds=310.0 if disposition is Disposition.DELAYED else 0.0,
            waited_seconds=29.8 + place / 50,
            is_estimate=True,
            smtp_seconds=0.13 + place / 1000,
            total_seconds=0.14 + place / 1000,
            connection_id=place % 16 + 1,
        ),
    )


def _latest() -> tuple[FeedOutcome, ...]:
    accepted = Cause("accepted", "250 2.0.0", "final")
    names = ("j…y@example.com", "s…a@example.net", "m…i@example.com", "k…n@example.org", "t…@example.com")
    types = ("Registration", "WeeklyRecap", "WeeklyRecap", "EmailChange", "WeeklyRecap")
    lines = []
    for ago in range(60, 0, -1):
        if ago in (11, 41):
            cause = Cause("greylisted", "451 4.7.1", "rcpt", "Greylisted, come back later")
            lines.append(_outcome(ago, Disposition.DELAYED, "MonthlyRecap", "b…t@example.net", cause))
        elif ago == 2:
            cause = Cause("refused", "550 5.1.1", "rcpt", "<nobody.here@example.org> User unknown")
            lines.append(_outcome(ago, Disposition.DEAD, "ResetPassword", "n…e@example.org", cause))
        elif ago == 5:
            lines.append(_outcome(ago, Disposition.SENT, "Message", "", accepted))
        else:
            lines.append(_outcome(ago, Disposition.SENT, types[ago % 5], names[ago % 5], accepted))
    return tuple(lines)


def busy() -> Snapshot:
    """Return the snapshot of a worker whose consumers are all busy, and a queue that grows."""
    settled = Counter(
        {
            Disposition.SENT: 415_536,
            Disposition.DELAYED: 13_404,
            Disposition.DEAD: 7,
            Disposition.RELEASED: 3,
            Disposition.FENCED: 1,
        }
    )
    ledger = Ledger(
        claimed=428_967,
        settled=settled,
        uncertain=2,
        recovered=1,
        opened=431,
        opening_seconds=25.9,
        deaths=Counter({"550 5.1.1": 5, "malformed": 2}),
    )
    return Snapshot(
        at=NOW,
        phase=Phase.RUNNING,
        phase_why="",
        up_seconds=UP_SECONDS,
        queue_name="jobs",
        redis_name="cache-1:6379/0",
        relay_name="smtp.example.com:587",
        queue=QueueSeen(
            12_431,
            961,
            64,
            0,
            7,
            due=12,
            oldest_seconds=30.2,
            is_estimate=True,
            ages=AgeBars(12_431, 200, (412, 3_708, 8_240, 71, 0), 0, is_estimate=True),
            server=ServerState("master", 41_000_000, 512_000_000, "noeviction", 9, has_aof=True, unsaved_changes=0),
        ),
        queue_seen_seconds=0.4,
        ledger=ledger,
        in_hand=16,
        at_work=14,
        mails_in_flight=14,
        number_workers=16,
        rates=Rates(claimed=99.3, sent=96.1, delayed=3.2, dead=0.0),
        waiting_slope=38.0,
        spark_sent=_spark(),
        wait=Quantiles(29_790, 16.2, 29.1, 30.0, 30.4),
        smtp=Quantiles(29_783, 0.140, 0.290, 0.410, 2.94),
        total=Quantiles(28_830, 0.161, 0.312, 0.434, 2.97),
        latency=Quantiles(28_830, 16.4, 29.4, 30.3, 33.1),
        idle_share=0.02,
        connections=_connections(),
        max_connections=16,
        breaker_seconds=0.0,
        breaker=Closed(),
        causes=(
            DeathCount("451 4.7.1", "greylisted", Disposition.DELAYED, 2_548, NOW - 1.1),
            DeathCount("421 4.7.0", "refused", Disposition.DELAYED, 204, NOW - 4),
            DeathCount("timeout", "lost", Disposition.DELAYED, 38, NOW - 31),
            DeathCount("550 5.1.1", "refused", Disposition.DEAD, 2, NOW - 0.2),
            DeathCount("", "malformed", Disposition.DEAD, 1, NOW - 725),
        ),
        latest=_latest(),
        redis_down_seconds=None,
        redis_trouble="",
        journal_trouble="",
        grace_seconds_left=None,
        vitals=Vitals(0.61, 71_000_000, 0.0012, 0.0004),
        busy_consumers=14,
        at_work_limit=16,
    )


def fresh() -> Snapshot:
    """Return the snapshot of a worker that has just started and has seen nothing yet."""
    return evolve(
        idle(),
        phase=Phase.STARTING,
        up_seconds=0.3,
        queue=None,
        queue_seen_seconds=None,
        waiting_slope=None,
        connections=(),
    )


def idle() -> Snapshot:
    """Return the snapshot of a worker with nothing to do since it started."""
    return evolve(
        busy(),
        queue=QueueSeen(0, 0, 0, 0, 0),
        ledger=Ledger(opened=2),
        in_hand=0,
        at_work=0,
        mails_in_flight=0,
        busy_consumers=0,
        up_seconds=61.0,
        rates=Rates(),
        waiting_slope=0.0,
        spark_sent=(0,) * 300,
        wait=Quantiles(),
        smtp=Quantiles(),
        total=Quantiles(),
        latency=Quantiles(),
        idle_share=1.0,
        connections=tuple(ConnectionView(n, "idle", 60.0 - n, 0, 61.0 - n, "TLSv1.3", "220") for n in (1, 2)),
        causes=(),
        latest=(),
    )


def draining() -> Snapshot:
    """Return the snapshot of a worker that got SIGTERM twelve seconds ago."""
    full = busy()
    ledger = evolve(full.ledger, claimed=full.ledger.claimed - 12)
    return evolve(
        full,
        phase=Phase.DRAINING,
        phase_why="SIGTERM",
        ledger=ledger,
        in_hand=4,
        at_work=4,
        mails_in_flight=4,
        busy_consumers=4,
        grace_seconds_left=18.2,
        connections=full.connections[:4],
    )


def without_relay() -> Snapshot:
    """Return the snapshot of a worker whose login the relay refuses."""
    full = busy()
    return evolve(
        full,
        spark_sent=(*full.spark_sent[12:], *(0,) * 12),
        breaker=Open(REFUSED_LOGIN, since=100.0, probe_at=342.0, failures=3),
        breaker_seconds=42.0,
        rates=Rates(),
        in_hand=0,
        at_work=0,
        mails_in_flight=0,
        busy_consumers=0,
        ledger=evolve(full.ledger, claimed=full.ledger.claimed - 16),
        connections=(),
    )


def suspended() -> Snapshot:
    """Return the snapshot of a worker whose login is refused since two of its connections were opened."""
    full = busy()
    return evolve(
        full,
        waiting_slope=400.0,
        rates=Rates(claimed=13.8, sent=13.8),
        spark_sent=(*full.spark_sent[12:], *(14,) * 12),
        in_hand=16,
        at_work=16,
        mails_in_flight=16,
        busy_consumers=16,
        idle_share=0.0,
        connections=(full.connections[0], full.connections[4]),
        suspended=Suspended(
            14, "refuses the login with 535 5.7.8 (Authentication credentials invalid)", NOW + 23, "login"
        ),
    )


def without_redis() -> Snapshot:
    """Return the snapshot of a worker whose Redis has not answered for twelve seconds."""
    return evolve(
        busy(),
        queue_seen_seconds=13.1,
        waiting_slope=None,
        redis_down_seconds=12.3,
        redis_trouble="TimeoutError: no reply within 5 s",
    )


def fleet() -> Snapshot:
    """Return the snapshot of all four workers that share the queue; one is lost, one of another version."""
    full = busy()
    beats = [
        Heartbeat(
            worker=name,
            version=version,
            started_at=NOW - UP_SECONDS,
            phase=Phase.RUNNING,
            number_workers=16,
            busy_consumers=14,
            max_connections=16,
            in_hand=16,
            at_work=14,
            mails_in_flight=14,
            connections=16,
            busy_connections=15,
            rates=Rates(claimed=99.3, sent=rate, delayed=3.2),
            idle_share=0.02,
            latency=Histogram({124: 1000}, 30.2),
            vitals=Vitals(0.61, 71_000_000, 0.0012, 0.0004),
        )
        for name, version, rate in (
            ("host-a:4211", "1.2.3", 94.1),
            ("host-b:3987", "1.2.3", 93.7),
            ("host-c:12", "1.2.3", 93.5),
            ("host-d:12", "1.2.2", 92.7),
        )
    ]
    workers = tuple(WorkerSeen(beat, 17.0 if beat.worker == "host-c:12" else 1.0) for beat in beats)
    latest = tuple(evolve(line, worker=beats[place % 4].worker) for place, line in enumerate(full.latest))
    return evolve(
        full,
        scope=Scope.FLEET,
        relay_name="",
        connections=(),
        in_hand=48,
        at_work=42,
        mails_in_flight=42,
        busy_consumers=42,
        at_work_limit=48,
        number_workers=48,
        max_connections=48,
        rates=Rates(claimed=412.0, sent=374.0, delayed=3.2, dead=0.0),
        workers=workers,
        latest=latest,
    )
