"""Pure. The values of all metrics, by name and labels: counters, gauges and histograms without a lock.

All of them are changed in one thread, some for each mail; `exposition` writes them for a scrape.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from typing import TypeAlias

from attrs import field

from trio_worker.records import define
from trio_worker.telemetry.metric_table import TABLE, Kind, Metric


@define(eq=False)
class Count:
    """A counter."""

    value: float = 0.0

    def inc(self, more: float = 1) -> None:
        self.value += more


@define(eq=False)
class Level:
    """A gauge."""

    value: float = 0.0

    def set(self, value: float) -> None:
        self.value = value


@define(eq=False)
class Buckets:
    """A histogram: ``counts`` has one number for each bound, and one for what is above all."""

    bounds: tuple[float, ...]
    counts: list[int] = field(factory=list)
    total: float = 0.0
    _bucket_of: Callable[[float], int] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._bucket_of = partial(bisect_left, self.bounds)
        self.counts = self.counts or [0] * (len(self.bounds) + 1)

    def observe(self, values: Sequence[float]) -> None:
        for bucket, count in Counter(map(self._bucket_of, values)).items():
            self.counts[bucket] += count
        self.total = sum(values, self.total)


# The key is the name of a metric and the values of its labels, without the queue.
Series: TypeAlias = dict[tuple[str, ...], Count | Level | Buckets]


def new_series() -> Series:
    """Return all series that are always there, each with the value 0."""
    series: Series = {}
    for metric in TABLE:
        if metric.is_in_redis or not metric.is_always_there:
            continue
        for values in product(*metric.labels.values()):
            series[metric.name, *values] = _new(metric)
    return series


def _new(metric: Metric) -> Count | Level | Buckets:
    match metric.kind:
        case Kind.COUNTER:
            return Count()
        case Kind.GAUGE:
            return Level()
        case Kind.HISTOGRAM:
            return Buckets(metric.buckets)
