"""Edge. The page of a scrape, which the library of Prometheus writes: our series, and the figures of the process."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from typing import TypeAlias

from prometheus_client import (
    CollectorRegistry,
    GCCollector,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from trio_worker.queue.operator_counts import OperatorCounts
from trio_worker.telemetry.metric_table import TABLE, Kind, Metric
from trio_worker.telemetry.series import Buckets, Count, Level, Series

# A second series for each counter, with its start time; process_start_time_seconds has that already.
disable_created_metrics()  # type: ignore[no-untyped-call]

_Entry: TypeAlias = tuple[tuple[str, ...], Count | Level | Buckets]  # the values of the labels, the queue's name first


class ScrapePage(Collector):
    """The metrics of one worker; ``in_redis`` is what Redis counts for all, None before the first poll."""

    def __init__(self, series: Series, queue_name: str) -> None:
        self.in_redis: OperatorCounts | None = None
        self._series, self._queue_name = series, queue_name
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)
        GCCollector(registry=self._registry)

    def text(self) -> bytes:
        """Return all metrics in the text format, version 0.0.4."""
        return generate_latest(self._registry)

    def describe(self) -> Iterable[Family]:
        """Return nothing: else the registry would collect all to find the names."""
        return ()

    def collect(self) -> Iterator[Family]:
        """Yield the families in the order of the table; one whose series are all unknown has no samples."""
        if self.in_redis is not None:
            yield from _counted_in_redis(self.in_redis, self._queue_name)
        found: dict[str, list[_Entry]] = defaultdict(list)
        for (name, *values), value in self._series.items():
            found[name].append(((self._queue_name, *values), value))
        for metric in TABLE:
            if not metric.is_in_redis:
                yield _family(metric, found[metric.name])


def _family(metric: Metric, entries: Iterable[_Entry]) -> Family:
    labels = ("queue", *metric.labels)
    if metric.kind is Kind.HISTOGRAM:
        histogram = HistogramMetricFamily(metric.exported, metric.help_text, labels=labels)
        for values, value in entries:
            if isinstance(value, Buckets):
                buckets = _cumulative(value.bounds, value.counts)
                histogram.add_metric(values, buckets=buckets, sum_value=value.total)
        return histogram
    made = CounterMetricFamily if metric.kind is Kind.COUNTER else GaugeMetricFamily
    family = made(metric.exported, metric.help_text, labels=labels)
    for values, value in entries:
        if not isinstance(value, Buckets):
            family.add_metric(values, value.value)
    return family


def _counted_in_redis(counts: OperatorCounts, queue_name: str) -> Iterator[Family]:
    by_name = {metric.name: metric for metric in TABLE if metric.is_in_redis}
    numbers: tuple[tuple[str, Mapping[str, int]], ...] = (
        ("admin_actions_total", {str(act): number for act, number in counts.acts.items()}),
        ("dead_letters_removed_total", {str(removal): number for removal, number in counts.removed.items()}),
    )
    for name, found in numbers:
        metric = by_name[name]
        (values,) = metric.labels.values()
        yield _family(metric, [((queue_name, value), Count(found.get(value, 0))) for value in values])
    metric = by_name["drain_seconds"]
    drains = Buckets(metric.buckets, [*counts.drains], counts.drain_seconds)
    yield _family(metric, [((queue_name,), drains)])


def _cumulative(bounds: Iterable[float], counts: Iterable[int]) -> list[tuple[str, float]]:
    """Return the buckets as a scrape shows them."""
    return list(zip((*map(floatToGoString, bounds), "+Inf"), map(float, accumulate(counts)), strict=True))
