"""Records from JSON: as cattrs reads them, whatever another version wrote."""

from __future__ import annotations

import json
from typing import Any

from attrs import asdict
from cattrs import BaseValidationError, Converter
from hypothesis import given
from hypothesis import strategies as st

from trio_worker.smtp.failure_kind import FailureKind
from trio_worker.telemetry.heartbeat import DeathCount, Heartbeat, Suspended
from trio_worker.telemetry.quantiles import Histogram
from trio_worker.telemetry.wire import record_from
from trio_worker.worker.phase import Disposition, Phase

CONVERTER = Converter()
BEAT = Heartbeat(
    "host:1",
    "0.2.0",
    1000.5,
    Phase.RUNNING,
    10,
    20,
    settled={"sent": 3},
    wait=Histogram({3: 4, 17: 1}, 0.5),
    causes=(DeathCount("550 5.1.1", "refused", Disposition.DEAD, 2, 900.0),),
    suspended=Suspended(2, "refuses the login", 1200.0, FailureKind.LOGIN),
    idle_share=0.5,
    types=("Registration",),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(["running", "7"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def read(structure: Any, document: Any) -> Any:
    """What came of it: the record, or that it does not fit."""
    try:
        return structure(document, Heartbeat)
    except (BaseValidationError, ValueError, TypeError, KeyError, AttributeError, OverflowError):
        return "does not fit"


def test_a_record_is_read_back() -> None:
    assert record_from(json.loads(json.dumps(asdict(BEAT))), Heartbeat) == BEAT


@given(JSON)
def test_any_json_value_is_read_as_cattrs_reads_it(document: Any) -> None:
    assert repr(read(record_from, document)) == repr(read(CONVERTER.structure, document))


@given(st.sampled_from(sorted(asdict(BEAT))), JSON)
def test_a_record_with_one_changed_value_is_read_as_cattrs_reads_it(name: str, value: Any) -> None:
    """Converted, or refused; a missing value is another case of it."""
    document = {**json.loads(json.dumps(asdict(BEAT))), name: value}
    assert repr(read(record_from, document)) == repr(read(CONVERTER.structure, document))
    del document[name]
    assert repr(read(record_from, document)) == repr(read(CONVERTER.structure, document))
