"""The dashboard: golden frames, the identities between the figures shown, and that no frame breaks a terminal."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from tests.support.snapshot import (
    REFUSED_LOGIN,
    busy,
    draining,
    fleet,
    fresh,
    idle,
    suspended,
    without_redis,
    without_relay,
)
from trio_worker.dashboard.cell_text import in_ascii, printable_cells, width_of
from trio_worker.dashboard.frame import render_frame, render_svg
from trio_worker.dashboard.view import DrainKey, Page, PauseKey, QuitKey, ResumeKey, Typing, View
from trio_worker.queue.claim import Source
from trio_worker.queue.record import Cause
from trio_worker.smtp.events import ConnectionView
from trio_worker.smtp.failure_kind import FailureKind
from trio_worker.smtp.outcome import Trouble
from trio_worker.smtp.reply import Stage
from trio_worker.telemetry.alerts import Severity, alerts
from trio_worker.telemetry.board import Board
from trio_worker.telemetry.feed import FeedOutcome
from trio_worker.telemetry.heartbeat import DeathCount, Heartbeat, Rates, Suspended, Vitals, WorkerSeen
from trio_worker.telemetry.ledger import Ledger
from trio_worker.telemetry.quantiles import Histogram, Quantiles
from trio_worker.telemetry.snapshot import Scope, Snapshot
from trio_worker.worker.breaker import Closed, HalfOpen, Open
from trio_worker.worker.events import Claimed, Settled, SettledJob
from trio_worker.worker.phase import Disposition, Phase
from trio_worker.worker.queue_seen import QueueSeen
from trio_worker.worker.state import WorkerState

STATE = WorkerState(number_workers=4, max_connections=4, depth=1)
# Set it to write the frames again; then check the diff.
REWRITE = os.environ.get("REWRITE_FRAMES") == "1"
FRAMES = Path(__file__).parent / "frames"
_STYLES = re.compile(r"\x1b\[[0-9;]*m")


@pytest.fixture(autouse=True)
def _version(monkeypatch: pytest.MonkeyPatch) -> None:
    # A release must not change the frames.
    monkeypatch.setattr("trio_worker.dashboard.panels.__version__", "1.2.3")


def plain(frame: str) -> str:
    return _STYLES.sub("", frame)


def lines_of(snapshot: Snapshot, width: int, height: int) -> list[str]:
    return plain(render_frame(snapshot, width, height)).split("\n")


def figures_under(lines: list[str], *labels: str) -> list[int]:
    """Return the figures of the table whose heading is exactly these labels."""
    place = next(number for number, line in enumerate(lines) if line.split() == list(labels))
    return [int(figure.replace(",", "")) for figure in lines[place + 1].replace("▲", "").split()]


# --- golden frames ----------------------------------------------------------------------------------------------------

PLAIN_FRAMES = {
    "40x8": (busy(), 40, 8),
    "60x10": (busy(), 60, 10),
    "70x32": (busy(), 70, 32),
    "80x24": (busy(), 80, 24),
    "80x40": (busy(), 80, 40),
    "120x32": (busy(), 120, 32),
    "160x45": (busy(), 160, 45),
    "starting-80x24": (fresh(), 80, 24),
    "empty-80x24": (idle(), 80, 24),
    "draining-80x24": (draining(), 80, 24),
    "breaker-open-80x24": (without_relay(), 80, 24),
    "breaker-open-160x45": (without_relay(), 160, 45),
    "stale-80x24": (without_redis(), 80, 24),
    "stale-60x10": (without_redis(), 60, 10),
    "suspended-80x24": (suspended(), 80, 24),
    "suspended-120x32": (suspended(), 120, 32),
}


def assert_golden(name: str, text: str) -> None:
    path = FRAMES / f"{name}.txt"
    if REWRITE:
        path.write_text(text + "\n", encoding="utf-8")

    assert text + "\n" == path.read_text(encoding="utf-8")


# The panels that cut rows, and the keys of their pages.
MORE = {"CONNECTIONS": "3", "FAILURES": "4", "LATEST": "5"}
KEYS = View(has_keys=True, may=frozenset({QuitKey, PauseKey, ResumeKey, DrainKey}))
_QUEUE = QueueSeen(12_431, 961, 64, 0, 7, due=12, oldest_seconds=30.2, is_estimate=True)
VIEWED_FRAMES = {
    "fleet-80x24": (fleet(), 80, 24, KEYS),
    "fleet-120x32": (fleet(), 120, 32, KEYS),
    "fleet-160x45": (fleet(), 160, 45, KEYS),
    "help-80x24": (idle(), 80, 24, evolve(KEYS, page=Page.HELP)),
    "workers-100x30": (fleet(), 100, 30, evolve(KEYS, page=Page.WORKERS)),
    "latest-80x24": (busy(), 80, 24, evolve(KEYS, page=Page.LATEST, only_errors=True)),
    "frozen-80x24": (evolve(busy(), at=busy().at + 12), 80, 24, evolve(KEYS, frozen=busy())),
    "paused-80x24": (evolve(busy(), queue=evolve(_QUEUE, paused="relay maintenance (ana)")), 80, 24, KEYS),
    "typing-80x24": (busy(), 80, 24, evolve(KEYS, typing=Typing.PAUSE, typed="relay maint")),
}


@pytest.mark.parametrize("name", VIEWED_FRAMES)
def test_viewed_frame_is_as_it_was_drawn(name: str) -> None:
    """What keys show is drawn as it was, for one worker and for all."""
    snapshot, width, height, view = VIEWED_FRAMES[name]

    assert_golden(name, plain(render_frame(snapshot, width, height, view)))


def test_typing_says_how_it_ends_and_that_keys_are_text() -> None:
    """Keys for actions are not offered while they are typed as text, and a cursor shows where they go."""
    frame = render_frame(busy(), 80, 24, evolve(KEYS, typing=Typing.DRAIN, typed="dra"))
    *above, hint, prompt = plain(frame).split("\n")

    assert "Enter confirms, Esc cancels" in hint
    assert prompt.rstrip().endswith(": dra_")
    assert "\x1b[1;7m_" in frame
    assert not any("q quit" in line for line in above)


@pytest.mark.parametrize("size", [(80, 24), (160, 45)])
def test_paused_queue_is_offered_to_be_resumed(size: tuple[int, int]) -> None:
    """The key p is shown next to the pause; a dashboard that may only watch offers no key."""
    queue = QueueSeen(1, 0, 0, 0, 0, paused="relay maintenance (ana)")
    snapshot = evolve(busy(), queue=queue)

    frame = plain(render_frame(snapshot, *size, KEYS))
    assert "p resume" in frame
    assert "p pause" not in frame
    assert "p resume" not in plain(render_frame(snapshot, *size, evolve(KEYS, may=frozenset({QuitKey}))))


def test_picture_is_the_frame() -> None:
    """The picture of a frame is well-formed and says what the frame says."""
    picture = ET.fromstring(render_svg(busy(), 120, 32))  # noqa: S314  our own

    words = "".join(picture.itertext()).replace("\xa0", " ")
    assert picture.tag.endswith("svg")
    assert "12,431" in words
    assert "k…n@example.org" in words


@pytest.mark.parametrize("name", PLAIN_FRAMES)
def test_frame_is_as_it_was_drawn(name: str) -> None:
    """A known snapshot gives the known frame, character by character."""
    snapshot, width, height = PLAIN_FRAMES[name]

    assert_golden(name, plain(render_frame(snapshot, width, height)))


def test_ascii_frame_is_as_it_was_drawn() -> None:
    """Where only ASCII may be shown, rules, charts and signs have their stand-ins."""
    frame = plain(render_frame(busy(), 80, 24, ascii_only=True))

    assert_golden("ascii-80x24", frame)


def test_colours_are_as_they_were_drawn() -> None:
    """Colours are those of the terminal's own theme; red is only what is wrong now."""
    assert_golden("colour-stale-80x24", render_frame(without_redis(), 80, 24).replace("\x1b", "␛"))


