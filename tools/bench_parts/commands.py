"""Measure how long commands take, and a worker to its first claim, beside another version: in turn, with one Valkey."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from statistics import median

from attrs import evolve

from against import Figure, Pair, figure
from ground import Contender, Ground, Sink, open_sink
from proving_ground import job_of
from runs import in_turn
from versions import HERE, Version

# Dead letters, made of elements that are no JSON; a page of `dead list` has twenty.
DEAD = 30
# ID stands for the id of a dead letter.
COMMANDS = (
    "status --json",
    "dead list",
    "dead groups",
    "queue list",
    "worker list",
    "job show ID",
    "why",
    "schema",
    "config check",
    "config explain smtp.host",
)
_WORKER = Contender("trio_worker", depth=1)


def compare_commands(ground: Ground, other: Version, rounds: int) -> list[Figure]:
    """Run every command of both versions once in each round, while a worker of this one runs; then the first claims."""
    with open_sink(0.0, ground.tls) as sink:
        for version in (HERE, other):
            ground.write_config(evolve(_WORKER, version=version), sink.port)
        worker = ground.start_trio_worker(_WORKER, sink, is_burst=False)
        try:
            job_id = _bury(ground)
            figures = [_figure_of(ground, other, words, job_id, rounds) for words in COMMANDS]
        finally:
            worker.terminate()
            worker.wait()
        return [*figures, _first_claims(ground, other, sink, rounds)]


def _bury(ground: Ground) -> str:
    """Let the worker make dead letters; return the id of one."""
    with ground.valkey.client() as client:
        client.rpush("jobs", *["{"] * DEAD)
        while client.zcard("{jobs}:dead") < DEAD:
            time.sleep(0.05)
        found: bytes = client.zrange("{jobs}:dead", 0, 0)[0]
    return found.decode()


def _figure_of(ground: Ground, other: Version, command: str, job_id: str, rounds: int) -> Figure:
    words = [job_id if word == "ID" else word for word in command.split()]
    take = partial(_seconds, ground, words)
    for version in (HERE, other):
        take(version)  # compiles its code
    pairs: list[Pair] = []
    for number in range(rounds):
        took = {version.name: 1000 * take(version) for version in in_turn((HERE, other), number)}
        pairs.append(([took[HERE.name]], [took[other.name]]))
    print(f"  {command}: {median(each[0][0] for each in pairs):.0f} ms", file=sys.stderr, flush=True)
    return figure(f"{command}, ms", ".0f", pairs, median)


def _seconds(ground: Ground, words: Sequence[str], version: Version) -> float:
    config = ground.config_of(version)
    more = [] if words[:2] == ["config", "explain"] else ["--config", str(config)]
    command = [str(version.python), "-m", "trio_worker", *words, *more]
    began = time.perf_counter()
    done = subprocess.run(
        command, cwd=config.parent, env=version.environment, check=False, capture_output=True, text=True
    )
    seconds = time.perf_counter() - began
    if done.returncode:
        raise SystemExit(f"{' '.join(words)} of {version.name} ended with {done.returncode}: {done.stderr}")
    return seconds


def _first_claims(ground: Ground, other: Version, sink: Sink, rounds: int) -> Figure:
    pairs: list[Pair] = []
    for number in range(rounds):
        took = {}
        for version in in_turn((HERE, other), number):
            took[version.name] = 1000 * first_claim_seconds(ground, evolve(_WORKER, version=version), sink)
        pairs.append(([took[HERE.name]], [took[other.name]]))
    return figure("run, to its first claim, ms", ".0f", pairs, median)


def first_claim_seconds(ground: Ground, contender: Contender, sink: Sink) -> float:
    """Return the seconds from the start of a worker's process to its first claim; a job waits already."""
    with ground.valkey.client() as client:
        client.flushall()
        client.rpush("jobs", job_of(0))
        began = time.time()
        process = ground.start_trio_worker(contender, sink)
        while not client.hexists("{jobs}:totals", "popped"):
            time.sleep(0.001)
        seconds = time.time() - began
        process.wait()
    return seconds
