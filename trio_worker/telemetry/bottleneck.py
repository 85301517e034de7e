"""Pure. Finds the bottleneck and the setting to change: Little's law over the figures of the dashboard.

L = lambda * W: mails in flight = mails sent per second * seconds in flight. So a number of slots can send at most
slots / seconds mails per second, and a rate needs rate * seconds slots. The slots are the mails that can be in flight:
the connections that are not suspended, at most one for each consumer, times the depth.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from trio_worker.records import frozen
from trio_worker.smtp.failure_kind import FailureKind
from trio_worker.telemetry.heartbeat import Heartbeat, Suspended
from trio_worker.telemetry.notice import RATE_WORD, REFUSED_WORD, Notice
from trio_worker.telemetry.number_words import UNKNOWN, count, counted, duration, paused_words, per_second, share
from trio_worker.telemetry.quantiles import added
from trio_worker.telemetry.snapshot import Snapshot
from trio_worker.telemetry.words import suspended_words

# Above this utilization there is no reserve for bursts: jobs queue although not all capacity is in use.
BUSY_SHARE = 0.85
# A process uses one core; above this utilization its event loop is late.
CPU_SHARE = 0.85
# A longer round trip to Redis limits claims, as only a few are sent at a time.
SLOW_REDIS_SECONDS = 0.05
# Of the round trip to Redis: if the event loop is as late as this, its delay explains the round trip.
LATE_SHARE = 0.3
# The time in which the advice is to empty the waiting list.
CATCH_UP_SECONDS = 600


@frozen
class Finding:
    """The bottleneck, its reasons, advice, and the other parts that were checked."""

    limit: str  # one word, for programs
    headline: str
    reasons: tuple[str, ...] = ()
    advice: tuple[str, ...] = ()
    not_the_limit: tuple[str, ...] = ()


def find_bottleneck(snapshot: Snapshot) -> Finding:
    """Return the bottleneck of the workers in a snapshot of the fleet."""
    beats = [worker.beat for worker in snapshot.workers if not worker.is_lost]
    stopped = _standstill(snapshot, beats)
    if stopped is not None:
        return stopped
    if not snapshot.queue or not snapshot.queue.waiting + snapshot.queue.due:
        reasons = (f"The consumers of {_workers(beats)} are idle for {share(snapshot.idle_share)} of the time.",)
        return Finding("nothing", "Nothing: no job waits and none is due.", reasons)
    return _capacity(snapshot, beats)


def _standstill(snapshot: Snapshot, beats: Sequence[Heartbeat]) -> Finding | None:
    """Return the reason if no worker claims jobs, else None."""
    queue = snapshot.queue
    if queue is None:
        return Finding("redis", "Redis: the queue was never read.", (snapshot.redis_trouble,))
    if not beats and snapshot.write_refusal:
        headline = "Redis refuses what workers write: nothing is claimed, and it is not known whether a worker runs."
        advice = ("Check what a worker needs from Redis: trio-worker doctor",)
        return Finding("redis", headline, (snapshot.write_refusal,), advice)
    if not beats:
        lost = len(snapshot.workers)
        reasons = (f"{counted(lost, 'worker')} sent no heartbeat for some time.",) if lost else ()
        steps = ("Start one: trio-worker run", "If one runs, its log and trio-worker health say what Redis refuses it.")
        return Finding("workers", "No worker is heard.", reasons, steps)
    if all(beat.is_refused for beat in beats):
        notice = next(notice for notice in beats[0].notices if notice.word == REFUSED_WORD)
        return Finding("redis", f"{notice.text}.", (), ("Check what a worker needs from Redis: trio-worker doctor",))
    if queue.paused:
        why = paused_words(queue.paused, snapshot.at - (snapshot.queue_seen_seconds or 0.0), queue.pause_seconds_left)
        return Finding("paused", f"The queue is paused: {why}", (), ("Resume it: trio-worker queue resume",))
    if any(beat.is_at_dead_limit for beat in beats):
        headline = "The dead letters have reached queue.dead_limit: workers claim no jobs."
        reasons = (f"There are {counted(queue.dead, 'dead letter')}.",)
        steps = ("Look at them: trio-worker dead groups", "Retry or drop them, or raise queue.dead_limit.")
        return Finding("dead_limit", headline, reasons, steps)
    if all(beat.is_quiet for beat in beats):
        advice = ("Resume them: trio-worker worker resume --all",)
        return Finding("quiet", f"Quiet: {_workers(beats)}. A quiet worker claims no jobs.", (), advice)
    troubled = [beat for beat in beats if beat.trouble]
    if len(troubled) == len(beats):
        return _by_relay(troubled[0])
    return None


def _by_relay(beat: Heartbeat) -> Finding:
    down = beat.relay_down
    return Finding(
        "relay",
        f"The relay {f'{beat.relay} ' if beat.relay else ''}{beat.trouble}.",
        ("All workers have stopped claiming.", *([] if down is None else [f"It {down.why}."])),
        (
            "Check each step of a connection: trio-worker smtp check",
            "Once it is mended, try it at once: trio-worker relay probe",
        ),
    )


def _capacity(snapshot: Snapshot, beats: Sequence[Heartbeat]) -> Finding:
    """Return the part of the workers that has no capacity left."""
    load = _load_of(snapshot, [beat for beat in beats if not (beat.trouble or beat.is_quiet)])
    resources = {
        "processor": f"processor {share(load.cpu_share)} of one core",
        "connections": f"connections {share(load.slots_share)}",
        "consumers": f"consumers {share(load.consumers_share)}",
        "redis": f"Redis {duration(load.redis_seconds)}",
    }
    suspended = snapshot.suspended
    limited = [notice for beat in load.beats for notice in beat.notices if notice.word == RATE_WORD]
    if (load.cpu_share or 0.0) >= CPU_SHARE:
        finding = _by_processor(load)
    elif limited:
        finding = _by_rate(limited)
    elif suspended is not None and load.lacks_connections:
        finding = _by_suspension(snapshot, suspended, load)
    elif load.has_busy_slots and load.held_seconds is not None and not load.lacks_consumers:
        finding = _by_connections(snapshot, load, load.held_seconds)
    elif load.has_busy_slots or (load.has_busy_consumers and not load.has_busy_connections):
        finding = _by_consumers(load)
    elif (load.redis_seconds or 0.0) >= SLOW_REDIS_SECONDS and load.is_late:
        finding = _by_host(load)
    elif (load.redis_seconds or 0.0) >= SLOW_REDIS_SECONDS:
        words = f"Redis: its round trip takes {duration(load.redis_seconds)}."
        finding = Finding("redis", words, (), ("Move the workers nearer to Redis, or run more workers.",))
    else:
        words = "Nothing is at its limit: the waiting jobs are new, or are being processed."
        finding = Finding("nothing", words)
    others = tuple(use for name, use in resources.items() if name != finding.limit)
    return Finding(finding.limit, finding.headline, finding.reasons, finding.advice, others)


def _by_rate(limited: Sequence[Notice]) -> Finding:
    """Return the finding if the relay says that mails come too fast."""
    reasons = (f"{counted(len(limited), 'worker')}: {limited[0].text}.",)
    advice = ("Ask the relay's operator for a higher rate. Each worker finds the highest rate without refusals.",)
    return Finding("rate", "The rate of mails that the relay takes.", reasons, advice)


@frozen
class _Load:
    """The load of the workers that send; None for unknown figures."""

    beats: Sequence[Heartbeat]
    slots: int  # maximum of mails in flight
    held_seconds: float | None  # time for which a mail uses a slot
    slots_share: float | None
    consumers_share: float | None
    cpu_share: float | None
    redis_seconds: float | None
    lag_seconds: float | None  # by which the event loop wakes late

    @property
    def is_late(self) -> bool:
        """Return whether the loop's own delay is a good part of the round trip to Redis: a reply waits for it."""
        return (self.lag_seconds or 0.0) >= LATE_SHARE * (self.redis_seconds or 0.0)

    @property
    def has_busy_slots(self) -> bool:
        return (self.slots_share or 0.0) >= BUSY_SHARE

    @property
    def has_busy_consumers(self) -> bool:
        return bool(self.beats) and (self.consumers_share or 0.0) >= BUSY_SHARE

    @property
    def has_busy_connections(self) -> bool:
        """Return whether the connections that are not suspended are busy."""
        return _are_busy(self.beats)

    @property
    def lacks_connections(self) -> bool:
        """Return whether workers with suspended connections have all other connections busy."""
        is_full = self.has_busy_slots and not self.lacks_consumers
        return is_full or _are_busy([beat for beat in self.beats if beat.suspended is not None])

    @property
    def lacks_consumers(self) -> bool:
        """Return whether there are more connections than consumers can use."""
        return any(beat.connections_usable < beat.connections_left for beat in self.beats)


