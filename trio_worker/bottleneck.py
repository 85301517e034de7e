"""Pure. What limits throughput now, and which setting to change: Little's law over the figures on the screen.

L = lambda * W: mails in flight are the mails sent per second times the seconds that each is in flight. So a number of
slots can send at most slots / seconds mails in a second, and a rate needs rate * seconds slots.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from attrs import frozen

from trio_worker.heartbeat import Heartbeat
from trio_worker.snapshot import Snapshot
from trio_worker.window import added
from trio_worker.wording import UNKNOWN, count, counted, duration, paused_words, per_second, share

# A part of a whole that is in use like this has no room for bursts: arrivals queue before it is full.
BUSY_SHARE = 0.85
# One process has one core; beyond this its loop is late for everything.
CPU_SHARE = 0.85
# A round trip to Redis this long is felt by claims, which travel at most a few at a time.
SLOW_REDIS_SECONDS = 0.05
# What a backlog should be worked off in, where somebody asks what that would take.
CATCH_UP_SECONDS = 600


@frozen
class Finding:
    """What limits, why, what to do about it, and what was looked at and is not the limit."""

    limit: str  # one word for machines
    headline: str
    reasons: tuple[str, ...] = ()
    advice: tuple[str, ...] = ()
    not_the_limit: tuple[str, ...] = ()


def find_bottleneck(snapshot: Snapshot) -> Finding:
    """Return what limits the workers of a snapshot of all of them."""
    beats = [worker.beat for worker in snapshot.workers if not worker.is_lost]
    stopped = _standstill(snapshot, beats)
    if stopped is not None:
        return stopped
    if not snapshot.queue or not snapshot.queue.waiting + snapshot.queue.due:
        reasons = (f"The hands of {_workers(beats)} are idle for {share(snapshot.idle_share)} of the time.",)
        return Finding("nothing", "Nothing: no job waits and none is due.", reasons)
    return _capacity(snapshot, beats)


def _standstill(snapshot: Snapshot, beats: Sequence[Heartbeat]) -> Finding | None:
    """Return why nothing is claimed at all, if that is so."""
    queue = snapshot.queue
    if queue is None:
        return Finding("redis", "Redis: the queue was never seen.", (snapshot.redis_trouble,))
    if not beats:
        lost = len(snapshot.workers)
        reasons = (f"{lost:,} sent no heartbeat for a while.",) if lost else ()
        return Finding("workers", "No worker runs.", reasons, ("Start one: trio-worker run",))
    if queue.paused:
        why = paused_words(queue.paused, snapshot.at - (snapshot.queue_seen_seconds or 0.0), queue.pause_seconds_left)
        return Finding("paused", f"The queue is paused: {why}", (), ("Resume it: trio-worker queue resume",))
    if all(beat.is_quiet for beat in beats):
        advice = ("Have them claim again: trio-worker worker resume --all",)
        return Finding("quiet", f"All of {_workers(beats)} are quiet.", (), advice)
    troubled = [beat for beat in beats if beat.trouble]
    if len(troubled) == len(beats):
        advice = ("Look at each step of a connection: trio-worker smtp check",)
        return Finding("relay", f"The relay {troubled[0].trouble}.", ("All workers have stopped claiming.",), advice)
    return None


def _capacity(snapshot: Snapshot, beats: Sequence[Heartbeat]) -> Finding:
    """Return which part of the workers has no room left."""
    sending = [beat for beat in beats if not (beat.trouble or beat.is_quiet)]
    slots = sum(beat.max_connections * beat.depth for beat in sending)
    held_seconds = added(beat.smtp for beat in sending).mean_seconds()
    sent = snapshot.rates.sent + snapshot.rates.delayed + snapshot.rates.dead
    slots_share = None if held_seconds is None or not slots else min(1.0, sent * held_seconds / slots)
    hands_share = None if snapshot.idle_share is None else 1 - snapshot.idle_share
    cpu_share = max((beat.vitals.cpu_share or 0.0 for beat in sending), default=None)
    redis_seconds = max((beat.vitals.redis_seconds or 0.0 for beat in sending), default=None)
    looked_at = {
        "processor": f"processor {share(cpu_share)} of one core",
        "connections": f"connections {share(slots_share)}",
        "hands": f"hands {share(hands_share)}",
        "redis": f"Redis {duration(redis_seconds)}",
    }
    if cpu_share is not None and cpu_share >= CPU_SHARE:
        finding = _by_processor(sending, cpu_share)
    elif slots_share is not None and held_seconds is not None and slots_share >= BUSY_SHARE:
        finding = _by_connections(snapshot, sending, held_seconds, slots_share)
    elif hands_share is not None and hands_share >= BUSY_SHARE:
        finding = _by_hands(sending, slots, hands_share)
    elif redis_seconds is not None and redis_seconds >= SLOW_REDIS_SECONDS:
        words = f"Redis: its round trip takes {duration(redis_seconds)}."
        finding = Finding("redis", words, (), ("Bring the workers nearer to Redis, or run more of them.",))
    else:
        words = "Nothing is at its limit: what waits is being worked off, or has just come."
        finding = Finding("nothing", words)
    others = tuple(words for name, words in looked_at.items() if name != finding.limit)
    return Finding(finding.limit, finding.headline, finding.reasons, finding.advice, others)


def _by_processor(beats: Sequence[Heartbeat], cpu_share: float) -> Finding:
    return Finding(
        "processor",
        "The processor: a worker is one process on one core.",
        (f"The busiest of {_workers(beats)} uses {share(cpu_share)} of its core.",),
        ("Run another worker on the same queue: they share it without knowing of each other.",),
    )


def _by_connections(snapshot: Snapshot, beats: Sequence[Heartbeat], held_seconds: float, slots_share: float) -> Finding:
    slots = sum(beat.max_connections * beat.depth for beat in beats)
    most = slots / held_seconds
    rates = snapshot.rates
    # What is tried again takes a slot each time, as what comes anew does.
    arriving = max(0.0, rates.sent + rates.delayed + rates.dead + (snapshot.waiting_slope or 0.0))
    waiting = snapshot.queue.waiting if snapshot.queue else 0
    keep_up = math.ceil(arriving * held_seconds / BUSY_SHARE)
    catch_up = math.ceil((arriving + waiting / CATCH_UP_SECONDS) * held_seconds / BUSY_SHARE)
    each = max(1, len(beats))
    wanted = math.ceil(max(keep_up, catch_up) / each)
    depth = max(beat.depth for beat in beats)
    use = f"{count(slots)} slots are {share(slots_share)} busy; a mail holds one for {duration(held_seconds)}"
    names = "smtp.pool.max_size" if depth == 1 else "smtp.pool.max_size or smtp.pool.pipeline_depth"
    now = f"Slots are connections times depth; now {count(slots // each)} in each of {_workers(beats)}."
    if wanted * each <= slots:
        emptied = duration(waiting / (most - arriving)) if most > arriving else UNKNOWN
        advice = f"Nothing need be raised for that: at this rate it is empty in {emptied}. More {names} is faster."
    else:
        advice = f"Raise {names} until each worker has {count(wanted)} slots, if the relay bears it."
    return Finding(
        "connections",
        "The connections to the relay.",
        (
            f"{use}, so they can send at most {per_second(most)}/s. In is {per_second(arriving)}/s.",
            f"To keep up: {count(keep_up)} slots. To empty {count(waiting)} in 10 minutes: {count(catch_up)}.",
        ),
        (advice, now),
    )


def _by_hands(beats: Sequence[Heartbeat], slots: int, hands_share: float) -> Finding:
    hands, each = sum(beat.number_workers for beat in beats), max(1, len(beats))
    wanted = max(2 * slots, math.ceil(hands * 1.5))
    return Finding(
        "hands",
        "The number of jobs at work at once.",
        (f"{count(hands)} hands of {_workers(beats)} are {share(hands_share)} busy, and connections are not.",),
        (f"Raise number_workers (now {count(hands // each)} in each) to {count(math.ceil(wanted / each))}.",),
    )


def _workers(beats: Sequence[Heartbeat]) -> str:
    return counted(len(beats), "worker")