def test_frame_without_colour_is_as_it_was_drawn() -> None:
    """Without colour bold and dim stay, and every colour code is gone."""
    frame = render_frame(without_redis(), 80, 24, color=False)

    assert not re.search(r"\x1b\[[0-9;]*[349][0-7]", frame)
    assert_golden("no-colour-stale-80x24", frame.replace("\x1b", "␛"))


def test_colour_changes_no_character() -> None:
    """What a frame says is the same with and without colour, so colour alone carries no meaning."""
    for snapshot in (busy(), without_redis(), without_relay(), draining()):
        assert plain(render_frame(snapshot, 120, 32)) == plain(render_frame(snapshot, 120, 32, color=False))


# --- identities -------------------------------------------------------------------------------------------------------

RUN_LABELS = ("claimed", "sent", "delayed", "dead", "held", "released", "fenced", "unsettled", "uncertain")


def assert_run_balances(snapshot: Snapshot) -> None:
    lines = lines_of(snapshot, 80, 24)
    gone = ["gone"] if snapshot.ledger.settled[Disposition.GONE] else []
    claimed, *settled, _uncertain = figures_under(lines, *RUN_LABELS[:-2], *gone, *RUN_LABELS[-2:])
    in_hand = next(re.search(r"in hand (-?[\d,]+),", line) for line in lines if "THIS RUN" in line)

    assert in_hand is not None
    assert claimed == sum(settled) + int(in_hand[1].replace(",", ""))


