"""Pure. The keys of a queue in Redis.

``jobs`` stands for the name of the producers' list. All keys share one hash slot, so one script may use them all:

==================  ======  ==============================  ===============================  ==========================
key                 type    written by                      read by                          expires
==================  ======  ==============================  ===============================  ==========================
jobs                list    producers; claim, wake          wait, claim, inspect             never
{jobs}:leased       zset    claim, renew, settle            claim, renew, inspect            never; score: lease's end
{jobs}:delayed      zset    claim, settle, revive, cancel,  claim, inspect                   never; score: due time
                            amend
{jobs}:held         zset    claim, settle, revive, drop     inspect, held                    never; score: time of hold
{jobs}:dead         zset    claim, settle, revive, drop,    inspect, dead                    never; score: time of death
                            cancel, amend
{jobs}:body         hash    claim, settle, drop, cancel,    claim, dead, held                with the job, when done
                            amend
{jobs}:record       hash    settle, revive, drop, cancel,   claim, dead, held                with the job, when done
                            amend
{jobs}:lease        hash    claim, renew, settle, revive,   claim, renew, settle, dead       with the job, when done
                            drop, cancel, amend
{jobs}:pause        string  pause                           claim, inspect                   with the pause
{jobs}:totals       hash    claim, settle, renew, purge,    claim, renew, inspect, beat      never
                            revive, drop, cancel, recall,
                            amend, beat, pause, count,
                            lost
{jobs}:history      stream  settle                          job find                         history.days after the last
{jobs}:workers      zset    beat                            overview, order                  never; score: last beat
{jobs}:heartbeats   hash    beat                            overview                         with the worker's name
{jobs}:orders       hash    order, beat                     beat                             when received
{jobs}:minutes      hash    beat                            overview                         never; two ring buffers
{jobs}:watch        string  watch (top, tail)               beat, tell                       10 s after the last poll
{jobs}:latest       stream  tell                            top, tail                        10 min after the last one
{jobs}:undo         hash    dead retry, held retry          the same with --undo             24 h after the last retry
{jobs}:answers      hash    answer, hear                    sender of an order (hear)        when read, or after 60 s
{jobs}:losses       hash    lost                            lost, overview                   24 h after the last loss
==================  ======  ==============================  ===============================  ==========================

A script's trial (trial.lua) uses ``{jobs}:trial``, which is gone when it ends.

A job id is in exactly one of the four sorted sets, and as long as it is, the job's bytes are in ``body``. Scores are
milliseconds of Redis' clock.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple


class Keys(NamedTuple):
    """The keys of one queue: a field for each row of the table above, in the order of the scripts' KEYS."""

    jobs: str
    leased: str
    delayed: str
    held: str
    dead: str
    body: str
    record: str
    lease: str
    pause: str
    totals: str
    history: str
    workers: str
    heartbeats: str
    orders: str
    minutes: str
    watch: str
    latest: str
    undo: str
    answers: str
    losses: str

    @property
    def of_jobs(self) -> tuple[str, ...]:
        """The keys from ``jobs`` to ``history``, for scripts that only move jobs."""
        return self[:_OF_JOBS]

    @property
    def of_trial(self) -> str:
        """The key of trials, which holds nothing between two calls."""
        return self.leased.removesuffix("leased") + "trial"

    def of_state(self, state: str) -> str:
        """Return the key of the jobs that are leased, delayed, held or dead."""
        return {"leased": self.leased, "delayed": self.delayed, "held": self.held, "dead": self.dead}[state]


_OF_JOBS = Keys._fields.index("history") + 1


@lru_cache(64)
def keys_of(name: str) -> Keys:
    """Return the keys of the queue of this name."""
    return Keys(name, *(f"{{{name}}}:{field}" for field in Keys._fields[1:]))
