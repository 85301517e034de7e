"""Every input that is kept for the fuzzer holds, and what a fuzzer would try first."""

from __future__ import annotations

import pytest
from fuzz_targets import CORPUS, TARGETS
from hypothesis import given
from hypothesis import strategies as st

SEEDS = sorted(path for path in CORPUS.glob("*/*"))


def test_every_target_has_seeds() -> None:
    """A target without any would begin from nothing."""
    assert {path.parent.name for path in SEEDS} == set(TARGETS)


@pytest.mark.parametrize("name", TARGETS)
def test_every_seed_holds(name: str) -> None:
    """Those that once failed stay in the corpus."""
    for path in (CORPUS / name).iterdir():
        TARGETS[name](path.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
@given(data=st.binary(max_size=300))
def test_any_bytes_hold(name: str, data: bytes) -> None:
    """A taste of what tools/fuzz does for hours."""
    TARGETS[name](data)
