"""Measure costs that must not grow: a claim beside a million jobs, memory over many mails, an idle worker."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from redis import Redis

from ground import Contender, Ground, free_port, open_sink
from proving_ground import Valkey, job_of
from trio_worker.queue.keys import keys_of
from trio_worker.redis.scripts import read_scripts
from usage import cpu_seconds, rss_mb

FEW, MANY, MANY_DELAYED = 1_000, 1_000_000, 100_000
BATCH, ROUNDS = 50, 200
FILLED_AT_ONCE = 10_000
KEYS = keys_of("jobs")
SCRIPTS = read_scripts()
_FAR_FUTURE_MS = 4_000_000_000_000


@contextmanager
def open_valkey(folder: Path) -> Iterator[Valkey]:
    valkey = Valkey(folder, free_port())
    valkey.start()
    try:
        yield valkey
    finally:
        valkey.kill()


def fill(client: Redis, waiting: int, delayed: int) -> None:
    """Push jobs to the list, and add delayed ones that are not due yet."""
    for start in range(0, waiting, FILLED_AT_ONCE):
        client.rpush("jobs", *(job_of(number) for number in range(start, min(start + FILLED_AT_ONCE, waiting))))
    for start in range(0, delayed, FILLED_AT_ONCE):
        ids = [f"d{number:019}" for number in range(start, min(start + FILLED_AT_ONCE, delayed))]
        pipe = client.pipeline(transaction=False)
        pipe.zadd(KEYS.delayed, {job_id: _FAR_FUTURE_MS + place for place, job_id in enumerate(ids)})
        pipe.hset(KEYS.body, mapping={job_id: job_of(0) for job_id in ids})
        pipe.hset(KEYS.lease, mapping=dict.fromkeys(ids, "t|0|settled"))
        pipe.execute()


def claim_and_settle(client: Redis, number: int) -> float:
    """Claim a batch and settle it as sent; return the milliseconds that both calls took."""
    token = f"costs.{number}"
    began = time.perf_counter()
    words = (token, 60_000, BATCH, 5, 1_048_576, f"c{number:015}", 0, 1)
    answer = client.evalsha(SCRIPTS["claim"].digest, len(KEYS.of_jobs), *KEYS.of_jobs, *words)
    settled = [word for job in answer[2] for word in (job[0], f"{token}|done|0|0|")]
    client.evalsha(SCRIPTS["settle"].digest, len(KEYS.of_jobs), *KEYS.of_jobs, *settled)
    seconds = time.perf_counter() - began
    if len(answer[2]) != BATCH:
        raise SystemExit("the list ran dry")
    client.rpush("jobs", *(job_of(place) for place in range(BATCH)))
    return 1000 * seconds


def measure_length(folder: Path) -> dict[str, float]:
    """Compare in turn a queue of a thousand jobs with one of a million and a hundred thousand delayed ones."""
    took: dict[str, list[float]] = {"few": [], "many": []}
    with ExitStack() as stack:
        clients = {}
        for name, waiting, delayed in (("few", FEW, 0), ("many", MANY, MANY_DELAYED)):
            valkey = stack.enter_context(open_valkey(folder / name))
            clients[name] = stack.enter_context(valkey.client())
            fill(clients[name], waiting, delayed)
            for script in SCRIPTS.values():
                clients[name].script_load(script.text)
        for number in range(ROUNDS):
            for name, client in clients.items():
                took[name].append(claim_and_settle(client, number))
    few, many = (statistics.median(took[name]) for name in ("few", "many"))
    return {"few_ms": few, "many_ms": many, "ratio": many / few}


def measure_memory(folder: Path, jobs: int) -> dict[str, Any]:
    """Send mails with one worker and a short list; return its memory after each tenth of them."""
    seen: list[float] = []
    with open_valkey(folder / "memory") as valkey, open_sink(0.0, None) as sink, valkey.client() as client:
        ground = Ground(folder, valkey, None)
        sink.ask(f"clear {jobs}")
        began = time.monotonic()
        process = ground.start_trio_worker(Contender("trio_worker", depth=8), sink, is_burst=False)
        pushed = sent = 0
        while sent < jobs:
            if pushed < jobs and client.llen("jobs") < FILLED_AT_ONCE:
                count = min(FILLED_AT_ONCE, jobs - pushed)
                client.rpush("jobs", *(job_of(number) for number in range(pushed, pushed + count)))
                pushed += count
            time.sleep(0.1)
            sent = int(client.hget("{jobs}:totals", "done") or 0)
            if sent >= (len(seen) + 1) * jobs / 10:
                seen.append(rss_mb(process.pid))
        seconds = time.monotonic() - began
        process.terminate()
        process.wait()
    return {"jobs": jobs, "rss_mb": [round(each, 1) for each in seen], "mails_per_second": jobs / seconds}


def measure_idle(folder: Path, seconds: float) -> dict[str, float]:
    """Run a worker with an empty queue; return its share of a core and the number of its commands."""
    with open_valkey(folder / "idle") as valkey, open_sink(0.0, None) as sink, valkey.client() as client:
        ground = Ground(folder, valkey, None)
        process = ground.start_trio_worker(Contender("trio_worker", depth=1), sink, is_burst=False)
        time.sleep(5)
        before, cpu_before = commands(client), cpu_seconds(process.pid)
        time.sleep(seconds)
        cpu_share = (cpu_seconds(process.pid) - cpu_before) / seconds
        sent = {name: count - before.get(name, 0) for name, count in commands(client).items()}
        process.terminate()
        process.wait()
    a_minute = {name: 60 * count / seconds for name, count in sent.items() if count and name in {"evalsha", "blmove"}}
    return {"cpu_share": cpu_share, **a_minute}


def commands(client: Redis) -> dict[str, int]:
    stats = client.info("commandstats")
    return {name.removeprefix("cmdstat_"): int(each["calls"]) for name, each in stats.items()}


def main() -> int:
    parser = argparse.ArgumentParser(prog="tools/costs", description=__doc__)
    parser.add_argument("--jobs", type=int, default=50_000, help="mails of the run that watches memory (50000)")
    parser.add_argument("--idle-seconds", type=float, default=60.0)
    parser.add_argument("--only", nargs="*", choices=("length", "memory", "idle"), default=["length", "memory", "idle"])
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="costs-") as name:
        folder = Path(name)
        if "length" in options.only:
            found["length"] = measure_length(folder)
        if "memory" in options.only:
            found["memory"] = measure_memory(folder, options.jobs)
        if "idle" in options.only:
            found["idle"] = measure_idle(folder, options.idle_seconds)
    if options.json:
        print(json.dumps(found, indent=2))
        return 0
    if length := found.get("length"):
        print(f"claim and settle of {BATCH}, {FEW:,} jobs waiting: {length['few_ms']:.2f} ms")
        print(f"the same, {MANY:,} waiting and {MANY_DELAYED:,} delayed: {length['many_ms']:.2f} ms")
        print(f"ratio of the medians, {ROUNDS} of each in turn: {length['ratio']:.2f}")
    if memory := found.get("memory"):
        tenths = ", ".join(f"{each:.0f}" for each in memory["rss_mb"])
        print(f"memory at each tenth of {memory['jobs']:,} mails ({memory['mails_per_second']:,.0f}/s), MB: {tenths}")
    if idle := found.get("idle"):
        calls = f"{idle.get('blmove', 0):.0f} waits and {idle.get('evalsha', 0):.0f} scripts a minute"
        print(f"idle: {100 * idle['cpu_share']:.2f} % of a core, {calls}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
