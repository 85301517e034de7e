"""Trio. The tasks of this process as a tree: shows an operator what a worker waits for (SIGUSR1, `worker tasks`)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import trio

# A worker has two tasks for each connection and one for each mail that waits; beyond this a tree says nothing more.
MAX_TASKS = 300
# Not by the package's name alone: a checkout may be called so too, and hold an environment with other people's code.
_OURS = f"{Path(__file__).parent.parent}{os.sep}"


def task_tree() -> str:
    """Return every task with the place where it waits, children below their parents; no values, so no content."""
    root = trio.lowlevel.current_root_task()
    lines = [] if root is None else list(_lines(root, 0))
    more = [f"and {len(lines) - MAX_TASKS} more"] if len(lines) > MAX_TASKS else []
    return "\n".join(lines[:MAX_TASKS] + more)


def _lines(task: trio.lowlevel.Task, depth: int) -> Iterator[str]:
    yield f"{'  ' * depth}{task.name}{_place(task)}"
    for nursery in task.child_nurseries:
        for child in sorted(nursery.child_tasks, key=lambda each: each.name):
            yield from _lines(child, depth + 1)


def _place(task: trio.lowlevel.Task) -> str:
    """Return where our own code waits, or the innermost frame."""
    frames = [frame for frame, _line in task.iter_await_frames()]
    places = [f"{frame.f_code.co_filename.rpartition('/')[2]}:{frame.f_lineno}" for frame in frames]
    ours = [place for place, frame in zip(places, frames, strict=True) if frame.f_code.co_filename.startswith(_OURS)]
    found = ours[-1:] or places[-1:]
    return f"  {found[0]}" if found else ""