@pytest.mark.parametrize("snapshot", [busy(), idle(), draining(), without_relay(), without_redis()])
def test_shown_ledger_balances(snapshot: Snapshot) -> None:
    """In the figures shown, claimed is the sum of all dispositions and of the jobs in hand."""
    assert_run_balances(snapshot)


@given(st.lists(st.one_of(st.just(None), st.sampled_from(Disposition)), max_size=60))
def test_shown_ledger_balances_after_any_events(fates: list[Disposition | None]) -> None:
    """After any events, the figures on the screen account for each job."""
    board = Board("jobs", "redis", "relay:25", started_at=0.0)
    for number, fate in enumerate(fates):
        board.note(Claimed(((f"id{number}", Source.FRESH, 1),)), float(number), 0.0)
        if fate is not None:
            board.note(Settled((SettledJob(f"id{number}", fate, cause=Cause("refused", "550")),)), float(number), 0.0)

    assert_run_balances(board.snapshot(60.0, 0.0, STATE))


@given(st.integers(0, 640), st.integers(0, 640), st.none() | st.integers(0, 10))
def test_consumers_and_mails_in_flight_are_told_apart(in_hand: int, at_work: int, busy_consumers: int | None) -> None:
    """A consumer may have many mails in flight; jobs that wait for their settlement are in hand too."""
    snapshot = evolve(
        busy(), number_workers=10, in_hand=in_hand, mails_in_flight=at_work, busy_consumers=busy_consumers
    )
    lines = lines_of(snapshot, 80, 24)
    run, flow = (next(line for line in lines if title in line) for title in ("THIS RUN", "FLOW"))

    consumers = "-" if busy_consumers is None else f"{busy_consumers}/10"
    assert f"in hand {in_hand}, consumers busy {consumers}, idle 2%" in run
    assert f"a minute, {at_work} mail{'' if at_work == 1 else 's'} in flight" in flow
    assert "this worker" in flow


@pytest.mark.parametrize(
    ("how", "severity"), [("login", Severity.TROUBLE), ("greeting", Severity.CAUTION), ("", Severity.CAUTION)]
)
def test_suspended_connections_are_an_alert(how: str, severity: Severity) -> None:
    """How many of how many, for how long, and the relay's text; a refused login is trouble, others are a caution."""
    told = Suspended(8, "refuses the connection with 421 4.7.0 (too many, ann@example.com)", busy().at + 23, how)
    snapshot = evolve(busy(), suspended=told, max_connections=10)
    (alert,) = alerts(snapshot)

    assert (alert.word, alert.severity) == ("SUSPENDED", severity)
    assert alert.text.startswith("8 of 10 connections for 23s more: refuses the connection with 421 4.7.0 (too many, a")
    assert "ann@example.com" not in alert.text
    assert "8 suspended for 23s" in "".join(lines_of(snapshot, 80, 24))


