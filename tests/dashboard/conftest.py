"""Fixtures: a terminal that a screen is drawn on."""

from __future__ import annotations

import os
import pty
import tty
from collections.abc import Iterator
from typing import TextIO

import pytest

from tests.support.screen import Window


@pytest.fixture
def terminal() -> Iterator[tuple[Window, TextIO]]:
    """A window of 80x24 and the stream that a program in it writes to, raw so that bytes arrive as written."""
    ours, theirs = pty.openpty()
    tty.setraw(theirs)
    window = Window(ours)
    window.resize(80, 24)
    stream = os.fdopen(theirs, "w", encoding="utf-8")
    yield window, stream
    stream.close()
    if window.fd >= 0:
        os.close(window.fd)
