"""The page of a scrape is what the library of Prometheus would write, as far as a reader can tell."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import accumulate
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from trio_worker.telemetry.exposition import Family, histogram, shown_bound, write_text
from trio_worker.telemetry.metric_table import TABLE
from trio_worker.telemetry.process_metrics import ProcessMetrics

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.sampled_from(['a\\n"b"', "\n", "\\"])
VALUES = st.floats(allow_nan=False) | st.integers(0, 10**18)
BOUNDS = sorted({bound for metric in TABLE for bound in metric.buckets})


class Given(Collector):
    """What the library is given to write."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self.metrics = list(metrics)

    def collect(self) -> Iterable[Metric]:
        return self.metrics


def read(page: bytes) -> list[tuple[Any, ...]]:
    """What a reader finds on a page."""
    return [
        (
            family.name,
            family.type,
            family.documentation,
            [(each.name, each.labels, each.value) for each in family.samples],
        )
        for family in text_string_to_metric_families(page.decode())
    ]


@given(TEXTS, st.lists(st.tuples(TEXTS, VALUES), max_size=3, unique_by=lambda pair: pair[0]))
def test_counters_and_gauges_are_those_of_the_library(help_text: str, values: list[tuple[str, float]]) -> None:
    """With any help text, label and value."""
    counter = CounterMetricFamily("mails", help_text, labels=["queue"])
    gauge = GaugeMetricFamily("jobs", help_text, labels=["queue"])
    for label, value in values:
        counter.add_metric([label], value)
        gauge.add_metric([label], value)
    samples = [("", {"queue": label}, value) for label, value in values]

    ours = write_text(
        [Family("mails_total", "counter", help_text, samples), Family("jobs", "gauge", help_text, samples)]
    )

    assert read(ours) == read(generate_latest(Given([counter, gauge])))


@given(st.lists(st.integers(0, 9), min_size=len(BOUNDS) + 1, max_size=len(BOUNDS) + 1), st.floats(0, 1e12))
def test_histograms_are_those_of_the_library(counts: list[int], total: float) -> None:
    """Their bounds are part of the names of series, and have the library's text."""
    theirs = HistogramMetricFamily("seconds", "How long.", labels=["queue"])
    ends = [*map(floatToGoString, BOUNDS), "+Inf"]
    theirs.add_metric(["jobs"], buckets=list(zip(ends, accumulate(counts), strict=True)), sum_value=total)

    ours = Family("seconds", "histogram", "How long.", histogram({"queue": "jobs"}, BOUNDS, counts, total))

    assert read(write_text([ours])) == read(generate_latest(Given([theirs])))


@given(st.integers(0, 10**9) | st.floats(1e-3, 1e6))
def test_a_bound_is_written_as_the_library_writes_it(bound: float) -> None:
    assert shown_bound(bound) == floatToGoString(bound)  # type: ignore[no-untyped-call]


def test_figures_of_the_process_are_those_of_the_library() -> None:
    """Those that change between two looks are nearly the same."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    GCCollector(registry=registry)
    theirs = read(generate_latest(registry))

    ours = read(write_text(ProcessMetrics().collect()))

    assert [family[:3] for family in ours] == [family[:3] for family in theirs]
    for (*_, found), (*_, expected) in zip(ours, theirs, strict=True):
        assert [each[:2] for each in found] == [each[:2] for each in expected]
        assert [each[2] for each in found] == pytest.approx([each[2] for each in expected], rel=0.2, abs=2)
