"""Compare two versions of trio_worker: the same runs in turn, with one sink and one Valkey, and their ratios.

CPU seconds are from /proc: what the processes used between the first and the last tenth of a run's mails. The sink
reads them with the mail at each bound. Subtracting a run of a single mail would be less exact: it subtracts the start
of another process, measured in another minute of the machine, and charges all mails for costs of the first one.
"""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from attrs import evolve, frozen

from ground import CONNECTIONS, Contender, Ground, open_sink, workers_of
from runs import Run, idle_waits, in_turn, quantile, run_once, run_rounds
from versions import Version

# The results of a round: of this version, and of the other one.
Pair = tuple[list[float], list[float]]
Runs = tuple[list[Run], list[Run]]
# Jobs of a first run of each version, which compiles its code and fails early if it cannot run.
WARM_UP_MAILS = 200
IDLE = Contender("trio_worker idle", depth=1)


@frozen
class Figure:
    """One row: the median of each version, and of the ratios of all rounds the median, the least and the greatest."""

    reason: str
    shape: str  # format of its values
    this: float
    other: float
    ratio: float
    least: float
    most: float
    rounds: Sequence[Any]

    @property
    def cells(self) -> tuple[str, ...]:
        values = (format(value, self.shape) for value in (self.this, self.other))
        return self.reason, *values, f"{self.ratio:.2f}", f"{self.least:.2f} to {self.most:.2f}"


@frozen
class Comparison:
    """A comparison: the two versions and the results."""

    this: str
    other: str
    notes: Sequence[str]
    figures: Sequence[Figure]

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Comparison:
        return cls(**{**found, "figures": [Figure(**each) for each in found["figures"]]})

    def table(self, *, is_markdown: bool) -> str:
        """Return a row for each figure, as plain text or in Markdown for the docs."""
        head = ("figure", f"this ({self.this})", self.other, "this/other", "in the rounds")
        rows = [head, *(each.cells for each in self.figures)]
        if is_markdown:
            rows.insert(1, ("---",) * len(head))
            return "\n".join(f"| {' | '.join(row)} |" for row in rows)
        first, *others = (max(map(len, column)) for column in zip(*rows, strict=True))
        return "\n".join(
            "  ".join([row[0].ljust(first), *(cell.rjust(width) for cell, width in zip(row[1:], others, strict=True))])
            for row in rows
        )


def figure(what: str, shape: str, rounds: Sequence[Pair], of: Callable[[Iterable[float]], float]) -> Figure:
    """Return the row of a figure: ``of`` makes one value of those of several rounds."""
    ratios = [of(this) / (of(other) or math.nan) for this, other in rounds]
    this, other = (of([value for pair in rounds for value in pair[place]]) for place in (0, 1))
    return Figure(what, shape, this, other, statistics.median(ratios), min(ratios), max(ratios), rounds)


def compare(
    ground: Ground, other: Version, plan: Mapping[float, Sequence[Contender]], count: int, rounds: int, pushes: int
) -> list[Figure]:
    """Run each contender of the plan, which has them by round trip (ms), in both versions, once in each round.

    The last figures are the waits of pushes to an idle worker of each version, some in each round; with 0 they are
    left out.
    """
    _warm_up(ground, other)
    runs: dict[tuple[float, Contender], Runs] = {}
    for round_trip_ms, contenders in plan.items():
        pairs = [_both(contender, other) for contender in contenders]
        found = run_rounds(ground, [each for pair in pairs for each in pair], count, rounds, round_trip_ms)
        for this, that in pairs:
            runs[round_trip_ms, this] = found[this.name], found[that.name]
    return [*(_figures_of(runs) if runs else ()), *(_idle(ground, other, rounds, pushes) if pushes else ())]


def notes_on(plan: Mapping[float, Sequence[Contender]], other: Version) -> list[str]:
    """Return a note about ``number_workers``, which the versions understand differently."""
    by_depth = {each.depth: each for each in (IDLE, *(each for contenders in plan.values() for each in contenders))}
    return [
        f"depth {depth}, {CONNECTIONS} connections: number_workers = {workers_of(this)} here, {workers_of(that)} there"
        for depth, (this, that) in sorted((depth, _both(each, other)) for depth, each in by_depth.items())
    ]


def _both(contender: Contender, other: Version) -> tuple[Contender, Contender]:
    return contender, evolve(contender, name=f"{contender.name}, {other.name}", version=other)


def _warm_up(ground: Ground, other: Version) -> None:
    with open_sink(0.0, ground.tls) as sink:
        for contender in _both(IDLE, other):
            run_once(ground, contender, sink, WARM_UP_MAILS)


def _figures_of(runs: Mapping[tuple[float, Contender], Runs]) -> list[Figure]:
    """Return the rates of all contenders, and the costs of a mail with the nearest relay."""

    def row(what: str, shape: str, key: tuple[float, Contender], look: Callable[[Run], float]) -> Figure:
        rounds = [([look(this)], [look(other)]) for this, other in zip(*runs[key], strict=True)]
        name = f"{what}, {key[1].name.removeprefix('trio_worker ')} at {key[0]:g} ms"
        return figure(name, shape, rounds, statistics.median)

    deep_first = sorted(runs, key=lambda key: (key[1].depth == 1, key[0]))
    nearest = [key for key in deep_first if key[0] == min(at for at, _ in runs)]
    found = [row("mails/s", ",.0f", key, lambda run: run.rate) for key in deep_first]
    found += [
        row("CPU s for 1,000 mails", ".3f", key, lambda run: run.steady_cpu_seconds_per_1000)
        for key in nearest
        if key[1].depth > 1
    ]
    found += [row("Redis commands a mail", ".3f", key, lambda run: run.redis_commands_per_mail) for key in nearest]
    peaks: list[Pair] = [
        ([this.peak_mb for this, _ in pairs], [other.peak_mb for _, other in pairs])
        for pairs in zip(*(zip(*each, strict=True) for each in runs.values()), strict=True)
    ]
    return [*found, figure("peak MB of any run", ".1f", peaks, max)]


def _idle(ground: Ground, other: Version, rounds: int, pushes: int) -> list[Figure]:
    """Push to an idle worker of each version in turn, a block in each round."""
    both = _both(IDLE, other)
    found: list[Pair] = []
    with open_sink(0.0, ground.tls) as sink:
        for number in range(rounds):
            waits = {}
            for contender in in_turn(both, number):
                waits[contender.name] = idle_waits(ground, contender, sink, math.ceil(pushes / rounds))
                half = quantile(waits[contender.name], 50)
                print(f"  round {number + 1} {contender.name}: {half:.1f} ms", file=sys.stderr, flush=True)
            found.append((waits[both[0].name], waits[both[1].name]))
    return [
        figure(f"idle, push to 250, p{percent}, ms", ".2f", found, partial(quantile, percent=percent))
        for percent in (50, 99)
    ]
