"""What is said of a job without showing whom it is for."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.jobs import job_bytes
from trio_worker.jobs.summary import JobSummary, summarize

words = st.text(max_size=12)


@given(st.binary(max_size=80))
def test_any_bytes_can_be_summarized(raw: bytes) -> None:
    """Any pushed bytes have a summary, and it does not raise."""
    assert isinstance(summarize(raw), JobSummary)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | words,
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["task_type", "data", "email_type", "id", "email", "to", "enqueued_at"]),
                inner,
                max_size=4,
            )
        ),
    )
)
def test_any_json_can_be_summarized(value: object) -> None:
    """JSON that no producer should send has a summary too."""
    assert isinstance(summarize(json.dumps(value).encode()), JobSummary)


def test_summary_has_the_type_and_the_domain() -> None:
    """A domain names no person; the address is for comparing, not for printing."""
    seen = summarize(job_bytes(1, "Ann <ann@Example.ORG>", id="order-7", enqueued_at="2026-01-02T03:04:05Z"))

    assert (seen.email_type, seen.domains, seen.producer_id) == ("Registration", ("example.org",), "order-7")
    assert seen.enqueued_at == pytest.approx(1_767_323_045)