def _are_busy(beats: Sequence[Heartbeat]) -> bool:
    left = sum(beat.connections_left for beat in beats)
    return bool(left) and sum(beat.busy_connections for beat in beats) >= BUSY_SHARE * left


def _load_of(snapshot: Snapshot, beats: Sequence[Heartbeat]) -> _Load:
    slots = sum(beat.connections_usable * beat.depth for beat in beats)
    held_seconds = added(beat.smtp for beat in beats).mean_seconds()
    return _Load(
        beats,
        slots,
        held_seconds,
        None if held_seconds is None or not slots else min(1.0, _leaving(snapshot) * held_seconds / slots),
        None if snapshot.idle_share is None else 1 - snapshot.idle_share,
        max((beat.vitals.cpu_share or 0.0 for beat in beats), default=None),
        max((beat.vitals.redis_seconds or 0.0 for beat in beats), default=None),
        max((beat.vitals.lag_seconds or 0.0 for beat in beats), default=None),
    )


def _leaving(snapshot: Snapshot) -> float:
    """Return the attempts per second: each retry needs a slot, like the first attempt."""
    return snapshot.rates.sent + snapshot.rates.delayed + snapshot.rates.dead


def _by_processor(load: _Load) -> Finding:
    return Finding(
        "processor",
        "The processor: a worker is one process on one core.",
        (f"The busiest of {_workers(load.beats)} uses {share(load.cpu_share)} of its core.",),
        ("Run another worker on the same queue: the workers share it.",),
    )


