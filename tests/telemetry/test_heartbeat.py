"""Heartbeats: written, read back; and any other bytes."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from trio_worker.telemetry.feed import read_outcome
from trio_worker.telemetry.heartbeat import (
    MAX_TYPES,
    DeathCount,
    Heartbeat,
    Rates,
    RelayDown,
    Vitals,
    read_heartbeat,
    reported_types,
    write_heartbeat,
)
from trio_worker.telemetry.quantiles import Histogram
from trio_worker.worker.phase import Disposition, Phase

words = st.text(max_size=30)
numbers = st.integers(0, 10**12)
seconds = st.floats(0, 1e9)
histograms = st.builds(Histogram, st.dictionaries(st.integers(0, 300), st.integers(1, 10**9), max_size=5), seconds)
beats = st.builds(
    Heartbeat,
    worker=words,
    version=words,
    started_at=seconds,
    phase=st.sampled_from(Phase),
    number_workers=numbers,
    max_connections=numbers,
    depth=numbers,
    why=words,
    is_quiet=st.booleans(),
    in_hand=numbers,
    rates=st.builds(Rates, seconds, seconds, seconds, seconds),
    settled=st.dictionaries(st.sampled_from([str(each) for each in Disposition]), numbers),
    idle_share=st.none() | st.floats(0, 1),
    wait=histograms,
    latency=histograms,
    causes=st.lists(
        st.builds(DeathCount, words, words, st.sampled_from(Disposition), numbers, seconds), max_size=3
    ).map(tuple),
    vitals=st.builds(Vitals, st.none() | seconds, st.none() | numbers, st.none() | seconds, st.none() | seconds),
    config=words,
    types=st.lists(words, max_size=3).map(tuple),
    relay=words,
    relay_down=st.none() | st.builds(RelayDown, words, numbers, st.none() | seconds),
)


@given(beats)
def test_heartbeat_is_read_as_it_was_written(beat: Heartbeat) -> None:
    """Nothing of a heartbeat is lost on its way through Redis."""
    assert read_heartbeat(write_heartbeat(beat).encode("utf-8", "surrogatepass")) == beat


@given(beats, st.dictionaries(words, words, max_size=3))
def test_heartbeat_of_a_newer_version_is_understood(beat: Heartbeat, more: dict[str, str]) -> None:
    """What another version says beyond ours is ignored."""
    document = {f"new_{key}": value for key, value in more.items()} | json.loads(write_heartbeat(beat))

    assert read_heartbeat(json.dumps(document).encode()) == beat


def test_types_are_told_all_or_not_at_all() -> None:
    """Part of them would say that the worker does not know the others."""
    names = [f"Type{number:03}" for number in range(MAX_TYPES)]

    assert reported_types(reversed(names)) == tuple(names)
    assert reported_types([*names, "OneMore"]) == ()


@given(
    st.binary(max_size=60)
    | st.recursive(st.none() | st.booleans() | st.integers() | words, st.lists).map(
        lambda value: json.dumps(value).encode()
    )
)
def test_other_bytes_are_no_heartbeat_and_no_outcome(wire: bytes) -> None:
    """Any bytes in place of a heartbeat are read without an exception."""
    assert read_heartbeat(wire) is None
    assert read_outcome(wire) is None


def test_heartbeat_without_a_required_figure_is_none() -> None:
    """A heartbeat that lacks what ours cannot do without is not half understood."""
    assert read_heartbeat(b'{"worker":"a:1","version":"1"}') is None
