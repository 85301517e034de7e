"""Pure. What a person at the dashboard looks at, and what each key does to that.

Lower case looks. What acts on the queue or the worker opens a line that must be typed; an empty line, or Esc, is no.
"""

from __future__ import annotations

from enum import Enum
from typing import TypeAlias, assert_never

from attrs import evolve, field, frozen

from trio_worker.telemetry.snapshot import Snapshot

# Faster than this costs the worker more than the eye gains; slower than this nobody wants to look.
MIN_EVERY_SECONDS = 0.5
MAX_EVERY_SECONDS = 10.0
_MAX_TYPED = 200
_ENTER, _ESCAPE, _BACKSPACE = ("\r", "\n"), "\x1b", ("\x7f", "\b")


class Page(Enum):
    """What fills the screen; the value is the key that shows it."""

    OVERVIEW = "1"
    WORKERS = "2"
    CONNECTIONS = "3"
    FAILURES = "4"
    LATEST = "5"
    HELP = "?"


class Typing(Enum):
    """What is being typed on the bottom line, and the words before it."""

    FILTER = "show only what contains: "
    PAUSE = "pause the queue for 15 minutes, because: "
    RESUME = "type resume to claim again: "
    DRAIN = "type drain to stop this worker: "


@frozen
class QuitKey:
    """Leave; a run drains first."""


@frozen
class PauseKey:
    """Pause the queue."""

    reason: str


@frozen
class ResumeKey:
    """End the pause of the queue."""


@frozen
class DrainKey:
    """Drain the worker."""


KeyAction: TypeAlias = QuitKey | PauseKey | ResumeKey | DrainKey


@frozen
class View:
    """What is looked at; ``frozen`` is the snapshot that is held, ``may`` what this dashboard is allowed to do."""

    page: Page = Page.OVERVIEW
    filter: str = ""
    only_errors: bool = False
    every_seconds: float = 1.0
    has_keys: bool = False
    may: frozenset[type[KeyAction]] = frozenset({QuitKey})
    frozen: Snapshot | None = None
    typing: Typing | None = None
    typed: str = field(default="", repr=False)
    notice: str = ""  # what became of the last action


def press(view: View, key: str, snapshot: Snapshot) -> tuple[View, KeyAction | None]:
    """Return the view after a key, and what is to be done; ``snapshot`` is what stood on the screen."""
    if view.typing is not None:
        return _type(view, view.typing, key)
    view = evolve(view, notice="")
    match key:
        case "q" | "Q":
            return view, QuitKey()
        case "1" | "2" | "3" | "4" | "5" | "?":
            page = Page(key)
            return evolve(view, page=Page.OVERVIEW if view.page is page else page), None
        case "\x1b":
            return evolve(view, page=Page.OVERVIEW, filter="", only_errors=False), None
        case " ":
            return evolve(view, frozen=snapshot if view.frozen is None else None), None
        case "e":
            return evolve(view, only_errors=not view.only_errors), None
        case "+":
            return evolve(view, every_seconds=max(MIN_EVERY_SECONDS, view.every_seconds / 2)), None
        case "-":
            return evolve(view, every_seconds=min(MAX_EVERY_SECONDS, view.every_seconds * 2)), None
        case "/":
            return evolve(view, typing=Typing.FILTER, typed=view.filter), None
        case "p":
            is_paused = snapshot.queue is not None and bool(snapshot.queue.paused)
            return _ask(view, Typing.RESUME if is_paused else Typing.PAUSE, ResumeKey if is_paused else PauseKey), None
        case "d":
            return _ask(view, Typing.DRAIN, DrainKey), None
        case _:
            return view, None


def _ask(view: View, typing: Typing, action: type[KeyAction]) -> View:
    if action is DrainKey and PauseKey in view.may and DrainKey not in view.may:
        return evolve(view, notice="which one? trio-worker worker drain NAME")
    if action not in view.may:
        return evolve(view, notice="this dashboard only looks; start it with --write to act")
    return evolve(view, typing=typing, typed="")


def _type(view: View, typing: Typing, key: str) -> tuple[View, KeyAction | None]:
    if key == _ESCAPE:
        return evolve(view, typing=None, typed=""), None
    if key in _BACKSPACE:
        return evolve(view, typed=view.typed[:-1]), None
    if key not in _ENTER:
        is_text = len(key) == 1 and key.isprintable() and len(view.typed) < _MAX_TYPED
        return (evolve(view, typed=view.typed + key) if is_text else view), None
    typed, done = view.typed.strip(), evolve(view, typing=None, typed="")
    match typing:
        case Typing.FILTER:
            return evolve(done, filter=typed), None
        case Typing.PAUSE:
            return (done, PauseKey(typed)) if typed else (evolve(done, notice="not paused: no reason given"), None)
        case Typing.RESUME:
            return (done, ResumeKey()) if typed == "resume" else (evolve(done, notice="still paused"), None)
        case Typing.DRAIN:
            return (done, DrainKey()) if typed == "drain" else (evolve(done, notice="not drained"), None)
        case _:
            assert_never(typing)


def filtered(view: View, snapshot: Snapshot) -> Snapshot:
    """Return the snapshot as the view filters it: only the lists, never a figure."""
    if not view.filter and not view.only_errors:
        return snapshot
    wanted = view.filter.casefold()

    def matches(*words: str) -> bool:
        return wanted in " ".join(words).casefold()

    latest = tuple(
        line
        for line in snapshot.latest
        if not (view.only_errors and line.settled.disposition == "sent")
        and matches(
            line.settled.job_id,
            line.settled.email_type,
            line.settled.disposition,
            *line.settled.recipients,
            str(line.settled.cause or ""),
            line.worker,
        )
    )
    causes = tuple(cause for cause in snapshot.causes if matches(cause.codes, cause.word, cause.disposition))
    workers = tuple(worker for worker in snapshot.workers if matches(worker.beat.worker, worker.beat.version))
    return evolve(snapshot, latest=latest, causes=causes, workers=workers)