def _by_host(load: _Load) -> Finding:
    late = f"A worker wakes {duration(load.lag_seconds)} late, so replies of Redis seem to take"
    return Finding(
        "processor",
        "The processor: the host has too little time for its programs.",
        (f"{late} {duration(load.redis_seconds)}; the busiest uses {share(load.cpu_share)} of one core.",),
        ("Look at the load of the host; move other programs, or workers, to another one.",),
    )


def _by_connections(snapshot: Snapshot, load: _Load, held_seconds: float) -> Finding:
    slots, each = load.slots, max(1, len(load.beats))
    most = slots / held_seconds
    arriving = max(0.0, _leaving(snapshot) + (snapshot.waiting_slope or 0.0))
    waiting = snapshot.queue.waiting if snapshot.queue else 0
    keep_up = math.ceil(arriving * held_seconds / BUSY_SHARE)
    catch_up = math.ceil((arriving + waiting / CATCH_UP_SECONDS) * held_seconds / BUSY_SHARE)
    wanted = math.ceil(max(keep_up, catch_up) / each)
    use = f"{count(slots)} slots are {share(load.slots_share)} busy; a mail holds one for {duration(held_seconds)}"
    names = _names_of_slots(load.beats, wanted)
    now = "Slots are connections times depth, and each consumer uses one connection; "
    now += f"now {count(slots // each)} in each of {_workers(load.beats)}."
    if wanted * each <= slots:
        emptied = duration(waiting / (most - arriving)) if most > arriving else UNKNOWN
        advice = (
            f"No setting needs to be raised: at this rate the queue is empty in {emptied}. Raising {names} is faster."
        )
    else:
        advice = f"Raise {names} until each worker has {count(wanted)} slots, if the relay allows it."
    return Finding(
        "connections",
        "The connections to the relay.",
        (
            f"{use}, so they can send at most {per_second(most)}/s. Incoming: {per_second(arriving)}/s.",
            f"To keep up: {count(keep_up)} slots. To empty {count(waiting)} in 10 minutes: {count(catch_up)}.",
        ),
        (advice, now),
    )


