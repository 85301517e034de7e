"""Pure. The values of all metrics by name and labels, and the families of a scrape that are made of them."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import product
from typing import TypeAlias

from attrs import field

from trio_worker.queue.operator_counts import OperatorCounts
from trio_worker.records import define
from trio_worker.telemetry.exposition import Family, Sample, histogram
from trio_worker.telemetry.metric_table import TABLE, Kind, Metric


@define(eq=False)
class Count:
    """A counter; all of them are changed in one thread."""

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
    """A histogram."""

    bounds: tuple[float, ...]
    counts: list[int] = field(init=False)
    total: float = 0.0
    _bucket_of: Callable[[float], int] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._bucket_of = partial(bisect_left, self.bounds)
        self.counts = [0] * (len(self.bounds) + 1)

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


def families_of(series: Series, queue_name: str) -> Iterator[Family]:
    """Yield the families of a worker; one whose series are all unknown has no samples."""
    found: dict[str, list[tuple[tuple[str, ...], Count | Level | Buckets]]] = defaultdict(list)
    for (name, *values), value in series.items():
        found[name].append((tuple(values), value))
    for metric in TABLE:
        if not metric.is_in_redis:
            samples = [
                each for labels, value in found[metric.name] for each in _samples(metric, labels, value, queue_name)
            ]
            yield _family(metric, samples)


def _samples(
    metric: Metric, values: tuple[str, ...], value: Count | Level | Buckets, queue_name: str
) -> Sequence[Sample]:
    labels = {"queue": queue_name, **dict(zip(metric.labels, values, strict=True))}
    if isinstance(value, Buckets):
        return histogram(labels, value.bounds, value.counts, value.total)
    return [("", labels, value.value)]


def families_in_redis(counts: OperatorCounts, queue_name: str) -> Iterator[Family]:
    """Yield the families that Redis counts for the whole queue."""
    by_name = {metric.name: metric for metric in TABLE if metric.is_in_redis}
    numbers: tuple[tuple[str, Mapping[str, int]], ...] = (
        ("admin_actions_total", {str(act): number for act, number in counts.acts.items()}),
        ("dead_letters_removed_total", {str(removal): number for removal, number in counts.removed.items()}),
    )
    for name, found in numbers:
        metric = by_name[name]
        ((label, values),) = metric.labels.items()
        yield _family(metric, [("", {"queue": queue_name, label: value}, found.get(value, 0)) for value in values])
    metric = by_name["drain_seconds"]
    yield _family(metric, histogram({"queue": queue_name}, metric.buckets, counts.drains, counts.drain_seconds))


def _family(metric: Metric, samples: Sequence[Sample]) -> Family:
    return Family(metric.exported, metric.kind.value, metric.help_text, samples)
