"""Pure. The keys of a queue in Redis.

Every key, with the name of the producer's list for ``jobs``; all share one hash slot, so one script may touch them all:

==================  ======  ==============================  ===============================  ==========================
key                 type    written by                      read by                          expires
==================  ======  ==============================  ===============================  ==========================
jobs                list    producers; claim                wait, claim, inspect             never
{jobs}:leased       zset    claim, renew, settle            claim, renew, inspect            never; score: lease's end
{jobs}:delayed      zset    claim, settle, revive, cancel   claim, inspect                   never; score: due time
{jobs}:held         zset    claim, settle, revive, drop     inspect, held                    never; score: time of hold
{jobs}:dead         zset    claim, settle, revive, drop,    inspect, dead                    never; score: time of death
                            cancel
{jobs}:body         hash    claim, settle, drop, cancel     claim, dead, held                with the job, when done
{jobs}:record       hash    settle, revive, drop, cancel    claim, dead, held                with the job, when done
{jobs}:lease        hash    claim, renew, settle, revive,   claim, renew, settle, dead       with the job, when done
                            drop, cancel
{jobs}:pause        string  queue pause                     claim, inspect                   with the pause
{jobs}:totals       hash    claim, settle, purge, revive,   claim, inspect, beat             never
                            drop, cancel, recall, beat,
                            acts of people
{jobs}:workers      zset    beat                            overview, order                  never; score: last beat
{jobs}:heartbeats   hash    beat                            overview                         with the worker's name
{jobs}:orders       hash    order, beat                     beat                             when heard
{jobs}:minutes      hash    beat                            overview                         never; two rings
{jobs}:watch        string  top, tail                       beat, tell                       10 s after the last look
{jobs}:latest       stream  tell                            top, tail                        10 min after the last one
{jobs}:undo         hash    dead retry, held retry          the same with --undo             24 h after the last retry
{jobs}:answers      hash    answer, hear                    who gave an order (hear)         when read, or after 60 s
==================  ======  ==============================  ===============================  ==========================

An id is in exactly one of the four sorted sets; its original bytes are in ``body`` for just as long. Scores are
milliseconds of Redis' clock.
"""

from __future__ import annotations

from functools import lru_cache


@lru_cache(64)
def queue_keys(name: str) -> tuple[str, ...]:
    """Return the keys of a queue, in the order of the table above and of every script."""
    own = ("leased", "delayed", "held", "dead", "body", "record", "lease", "pause", "totals")
    return (name, *(f"{{{name}}}:{suffix}" for suffix in own))


@lru_cache(64)
def fleet_keys(name: str) -> tuple[str, ...]:
    """Return all keys of a queue: those of its jobs, and those by which workers and watchers know of each other."""
    more = ("workers", "heartbeats", "orders", "minutes", "watch", "latest", "undo", "answers")
    return (*queue_keys(name), *(f"{{{name}}}:{suffix}" for suffix in more))
