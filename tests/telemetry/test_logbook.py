"""The log: one line for each outcome, never an address, and never a wait for the disk."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.processors import LogfmtRenderer

from tests.support.hostile import HOSTILE, assert_tame, spoiled
from trio_worker.queue.claim import Source
from trio_worker.queue.losses import LossSign
from trio_worker.queue.record import Cause
from trio_worker.smtp.capabilities import Capabilities
from trio_worker.smtp.events import ConnectionClosed, ConnectionFailed, ConnectionOpened
from trio_worker.smtp.failure_kind import FailureKind
from trio_worker.smtp.outcome import Trouble
from trio_worker.smtp.reply import Reply, Stage
from trio_worker.telemetry.log_line import (
    as_json_line,
    as_logfmt,
    line_of,
    settled_as_json_lines,
    settled_as_logfmt,
    settled_line,
)
from trio_worker.telemetry.logbook import open_logbook
from trio_worker.telemetry.options import LogOptions
from trio_worker.worker.breaker import Closed, HalfOpen, Open
from trio_worker.worker.events import (
    BreakerChanged,
    Claimed,
    DataLost,
    Event,
    JobBroke,
    LeaseLost,
    LeasesRecovered,
    LoopComplained,
    PhaseChanged,
    QueuePaused,
    RedisFailed,
    RedisRecovered,
    Settled,
    SettledJob,
    WaitTroubled,
)
from trio_worker.worker.phase import Disposition, Phase
from trio_worker.worker.queue_seen import QueueSeen

SENT_JOB = SettledJob(
    "01abc",
    Disposition.SENT,
    email_type="Registration",
    attempt=2,
    cause=Cause("accepted", "250 2.0.0", "final"),
    recipients=("a…n@example.org",),
    waited_seconds=0.25,
    is_estimate=True,
    smtp_seconds=0.012345,
    total_seconds=0.02,
    connection_id=3,
)
SENT = Settled((SENT_JOB,))
TROUBLE = Trouble(FailureKind.LOGIN, Stage.AUTH, "", Reply(535, "no such user ann@example.org", Stage.AUTH, "5.7.8"))
HALF_OPEN_BEFORE = Open(TROUBLE, 0.0, 60.0, 1)
EVENTS: list[Event] = [
    SENT,
    *(Settled((SettledJob("01abc", disposition),)) for disposition in Disposition),
    Settled((SENT_JOB, SENT_JOB)),
    PhaseChanged(Phase.DRAINING, "SIGTERM"),
    Claimed((("01abc", Source.FRESH, 1),)),
    Claimed((("01abc", Source.FRESH, 1), ("01abd", Source.RECOVERED, 2))),
    LeasesRecovered(1),
    LeaseLost("01abc"),
    ConnectionOpened(1, 0.01, Capabilities()),
    ConnectionFailed(TROUBLE),
    ConnectionClosed(1, "421 bye ann@example.org", 5, 3.0),
    BreakerChanged(HALF_OPEN_BEFORE),
    BreakerChanged(HalfOpen(HALF_OPEN_BEFORE)),
    BreakerChanged(Closed()),
    QueuePaused("maintenance"),
    QueuePaused(""),
    QueueSeen(1, 0, 0, 0, 0),
    RedisFailed("claim", "Connection refused"),
    RedisRecovered(1.0),
    DataLost(LossSign.TOTALS, 3),
    WaitTroubled("OOM"),
    WaitTroubled("a proxy", polls=False),
    WaitTroubled(""),
    JobBroke("01abc", "File x line 1"),
    LoopComplained("something"),
]


def write(options: LogOptions, *events: Event) -> list[str]:
    with open_logbook(options, to_terminal=False) as logbook:
        for event in events:
            logbook.note(event)
    return Path(options.file).read_text("utf-8").splitlines()


def test_a_sent_mail_is_one_line_with_all_that_is_asked_of_it(work_folder: Path) -> None:
    """Job id, type, attempt, wait and SMTP seconds stand in it, and the words that are grepped for."""
    (line,) = write(LogOptions(), SENT)

    assert 'event="Completed job"' in line
    for part in ("job_id=01abc", "email_type=Registration", "attempt=2", "wait=~0.250", "smtp=0.0123", "connection=3"):
        assert part in line.split()


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_no_line_shows_an_address_and_every_line_is_one(event: Event, work_folder: Path) -> None:
    """Also not where a relay repeats one; a line break in a foreign text breaks no line. A claimed job has its own."""
    lines = write(LogOptions(level="debug"), event)

    told = len(event.jobs) if isinstance(event, Claimed | Settled) else line_of(event) is not None
    assert len(lines) == told
    assert not any("ann@" in line for line in lines)


def test_the_level_holds_lesser_lines_back(work_folder: Path) -> None:
    """At warning a sent mail leaves no line, a dead one does."""
    lines = write(LogOptions(level="warning"), Settled((SENT_JOB, SettledJob("01abd", Disposition.DEAD))))

    assert len(lines) == 1
    assert "01abd" in lines[0]


def test_another_level_holds_for_its_time_alone(work_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More is written for as long as was asked, then what the settings say; both changes are in the log."""
    file = work_folder / "worker.log"
    claimed = Claimed((("01abc", Source.FRESH, 1), ("01abd", Source.RECOVERED, 2)))
    now = 1e9
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with open_logbook(LogOptions(file=str(file), level="warning"), to_terminal=False) as logbook:
        assert not logbook.set_level("loud", 60)
        logbook.note(claimed)
        assert logbook.set_level("debug", 60)
        now += 59
        logbook.note(claimed)
        now += 1
        logbook.note(claimed)

    words = [line.split("event=")[1] for line in file.read_text().splitlines()]
    assert words[0].startswith('"Log level" level=debug seconds=60')
    assert words[1] == '"Claimed job" job_id=01abc source=fresh deliveries=1'
    assert words[2] == '"Claimed job" job_id=01abd source=recovered deliveries=2'
    assert words[3:] == ['"Log level" level=warning']


