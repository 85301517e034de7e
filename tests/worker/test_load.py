"""The average of a load over the last minute."""

from __future__ import annotations

import pytest

from trio_worker.worker.load import Load


def test_load_is_the_average_of_the_last_minute() -> None:
    """Ten jobs for half a minute and none for the other half are five on average."""
    load = Load()
    load.add(0, 10)
    load.add(30, -10)

    assert load.mean(60) == pytest.approx(5)
    for second in range(61, 120):
        load.add(second, 0)
    assert load.mean(121) == pytest.approx(0, abs=0.5)


def test_load_before_the_first_note_is_unknown() -> None:
    """Nothing is known before something was said."""
    assert Load().mean(5) is None