def test_suspension_whose_time_is_over_says_what_it_waits_for() -> None:
    """Until one of them could be opened again, or could not."""
    snapshot = evolve(suspended(), at=busy().at + 24)

    assert alerts(snapshot)[0].text.startswith("14 of 16 connections until one can be opened: refuses the login")
    assert "2/16 open, 2 busy, 14 suspended ─" in "".join(lines_of(snapshot, 80, 24))


def test_failures_add_up() -> None:
    """The title of the failures is the sum of its rows, and deaths are what this worker buried or others did."""
    snapshot = busy()
    lines = lines_of(snapshot, 80, 60)
    place = next(number for number, line in enumerate(lines) if "FAILURES" in line)
    rows = [re.search(r" ([\d,]+)  (\w+) .* ago", line) for line in lines[place + 1 : place + 8]]
    counts = [(int(found[1].replace(",", "")), found[2]) for found in rows if found is not None]

    delays, dead = (sum(number for number, kind in counts if kind == wanted) for wanted in ("delayed", "DEAD"))
    assert f"FAILURES  {delays:,} delays, {dead} dead jobs ─" in lines[place]
    deaths = sum(number for number, word in counts if word == "DEAD")
    assert deaths == sum(cause.count for cause in snapshot.causes if cause.disposition is Disposition.DEAD)