def _names_of_slots(beats: Sequence[Heartbeat], wanted: int) -> str:
    """Return the settings to raise for this number of slots in each worker: more connections need more consumers."""
    depth, connections = max(beat.depth for beat in beats), max(beat.max_connections for beat in beats)
    more = max(math.ceil(wanted / depth), connections + 1)
    has_consumers = min(beat.number_workers for beat in beats) >= more
    names = "smtp.pool.max_size" if has_consumers else "smtp.pool.max_size and number_workers"
    return names if depth == 1 else f"{names}, or smtp.pool.pipeline_depth,"


def _by_suspension(snapshot: Snapshot, suspended: Suspended, load: _Load) -> Finding:
    """Return the finding if the remaining connections are busy and others are suspended."""
    left, depth = sum(beat.connections_left for beat in load.beats), max(beat.depth for beat in load.beats)
    match suspended.how:
        case FailureKind.LOGIN:
            advice = "Write the right password to smtp.password_file: it is tried within two seconds."
        case FailureKind.LOCAL:
            advice = "Raise the limit of open files of the process (ulimit -n, LimitNOFILE)."
        case FailureKind.CONCURRENCY:
            advice = "Set smtp.pool.max_size to what the relay allows, or ask its operator for more connections."
        case FailureKind.CLOSING | FailureKind.EOF | FailureKind.RESET | FailureKind.CONNECT | FailureKind.GREETING:
            advice = "The relay may limit connections: ask its operator for more, or raise "
            advice += f"smtp.pool.pipeline_depth (now {depth}) to send more mails over each."
        case _:
            advice = "Check each step of a connection: trio-worker smtp check"
    reasons = [f"{suspended_words(suspended, snapshot.max_connections, snapshot.at)}."]
    if load.held_seconds is not None and load.slots:
        use = f"{counted(left, 'is', 'are')} left, with {counted(load.slots, 'slot')}"
        most = per_second(load.slots / load.held_seconds)
        reasons.append(f"{use}; a mail holds one for {duration(load.held_seconds)}, so they can send at most {most}/s.")
    return Finding("connections", "The number of connections that the relay accepts.", tuple(reasons), (advice,))


def _by_consumers(load: _Load) -> Finding:
    """Return the finding if consumers are busy and connections are idle."""
    beats = [beat for beat in load.beats if beat.busy_consumers is not None] or load.beats
    number, consumers = min(beat.number_workers for beat in beats), sum(beat.number_workers for beat in beats)
    wanted = connections = max(beat.max_connections for beat in beats)
    why = f"{count(consumers)} consumers of {_workers(beats)} are {share(load.consumers_share)} busy"
    if load.lacks_consumers:
        left = count(sum(beat.connections_left for beat in beats))
        why += f"; each sends over one connection, and there are {left}."
    else:
        why += ", and connections are not."
        wanted = max(connections, math.ceil(1.5 * number))
    advice = f"Raise number_workers (now {count(number)} in each) to {count(wanted)}."
    return Finding("consumers", "The number of consumers.", (why,), (advice,))


def _workers(beats: Sequence[Heartbeat]) -> str:
    return counted(len(beats), "worker")
