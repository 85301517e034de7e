"""Faults for the mail catcher, from the words that its ``chaos`` command takes."""

from __future__ import annotations

from trio_worker.capture.chaos import InjectedFaults, parse_faults


def faults(text: str) -> InjectedFaults:
    """Read faults that are known to be written correctly."""
    parsed = parse_faults(text)
    assert isinstance(parsed, InjectedFaults), parsed
    return parsed