@pytest.mark.parametrize("size", [(120, 32), (160, 45)])
def test_ages_add_up_to_what_waits(size: tuple[int, int]) -> None:
    """The bars of AGE are, as shown, all jobs that QUEUE says are waiting; the longest is of the most."""
    lines = lines_of(busy(), *size)
    place = next(number for number, line in enumerate(lines) if " AGE  " in line)
    rows = [line.rpartition("   ")[2].split("█ ")[-1].strip() for line in lines[place + 1 : place + 6]]
    jobs = [int(row.lstrip("~").replace(",", "")) for row in rows]
    bars = [line.count("█") for line in (line[size[0] // 2 :] for line in lines[place + 1 : place + 6])]

    assert sum(jobs) == busy().queue.waiting  # type: ignore[union-attr]
    assert bars.index(max(bars)) == jobs.index(max(jobs))


def test_chart_is_the_rate() -> None:
    """The sum of the last ten columns of the chart is ten times the rate of sent mails next to it."""
    snapshot = busy()

    assert sum(snapshot.spark_sent[-10:]) == round(10 * snapshot.rates.sent)


def test_narrow_and_wide_frames_show_the_same_figures() -> None:
    """The ledger reads the same in one table of nine columns and in two of five."""
    claimed, sent, delayed, dead, held, released, fenced, unsettled, uncertain = figures_under(
        lines_of(busy(), 80, 24), *RUN_LABELS
    )
    narrow = [" ".join(line.split()) for line in lines_of(busy(), 70, 32)]

    assert f"{claimed:,} {sent:,} {delayed:,} {dead:,} {held:,}" in narrow
    assert f"{released:,} {fenced:,} {unsettled:,} {uncertain:,} {busy().ledger.recovered:,}" in narrow


# --- what the words say -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(80, 24), (160, 45)])
def test_panels_say_how_many_rows_they_leave_out_and_which_key_shows_them(size: tuple[int, int]) -> None:
    """The key is that of the page; where there are no keys, none is named, and the page itself leaves nothing out."""
    shown = plain(render_frame(busy(), *size, KEYS))
    hidden = {name: re.search(rf"{name} .*? \+(\d+) more: (\d)(?: |\n)", shown) for name in MORE}

    assert {name: found[2] for name, found in hidden.items() if found} == MORE
    assert "more: " not in plain(render_frame(busy(), *size))
    for key in MORE.values():
        page = plain(render_frame(busy(), size[0], 100, evolve(KEYS, page=Page(key))))
        assert " more" not in page


def test_a_lost_worker_does_no_work() -> None:
    """It is listed by its name, and none of its last figures is shown as if it were of now."""
    (line,) = [line for line in lines_of(fleet(), 100, 30) if "LOST " in line and "host-c" in line and "!" not in line]

    assert line.split() == ["host-c:12", "LOST", "-", "-", "-", "17s", "-", "1.2.3"]


def test_growing_queue_is_behind() -> None:
    """A queue that grows says by how much; one that shrinks when it will be empty; each how late it is."""
    shrinking = evolve(busy(), waiting_slope=-50.0)

    assert "growing +38/s, ~30s behind" in lines_of(busy(), 80, 24)[2]
    assert "shrinking, empty in 4m08s, ~30s behind" in lines_of(shrinking, 80, 24)[2]
    assert "QUEUE  ~30s behind" in lines_of(evolve(busy(), waiting_slope=0.5), 80, 24)[2]


def test_unknown_is_no_zero() -> None:
    """Before the first poll of the queue its figures are dashes; an empty queue shows zeros."""
    assert lines_of(fresh(), 80, 24)[4].split() == ["-"] * 7
    assert lines_of(idle(), 80, 24)[4].split() == ["0", "=", "-", "0", "0", "0", "0", "0"]


def test_open_breaker_says_why_and_when() -> None:
    """The alert names the trouble, the relay's code, and the time of the next probe."""
    frame = "\n".join(lines_of(without_relay(), 160, 45))

    assert "● NO RELAY" in frame
    assert "! RELAY  refuses the login with 535 5.7.8; next probe in 42s, 3 tries failed" in frame
    assert "breaker OPEN" in frame


def test_half_open_breaker_probes() -> None:
    """While a probe is out the screen says so."""
    probing = evolve(without_relay(), breaker=HalfOpen(Open(REFUSED_LOGIN, 0.0, 1.0, 1)))

    assert "probing with one mail, 1 try failed" in lines_of(probing, 120, 32)[1]


def test_drain_counts_down() -> None:
    """A drain says who asked for it, how many jobs are left and for how long."""
    assert lines_of(draining(), 80, 24)[1] == " ! DRAIN  SIGTERM: 4 in hand, 18s of grace left"


def test_pause_is_told_with_its_reason() -> None:
    """A paused queue says PAUSED and why."""
    queue = QueueSeen(5, 0, 0, 0, 0, paused="relay maintenance until noon")
    lines = lines_of(evolve(busy(), queue=queue), 80, 24)

    assert "● PAUSED" in lines[0]
    assert lines[1] == " ! PAUSED  no job is claimed: relay maintenance until noon"


def test_pause_is_told_with_its_end() -> None:
    """A pause shows when it ends, counted from now and not from the last poll."""
    queue = QueueSeen(5, 0, 0, 0, 0, paused="relay maintenance", pause_seconds_left=62.0)
    lines = lines_of(evolve(busy(), queue=queue, queue_seen_seconds=2.0), 80, 24)

    assert lines[1] == " ! PAUSED  no job is claimed for 1m00s more: relay maintenance"


def test_troubles_that_do_not_fit_are_counted() -> None:
    """If there is one line for alerts, it shows the most urgent one and counts the others."""
    worst = evolve(without_redis(), breaker=without_relay().breaker, phase=Phase.DRAINING)
    lines = lines_of(worst, 80, 24)

    assert lines[1].startswith(" ! REDIS  no answer for 12s; queue figures are 13s old")
    assert lines[1].endswith("+2 more")


def test_a_death_stays_in_view() -> None:
    """Among many other outcomes, the last death and its cause are still on the smallest full screen."""
    frame = lines_of(busy(), 80, 24)

    assert sum("DEAD" in line for line in frame) == 2


def test_relay_words_are_masked() -> None:
    """An address in what the relay said is not on the screen."""
    text = "\n".join(lines_of(busy(), 200, 60))

    assert "User unknown" in text
    assert "nobody.here" not in text


# --- any snapshot, any size -------------------------------------------------------------------------------------------

numbers = st.integers(0, 9_999_999_999)
seconds = st.floats(-10, 1e9, allow_nan=False)
rates = st.floats(0, 1e7, allow_nan=False)
words = st.one_of(
    st.text(max_size=40),
    st.text(st.sampled_from("キュー名前🚀👩‍👩‍👧❤️é\u0301\x1b\u202e\u200b🇩🇪ﷺ가각\t\n a1…"), max_size=60),
)
causes = st.builds(
    Cause, word=words, codes=st.sampled_from(["", "550 5.1.1", "451"]), stage=st.just("rcpt"), text=words
)
dispositions = st.sampled_from(Disposition)
settlements = st.builds(
    SettledJob,
    job_id=words,
    disposition=dispositions,
    email_type=words,
    attempt=numbers,
    cause=st.none() | causes,
    recipients=st.lists(words, max_size=2).map(tuple),
    delay_seconds=seconds,
    waited_seconds=st.none() | seconds,
    is_estimate=st.booleans(),
    smtp_seconds=st.none() | seconds,
    connection_id=st.none() | numbers,
    is_uncertain=st.booleans(),
)
quantiles = st.builds(Quantiles, numbers, *[st.none() | seconds] * 4)
troubles = st.builds(Trouble, st.sampled_from(FailureKind), st.sampled_from(Stage), words)
opens = st.builds(Open, troubles, seconds, seconds, numbers)
views = st.builds(ConnectionView, numbers, words | st.just("idle"), seconds, numbers, seconds, words, words)
suspensions = st.none() | st.builds(Suspended, numbers, words, st.floats(0, 4e9), words | st.just("login"))
operator_counts = st.builds(
    Histogram, st.dictionaries(st.integers(0, 200), st.integers(1, 1000), max_size=5), st.floats(0, 1e6)
)
beats = st.builds(
    Heartbeat,
    worker=words,
    version=words,
    started_at=st.floats(0, 4e9),
    phase=st.sampled_from(Phase),
    number_workers=numbers,
    max_connections=numbers,
    is_quiet=st.booleans(),
    in_hand=numbers,
    at_work=numbers,
    mails_in_flight=numbers,
    connections=numbers,
    busy_connections=numbers,
    trouble=words,
    rates=st.builds(Rates, rates, rates, rates, rates),
    idle_share=st.none() | st.floats(0, 1),
    latency=operator_counts,
    vitals=st.builds(
        Vitals, st.none() | st.floats(0, 64), st.none() | numbers, st.none() | seconds, st.none() | seconds
    ),
    config=words,
    busy_consumers=st.none() | numbers,
    suspended=suspensions,
)
snapshots = st.builds(
    Snapshot,
    at=st.floats(0, 4e9),
    phase=st.sampled_from(Phase),
    phase_why=words,
    up_seconds=seconds,
    queue_name=words,
    redis_name=words,
    relay_name=words,
    queue=st.none()
    | st.builds(QueueSeen, *[numbers] * 6, oldest_seconds=st.none() | seconds, is_estimate=st.booleans(), paused=words),
    queue_seen_seconds=st.none() | seconds,
    ledger=st.builds(
        Ledger,
        claimed=numbers,
        settled=st.dictionaries(dispositions, numbers).map(Counter),
        uncertain=numbers,
    ),
    in_hand=numbers,
    at_work=numbers,
    mails_in_flight=numbers,
    number_workers=numbers,
    rates=st.builds(Rates, rates, rates, rates, rates),
    waiting_slope=st.none() | st.floats(-1e7, 1e7, allow_nan=False),
    spark_sent=st.lists(numbers, max_size=300).map(tuple),
    wait=quantiles,
    smtp=quantiles,
    total=quantiles,
    latency=quantiles,
    idle_share=st.none() | st.floats(0, 1),
    connections=st.lists(
        st.builds(ConnectionView, numbers, words | st.just("idle"), seconds, numbers, seconds, words, words),
        max_size=20,
    ).map(tuple),
    max_connections=numbers,
    breaker=st.just(Closed()) | opens | st.builds(HalfOpen, opens),
    breaker_seconds=seconds,
    causes=st.lists(st.builds(DeathCount, words, words, dispositions, numbers, st.floats(0, 4e9)), max_size=12).map(
        tuple
    ),
    latest=st.lists(st.builds(FeedOutcome, st.floats(0, 4e9), settlements), max_size=60).map(tuple),
    redis_down_seconds=st.none() | seconds,
    redis_trouble=words,
    journal_trouble=words,
    grace_seconds_left=st.none() | seconds,
    is_quiet=st.booleans(),
    scope=st.sampled_from(Scope),
    workers=st.lists(st.builds(WorkerSeen, beats, seconds), max_size=2).map(tuple),
    busy_consumers=st.none() | numbers,
    suspended=suspensions,
)
looks = st.builds(
    View,
    page=st.sampled_from(Page),
    filter=words,
    only_errors=st.booleans(),
    has_keys=st.booleans(),
    may=st.sampled_from([frozenset({QuitKey}), frozenset({QuitKey, PauseKey, ResumeKey, DrainKey})]),
    frozen=st.sampled_from([None, busy()]),
    typing=st.none() | st.sampled_from(Typing),
    typed=words,
    notice=words,
)
widths = st.integers(1, 240) | st.sampled_from([59, 60, 79, 80, 119, 120, 160])
heights = st.integers(1, 70) | st.sampled_from([9, 10, 23, 24, 29, 30, 31, 32, 45])


@pytest.mark.parametrize("width", range(40, 120))
def test_a_relay_whose_name_has_wide_characters_fits_its_line(width: int) -> None:
    """Each of them takes two cells; the name is left out where it has no room."""
    lines = plain(render_frame(evolve(busy(), relay_name="0⺀⺀⺀⺀.example"), width, 30, View())).split("\n")

    assert max(map(cell_len, lines)) <= width - 1


@given(snapshots, widths, heights, looks, st.fixed_dictionaries({"ascii_only": st.booleans(), "color": st.booleans()}))
def test_no_frame_is_larger_than_its_terminal(
    snapshot: Snapshot, width: int, height: int, view: View, flags: dict[str, bool]
) -> None:
    """With any content and any size, no line reaches the last column, and there are not too many lines."""
    lines = plain(render_frame(snapshot, width, height, view, **flags)).split("\n")

    assert len(lines) <= height
    assert max(map(cell_len, lines)) <= max(1, width - 1)
    assert all(character.isprintable() for line in lines for character in line)
    assert not flags["ascii_only"] or all(line.isascii() for line in lines)


@given(snapshots)
def test_nothing_jumps(snapshot: Snapshot) -> None:
    """The titles and headings stand on the same lines whatever the figures are: only the size decides."""
    titles = ("QUEUE", "FLOW", "TIME", "THIS RUN", "FAILURES", "LATEST")
    shaped = evolve(snapshot, max_connections=16, scope=Scope.WORKER)

    def places(frame: list[str]) -> list[int]:
        return [next(n for n, line in enumerate(frame) if line.startswith(f" {title} ")) for title in titles]

    assert places(lines_of(shaped, 80, 24)) == places(lines_of(busy(), 80, 24))


@given(words)
def test_printable_text_has_an_honest_width(text: str) -> None:
    """Every character left is one or two cells wide, so the sum is the width in every terminal."""
    shown = printable_cells(text)

    assert width_of(shown) == cell_len(shown)
    assert not any(unicodedata.category(character) in {"Cc", "Cf", "Mn", "Me"} for character in shown)
    assert width_of(in_ascii(shown)) == width_of(shown)