def test_json_lines_can_be_read_by_a_machine(work_folder: Path) -> None:
    """With format json each line is an object with the same fields."""
    (line,) = write(LogOptions(format="json"), SENT)
    fields = json.loads(line)

    assert (fields["event"], fields["job_id"], fields["level"]) == ("Completed job", "01abc", "info")


def test_a_file_that_was_rotated_away_is_opened_anew(work_folder: Path) -> None:
    """What comes after the rotation is in the new file, and nothing is lost."""
    options = LogOptions()
    write(options, SENT)
    Path(options.file).rename(work_folder / "old.log")
    write(options, SENT)

    assert "Completed job" in Path(options.file).read_text("utf-8")
    assert "Completed job" in (work_folder / "old.log").read_text("utf-8")


def test_a_file_that_is_rotated_away_under_the_worker_is_followed_by_a_new_one(work_folder: Path) -> None:
    """Its next line is in the new file."""
    options = LogOptions()
    with open_logbook(options, to_terminal=False) as logbook:
        logbook.note(SENT)
        deadline = time.monotonic() + 10
        while not Path(options.file).read_text("utf-8"):
            assert time.monotonic() < deadline
        Path(options.file).rename(work_folder / "old.log")
        logbook.note(SENT)

    assert Path(options.file).read_text("utf-8").count("Completed job") == 1
    assert (work_folder / "old.log").read_text("utf-8").count("Completed job") == 1
    assert logbook.lost_lines == 0


@pytest.mark.case("E5")
def test_a_disk_that_takes_nothing_costs_lines_which_are_counted() -> None:
    """The worker neither waits nor fails."""
    if not Path("/dev/full").exists():
        pytest.skip("this platform has no /dev/full")
    with open_logbook(LogOptions(file="/dev/full"), to_terminal=False) as logbook:
        for _ in range(3):
            logbook.note(SENT)

    assert logbook.lost_lines == 3


def test_a_folder_that_cannot_be_made_is_an_error_at_once(work_folder: Path) -> None:
    """It is known before the first job is claimed."""
    (work_folder / "file").write_text("")
    with pytest.raises(OSError, match="file"), open_logbook(LogOptions(file="file/worker.log"), to_terminal=False):
        pass


# Also those at the edge of being rounded up or down.
durations = st.floats(0, 3e10) | st.integers(0, 10**9).map(lambda number: number / 20_000)


@given(
    st.floats(0, 4e9),
    st.builds(
        SettledJob,
        job_id=st.text(),
        disposition=st.sampled_from(Disposition),
        email_type=st.text(),
        attempt=st.integers(),
        cause=st.none() | st.builds(Cause, *(st.text() for _ in range(4))),
        recipients=st.lists(st.text(), max_size=3).map(tuple),
        delay_seconds=durations,
        waited_seconds=st.none() | durations,
        is_estimate=st.booleans(),
        smtp_seconds=st.none() | durations,
        total_seconds=durations,
        connection_id=st.none() | st.integers(),
    ),
)
def test_line_of_a_settlement_is_that_of_any_event(at: float, settled: SettledJob) -> None:
    """It is written by a faster function, with the same result in both formats."""
    line = settled_line(settled)

    assert settled_as_logfmt(at, (settled, settled)) == [as_logfmt(at, *line)] * 2
    assert settled_as_json_lines(at, (settled, settled)) == [as_json_line(at, *line)] * 2


@given(
    st.dictionaries(
        st.sampled_from(["job_id", "why", "cause", "seconds", "rcpt"]),
        st.one_of(st.text(), st.integers(), st.booleans(), st.none(), st.floats(allow_nan=False)),
    )
)
def test_a_line_is_what_the_library_would_write(fields: dict[str, object]) -> None:
    """Of any value: structlog's renderer is what ours is held to."""
    head = {"timestamp": "2026-11-26T12:00:01.250000Z", "level": "info", "event": "Completed job"}
    theirs = LogfmtRenderer(bool_as_flag=False)

    assert as_logfmt(1795694401.25, "info", "Completed job", fields) == theirs(None, "info", {**head, **fields})


@pytest.mark.parametrize("log_format", ["console", "json"])
@given(text=st.permutations(HOSTILE).map("x".join))
@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_text_of_an_event_rules_the_terminal_of_who_reads_the_log(
    work_folder: Path, log_format: str, text: str
) -> None:
    """Whoever wrote it: the relay, Redis, a producer, a bug. Every line stays one line, and a JSON line stays JSON."""
    events = [spoiled(event, text) for event in EVENTS]
    options = LogOptions(file=f"{log_format}.log", level="debug", format=log_format)
    Path(options.file).unlink(missing_ok=True)
    write(options, *events)
    lines = Path(options.file).read_text("utf-8").split("\n")

    assert len(lines) == len(write(LogOptions(file=f"plain-{log_format}.log", level="debug"), *EVENTS)) + 1
    Path(f"plain-{log_format}.log").unlink()
    for line in lines:
        assert_tame(line, allowed="")
    if log_format == "json":
        assert all(json.loads(line)["event"] for line in lines[:-1])
