"""Pure. The view of a dashboard: its page, filter and pace, and how each key changes it.

Keys that act on the queue or the worker open a line in which a text must be typed; an empty line or Esc cancels.
"""

from __future__ import annotations

from enum import Enum
from typing import TypeAlias, assert_never

from attrs import evolve, field

from trio_worker.records import frozen
from trio_worker.telemetry.snapshot import Snapshot

# More frames would cost the worker much and show little more; fewer would be useless.
MIN_EVERY_SECONDS = 0.5
MAX_EVERY_SECONDS = 10.0
_MAX_TYPED = 200
_ENTER, _ESCAPE, _BACKSPACE = ("\r", "\n"), "\x1b", ("\x7f", "\b")


class Page(Enum):
    """A page of the dashboard; the value is the key that shows it."""

    OVERVIEW = "1"
    WORKERS = "2"
    CONNECTIONS = "3"
    FAILURES = "4"
    LATEST = "5"
    HELP = "?"


class Typing(Enum):
    """The purpose of the text that is being typed on the bottom line; the value is its prompt."""

    FILTER = "show only lines that contain: "
    PAUSE = "pause the queue for 15 minutes, because: "
    RESUME = "type resume to claim again: "
    DRAIN = "type drain to stop this worker: "
    QUIT = "type quit to drain this worker and exit: "


@frozen
class QuitKey:
    """Exit the dashboard; a run drains first."""


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
    """The state of the view; ``frozen`` is a snapshot that stays on the screen, ``may`` the allowed actions."""

    page: Page = Page.OVERVIEW
    filter: str = ""
    only_errors: bool = False
    every_seconds: float = 1.0
    has_keys: bool = False
    may: frozenset[type[KeyAction]] = frozenset({QuitKey})
    frozen: Snapshot | None = None
    typing: Typing | None = None
    typed: str = field(default="", repr=False)
    notice: str = ""  # the result of the last action


def press(view: View, key: str, snapshot: Snapshot) -> tuple[View, KeyAction | None]:
    """Return the view after a key, and the action of the key; ``snapshot`` is the one on the screen."""
    if view.typing is not None:
        return _type(view, view.typing, key)
    view = evolve(view, notice="")
    match key:
        case "q" | "Q":
            # A key that was meant for another program must not stop a worker; a dashboard that only looks is soon back.
            return (evolve(view, typing=Typing.QUIT, typed=""), None) if DrainKey in view.may else (view, QuitKey())
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
        return evolve(view, notice="to drain one worker: trio-worker worker drain NAME")
    if action not in view.may:
        return evolve(view, notice="this dashboard changes nothing; start it with --write")
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
        case Typing.QUIT:
            return (done, QuitKey()) if typed == "quit" else (evolve(done, notice="still running"), None)
        case _:
            assert_never(typing)


def filtered(view: View, snapshot: Snapshot) -> Snapshot:
    """Return the snapshot with filtered lists; the filter changes no figure."""
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
