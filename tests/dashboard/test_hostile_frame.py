"""Frames, pictures and JSON of a snapshot whose every text a stranger wrote."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import snapshot as states
from tests.support.hostile import HOSTILE, assert_tame, spoiled
from trio_worker.dashboard.frame import render_frame, render_svg
from trio_worker.dashboard.status_line import status_line
from trio_worker.dashboard.view import Page, Typing, View
from trio_worker.printing import visible
from trio_worker.telemetry.snapshot_json import document_of

STATES = (
    states.busy,
    states.idle,
    states.draining,
    states.without_relay,
    states.suspended,
    states.without_redis,
    states.fleet,
)
SNAPSHOTS = {make.__name__: make for make in STATES}
TEXTS = st.permutations(HOSTILE).map("x".join)
# What rich itself writes for bold, dim and colours.
_STYLE = re.compile(r"\x1b\[[0-9;]*m")


@pytest.mark.parametrize("state", SNAPSHOTS)
@given(text=TEXTS)
@settings(max_examples=5, deadline=None)
def test_no_text_of_a_snapshot_rules_a_terminal(state: str, text: str) -> None:
    """On every page, at every size, in the status line, as a picture and as JSON."""
    spoilt = spoiled(SNAPSHOTS[state](), text)

    views = [*map(View, Page), View(typing=Typing.FILTER, typed=text), View(notice=text, filter=text)]
    for view in views:
        for width, height in ((160, 50), (80, 24), (40, 8)):
            assert_tame(_STYLE.sub("", render_frame(spoilt, width, height, view)), f"{view} {width}x{height}")
    assert_tame(render_svg(spoilt, 120, 40), "svg")
    assert_tame(status_line(spoilt), "status line", allowed="")
    printed = visible(json.dumps(document_of(spoilt), ensure_ascii=False))
    assert_tame(printed, "json")
    assert json.loads(printed) == document_of(spoilt)
