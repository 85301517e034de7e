"""Measure trio_worker beside other ways to send mail: one sink, one Valkey, interleaved runs, medians and ratios."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from attrs import asdict, frozen

from against import Comparison, compare, notes_on
from commands import compare_commands, first_claim_seconds
from faces import command_seconds
from ground import (
    CONNECTIONS,
    OTHERS,
    Contender,
    Ground,
    free_port,
    open_sink,
    prepare_node,
    prepare_other,
    write_certificates,
)
from plotting import plot
from proving_ground import Valkey, job_of  # importable now
from runs import Run, measure, measure_idle, measure_sink
from trio_worker.telemetry.quantiles import Histogram
from usage import IS_KNOWN
from versions import HERE, build, describe, other_packages

# Mails in flight on a connection of a deep trio_worker; and for a relay so far away that ten connections of
# this depth can carry at most 6,400 mails a second.
DEEP, DEEPER = 64, 128
FAR_MS = 100.0


@frozen
class GuideLine:
    """One of the four figures of the guide, before and after."""

    reason: str
    before: str
    after: str


def measure_start(ground: Ground, rounds: int = 5) -> float:
    """Return the median seconds from the start of the process to its first claim; a job waits already."""
    contender = Contender("trio_worker", depth=1, has_metrics=False)
    with open_sink(0.0, ground.tls) as sink:
        return statistics.median(first_claim_seconds(ground, contender, sink) for _ in range(rounds))


def measure_starts(ground: Ground) -> dict[str, float]:
    """Return how many seconds commands take while a worker runs."""
    with open_sink(0.0, ground.tls) as sink:
        process = ground.start_trio_worker(Contender("trio_worker", depth=1), sink, is_burst=False)
        config = ["--config", str(ground.config_of(HERE))]
        health = ["-m", "trio_worker", "health", "ready", "--wait", "30s", *config]
        command_seconds(health, HERE.environment, rounds=1)
        found = {
            "python -c pass": command_seconds(["-c", "pass"], HERE.environment),
            "health ready": command_seconds(health, HERE.environment),
            "status --json": command_seconds(["-m", "trio_worker", "status", "--json", *config], HERE.environment),
            "dead list": command_seconds(["-m", "trio_worker", "dead", "list", "--json", *config], HERE.environment),
        }
        process.terminate()
        process.wait()
    return found


def measure_guide(ground: Ground, runs: dict[str, Run], mails: int) -> list[GuideLine]:
    """Return the four figures of the guide of a worker that opens a connection for each mail, before and after.

    After: trio_worker at half of its maximum rate, from its heartbeat. Before: the cost of a connection for each mail,
    and the share of busy tasks, follow from the rate, because that worker is always busy while jobs wait.
    """
    before = runs["per-mail connection"]
    rate = runs["trio_worker depth 1"].rate / 2
    with open_sink(20.0, ground.tls) as sink, ground.valkey.client() as client:
        client.flushall()
        sink.ask(f"clear {mails}")
        process = ground.start_trio_worker(Contender("trio_worker", depth=1), sink, is_burst=False)
        began = time.time()
        for number in range(mails):
            client.rpush("jobs", job_of(number))
            time.sleep(max(0.0, began + (number + 1) / rate - time.time()))
        while sink.ask("report")["mails"] < mails:
            time.sleep(0.1)
        time.sleep(2 * 2.0)  # two heartbeats: the last one has all jobs
        (told,) = (json.loads(beat) for beat in client.hvals("{jobs}:heartbeats"))
        process.terminate()
        process.wait()
    sent = told["settled"]["sent"]
    busy = CONNECTIONS / before.rate  # seconds that a connection of the per-mail worker is open for one mail
    return [
        GuideLine("throughput, mails a minute", f"{60 * before.rate:,.0f}", f"{60 * 2 * rate:,.0f}"),
        GuideLine(
            "connection time for each mail", f"{1000 * busy:,.0f} ms", f"{1000 * told['opening_seconds'] / sent:.1f} ms"
        ),
        GuideLine(
            "idle share of the workers",
            "0 %",
            f"{100 * (told['idle_share'] or 0.0):.0f} %",
        ),
        GuideLine("p95 from push to 250", "grows while jobs wait", f"{1000 * _p95(told['latency']):,.0f} ms"),
    ]


def _p95(histogram: dict[str, Any]) -> float:
    counts = {int(bucket): count for bucket, count in histogram["counts"].items()}
    return Histogram(counts, histogram["most_seconds"]).quantiles().p95 or 0.0


def contenders_for(
    options: argparse.Namespace, node: Path | None, others: Iterable[str], round_trip_ms: float
) -> list[Contender]:
    # Contenders that wait a round trip for each command get fewer mails; this does not change their rates.
    few = 1.0 if round_trip_ms == 0 else 0.05
    deep = DEEPER if round_trip_ms >= FAR_MS else DEEP
    found = [
        Contender("per-mail connection", share=few / 2),
        Contender("aiosmtplib pool", share=few),
        Contender("trio_worker depth 1", depth=1, share=min(1.0, 4 * few)),
        Contender("trio_worker deep", depth=deep, share=2.0),
    ]
    if node is not None:
        found.insert(2, Contender("BullMQ + nodemailer", share=few))
    found[3 if node else 2 : 3 if node else 2] = [Contender(name, share=few) for name in others]
    if options.processes == 2:
        found.append(Contender("trio_worker deep, 2 processes", depth=deep, share=2.0, processes=2))
    return [each for each in found if not options.only or any(word in each.name for word in options.only)]


def table(results: dict[str, Run]) -> str:
    pool = results.get("aiosmtplib pool")
    figures = f"{'CPU s/1000':>10} {'peak MB':>8} {'redis/mail':>10} {'conns':>6}"
    lines = [f"{'contender':<30} {'mails/s':>9} {'ratio':>6} {figures}"]
    for name, run in results.items():
        ratio = f"{run.rate / pool.rate:.1f}x" if pool else "-"
        figures = f"{run.cpu_seconds_per_1000:>10.3f} {run.peak_mb:>8.0f} {run.redis_commands_per_mail:>10.3f}"
        lines.append(f"{name:<30} {run.rate:>9,.0f} {ratio:>6} {figures} {run.connections:>6.0f}")
    return "\n".join(lines)


def markdown(results: dict[str, Run]) -> str:
    """Return the table for the docs, with ratios against both usual pools."""
    pool, bullmq = results.get("aiosmtplib pool"), results.get("BullMQ + nodemailer")
    lines = [
        "| contender | mails/s | against the pool | against BullMQ | CPU s for 1,000 | peak MB | Redis calls a mail |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, run in results.items():
        ratios = " | ".join(f"{run.rate / other.rate:.1f}" if other else "-" for other in (pool, bullmq))
        costs = f"{run.cpu_seconds_per_1000:.2f} | {run.peak_mb:.0f} | {run.redis_commands_per_mail:.2f}"
        lines.append(f"| {name} | {run.rate:,.0f} | {ratios} | {costs} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="tools/bench", description=__doc__)
    parser.add_argument("--mails", type=int, default=6000, help="mails of a run at full speed (6000)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--round-trips", type=float, nargs="*", default=[0.0, 20.0, 100.0], help="milliseconds")
    parser.add_argument("--tls", action="store_true", help="implicit TLS instead of plain")
    parser.add_argument("--processes", type=int, choices=(1, 2), default=1)
    parser.add_argument("--only", nargs="*", default=[], help="contenders whose names hold one of these words")
    parser.add_argument("--against", metavar="COMMIT", help="only trio_worker, beside that version of it, and ratios")
    parser.add_argument("--commands", action="store_true", help="with --against: only how long commands take to run")
    parser.add_argument("--idle", action="store_true", help="only the time from a push to the 250, on an idle worker")
    parser.add_argument("--pushes", type=int, default=500, help="to an idle worker, for --idle and --against (500)")
    parser.add_argument("--all", action="store_true", help=f"also {', '.join(OTHERS)}, each installed on first use")
    parser.add_argument("--guide", action="store_true", help="only the four figures of a per-mail worker's guide")
    parser.add_argument(
        "--start", action="store_true", help="only the time from the start to the first claim, and more"
    )
    parser.add_argument("--faces", action="store_true", help="only what metrics and the dashboard cost")
    parser.add_argument("--markdown", action="store_true", help="tables as docs/performance.md has them")
    parser.add_argument("--plot", type=Path, help="draw mails a second against the round trip (SVG)")
    parser.add_argument("--from", dest="kept", type=Path, help="draw and print what --json wrote; measure nothing")
    parser.add_argument("--json", type=Path, help="write all medians there")
    options = parser.parse_args()
    found: dict[str, dict[str, Any]] = {}
    if options.kept:
        _show(options, json.loads(options.kept.read_text("utf-8")))
        return 0
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        valkey = Valkey(folder / "valkey", free_port())
        valkey.start()
        stack.callback(valkey.kill)
        wants_node = not any(getattr(options, name) for name in _SPECIAL) and (
            not options.only or "BullMQ" in options.only
        )
        node = prepare_node() if wants_node else None
        ground = Ground(folder, valkey, node, write_certificates(folder) if options.tls else None)
        if options.all:
            pythons = {name: prepare_other(name) for name in OTHERS}
            ground.others = {name: python for name, python in pythons.items() if python is not None}
        special = next((look for name, look in _SPECIAL.items() if getattr(options, name)), None)
        if special is not None:
            special(ground, options)
            return 0
        print(f"the sink alone takes {measure_sink(ground.tls):,.0f} mails/s", flush=True)
        for round_trip_ms in options.round_trips:
            contenders = contenders_for(options, node, ground.others, round_trip_ms)
            results = measure(ground, contenders, options.mails, options.rounds, round_trip_ms)
            print(f"\nround trip {round_trip_ms:g} ms, {'TLS' if options.tls else 'plain'}, {CONNECTIONS} connections")
            print((markdown if options.markdown else table)(results), flush=True)
            found[f"{round_trip_ms:g}"] = {name: asdict(run) for name, run in results.items()}
    if options.json:
        options.json.write_text(json.dumps(found, indent=2), encoding="utf-8")
    if options.plot:
        options.plot.write_text(plot(found), encoding="utf-8")
    return 0


def _print_starts(ground: Ground, _options: argparse.Namespace) -> None:
    print(f"run, to its first claim: {measure_start(ground):.2f} s, median of 5")
    for words, seconds in measure_starts(ground).items():
        print(f"{words}: {1000 * seconds:.0f} ms, median of 9")


def _print_faces(ground: Ground, options: argparse.Namespace) -> None:
    watched = [
        Contender("no metrics", depth=DEEP, has_metrics=False),
        Contender("metrics", depth=DEEP),
        Contender("metrics and dashboard", depth=DEEP, has_screen=True),
    ]
    for name, run in measure(ground, watched, options.mails, options.rounds, 0.0).items():
        print(f"| {name} | {run.cpu_seconds_per_1000:.3f} | {run.peak_mb:.0f} |")


def _print_guide(ground: Ground, options: argparse.Namespace) -> None:
    named = [Contender("per-mail connection"), Contender("trio_worker depth 1", depth=1)]
    runs = measure(ground, named, max(400, options.mails // 10), options.rounds, 20.0)
    for line in measure_guide(ground, runs, 2000):
        print(f"| {line.reason} | {line.before} | {line.after} |")


def _print_idle(ground: Ground, options: argparse.Namespace) -> None:
    idle = measure_idle(ground, options.pushes)
    print(f"idle, push to 250: p50 {idle['p50_ms']:.1f} ms, p99 {idle['p99_ms']:.1f} ms")


def _print_comparison(ground: Ground, options: argparse.Namespace) -> None:
    if not IS_KNOWN:
        raise SystemExit("--against reads CPU seconds and memory from /proc, which is not here")
    other = build(options.against)
    notes = [f"another package there: {each}" for each in other_packages(other)]
    if options.commands:
        figures = compare_commands(ground, other, options.rounds)
        _show_comparison(Comparison(describe(), other.name, notes, figures), options)
        return
    plan = {at: _both_depths(options, at) for at in options.round_trips}
    notes = [*notes, *notes_on(plan, other)]
    print(f"the sink alone takes {measure_sink(ground.tls):,.0f} mails/s", *notes, sep="\n", flush=True)
    pushes = options.pushes if not options.only or "idle" in options.only else 0
    figures = compare(ground, other, plan, options.mails, options.rounds, pushes)
    _show_comparison(Comparison(describe(), other.name, notes, figures), options)


def _show_comparison(comparison: Comparison, options: argparse.Namespace) -> None:
    print(f"\n{'TLS' if options.tls else 'plain'}, medians of {options.rounds} rounds")
    print(comparison.table(is_markdown=options.markdown))
    if options.json:
        options.json.write_text(json.dumps(asdict(comparison), indent=2), encoding="utf-8")


def _both_depths(options: argparse.Namespace, round_trip_ms: float) -> list[Contender]:
    """Return the depths of trio_worker at this round trip; far away, depth 1 would only measure the round trip."""
    named = contenders_for(options, None, (), round_trip_ms)
    return [each for each in named if each.depth > 1 or (each.depth == 1 and round_trip_ms < FAR_MS)]


# Measurements that run alone, by their option.
_SPECIAL = {
    "against": _print_comparison,
    "start": _print_starts,
    "faces": _print_faces,
    "guide": _print_guide,
    "idle": _print_idle,
}


def _show(options: argparse.Namespace, found: dict[str, dict[str, Any]]) -> None:
    if "figures" in found:
        print(Comparison.from_json(found).table(is_markdown=options.markdown))
        return
    for round_trip_ms, runs in found.items():
        print(f"\nround trip {round_trip_ms} ms")
        results = {name: Run(**run) for name, run in runs.items()}
        print((markdown if options.markdown else table)(results))
    if options.plot:
        options.plot.write_text(plot(found), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
