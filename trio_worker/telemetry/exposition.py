"""Pure. The text format in which Prometheus reads metrics, version 0.0.4.

The library of Prometheus imports an HTTP server and a client, and took a thirtieth of a worker's start. The tests read
what is written here with that library, and compare it with what it writes itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import TypeAlias

from trio_worker.records import frozen

# The suffix of the name, the labels, and the value.
Sample: TypeAlias = tuple[str, Mapping[str, str], float]

_IN_VALUES = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})
_IN_HELP = str.maketrans({"\\": r"\\", "\n": r"\n"})
# From here on Go, in which Prometheus is written, shows a number with an exponent.
_MILLION = 1e6


@frozen
class Family:
    """One metric with all its samples; ``kind`` is counter, gauge or histogram."""

    name: str
    kind: str
    help_text: str
    samples: Sequence[Sample]


def write_text(families: Iterable[Family]) -> bytes:
    """Return the page of a scrape."""
    lines: list[str] = []
    for family in families:
        lines.append(f"# HELP {family.name} {family.help_text.translate(_IN_HELP)}")
        lines.append(f"# TYPE {family.name} {family.kind}")
        lines += [
            f"{family.name}{suffix}{_labels(labels)} {float(value)!r}" for suffix, labels, value in family.samples
        ]
    return "".join([f"{line}\n" for line in lines]).encode()


def histogram(labels: Mapping[str, str], bounds: Sequence[float], counts: Iterable[int], total: float) -> list[Sample]:
    """Return the samples of a histogram: ``counts`` has one number for each bound, and one for what is above all.

    ``total`` is the sum of all values.
    """
    cumulative = list(accumulate(counts))
    ends = [*map(shown_bound, bounds), "+Inf"]
    buckets: list[Sample] = [
        ("_bucket", {**labels, "le": end}, count) for end, count in zip(ends, cumulative, strict=True)
    ]
    return [*buckets, ("_count", labels, cumulative[-1]), ("_sum", labels, total)]


def shown_bound(bound: float) -> str:
    """Return the bound of a bucket, at least 0 and below 1e10, as Go shows it: it is part of the name of a series."""
    if bound < _MILLION:
        return repr(float(bound))
    mantissa, _, exponent = f"{bound:.16e}".partition("e")
    return f"{float(mantissa):.15g}e{exponent}"


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    pairs = [f'{name}="{value.translate(_IN_VALUES)}"' for name, value in sorted(labels.items())]
    return f"{{{','.join(pairs)}}}"
