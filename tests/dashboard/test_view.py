"""Keys at the dashboard: what each does, that nothing acts by one key, and that filters never change a figure."""

from __future__ import annotations

import os
import pty
import termios

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from tests.support.snapshot import busy
from trio_worker.dashboard.keyboard import Keyboard, split_keys
from trio_worker.dashboard.view import (
    DrainKey,
    KeyAction,
    Page,
    PauseKey,
    QuitKey,
    ResumeKey,
    Typing,
    View,
    filtered,
    press,
)
from trio_worker.telemetry.snapshot import Snapshot

ALL = frozenset({QuitKey, PauseKey, ResumeKey, DrainKey})
keys = st.lists(st.sampled_from("q1235?e/pd+- \x1b\r\x7faresume") | st.characters(), max_size=40)


def typed(view: View, text: str, snapshot: Snapshot | None = None) -> tuple[View, KeyAction | None]:
    action = None
    for key in text:
        view, action = press(view, key, snapshot or busy())
    return view, action


def paused() -> Snapshot:
    full = busy()
    assert full.queue is not None
    return evolve(full, queue=evolve(full.queue, paused="maintenance (ana)"))


@given(keys)
def test_any_keys_give_a_view(pressed: list[str]) -> None:
    """No sequence of keys raises, and only a typed line and Enter act."""
    view = View(may=ALL)
    for key in pressed:
        was_typing = view.typing
        view, action = press(view, key, busy())
        if action is not None:
            assert was_typing is not None
            assert key in "\r\n"


@pytest.mark.parametrize(
    ("keys", "snapshot", "action"),
    [
        ("pmaintenance\r", busy(), PauseKey("maintenance")),
        ("p\r", busy(), None),
        ("pno\x1b", busy(), None),
        ("presume\r", paused(), ResumeKey()),
        ("pyes\r", paused(), None),
        ("ddrain\r", busy(), DrainKey()),
        ("dd\r", busy(), None),
        ("ddrainx\x7f\r", busy(), DrainKey()),
        ("qquit\r", busy(), QuitKey()),
        ("q\r", busy(), None),
        ("qq\r", busy(), None),
    ],
)
def test_actions_have_to_be_typed(keys: str, snapshot: Snapshot, action: KeyAction | None) -> None:
    """A pause needs a reason, a resume, a drain and an exit that drains their own word; anything else is no."""
    view, done = typed(View(may=ALL), keys, snapshot)

    assert done == action
    assert view.typing is None


def test_dashboard_that_only_looks_does_not_even_ask() -> None:
    """Without leave to act, the keys that act say so; and nothing is stopped by its exit."""
    assert press(View(), "q", busy())[1] == QuitKey()
    assert press(View(may=frozenset({QuitKey, PauseKey, ResumeKey})), "q", busy())[1] == QuitKey()
    view, _ = typed(View(), "p")

    assert view.typing is None
    assert "--write" in view.notice


def test_pages_toggle_and_escape_goes_home() -> None:
    """The same key goes back; Esc goes back from everything."""
    assert typed(View(), "2")[0].page is Page.WORKERS
    assert typed(View(), "22")[0].page is Page.OVERVIEW
    assert typed(View(), "4/ann\re\x1b")[0] == View()


def test_space_freezes_what_stood_on_the_screen() -> None:
    """Frozen is the very snapshot that was seen; the next space lets go."""
    held = busy()
    view, _ = press(View(), " ", held)

    assert view.frozen is held
    assert press(view, " ", evolve(held, at=held.at + 5))[0].frozen is None


def test_filter_shows_matching_rows_and_leaves_figures() -> None:
    """A filter thins out lists; every figure stays that of all."""
    view, _ = typed(View(), "/resetpass\r")
    found = filtered(view, busy())

    assert {line.settled.email_type for line in found.latest} == {"ResetPassword"}
    assert found.ledger == busy().ledger
    assert found.rates == busy().rates


def test_errors_only_leaves_out_what_was_sent() -> None:
    """Sent mails are left out: at night an operator searches for errors."""
    found = filtered(typed(View(), "e")[0], busy())

    assert found.latest
    assert all(line.settled.disposition != "sent" for line in found.latest)


def test_typing_is_shown_on_the_way() -> None:
    """What is being typed is kept, also keys that else would do something."""
    view, action = typed(View(may=ALL), "pq1 ")

    assert (view.typing, view.typed, action) == (Typing.PAUSE, "q1 ", None)


def test_interval_has_bounds() -> None:
    """Looking more often or more rarely ends somewhere."""
    assert typed(View(), "+" * 9)[0].every_seconds == pytest.approx(0.5)
    assert typed(View(), "-" * 9)[0].every_seconds == pytest.approx(10)


@given(st.text(max_size=30))
def test_any_text_splits_into_keys(text: str) -> None:
    """What a terminal sends becomes single characters; none is invented."""
    found = split_keys(text)

    assert all(len(key) == 1 for key in found)
    assert len(found) <= len(text)
    if "\x1b" not in text:
        assert "".join(found) == text


def test_arrow_keys_are_no_escape() -> None:
    """Sequences of arrow and function keys do nothing; a lone Esc is a key."""
    assert split_keys("a\x1b[Ab\x1bOPc\x1b[1;5Dd") == ["a", "b", "c", "d"]
    assert split_keys("\x1b") == ["\x1b"]


def test_terminal_is_given_back_as_it_was() -> None:
    """Character mode ends when the keyboard is closed, also if it is closed twice."""
    main, ours = pty.openpty()
    before = termios.tcgetattr(ours)
    keyboard = Keyboard(ours, before)
    try:
        keyboard.take()
        keyboard.give_back()
        keyboard.give_back()
        assert termios.tcgetattr(ours) == before
    finally:
        os.close(main)
        os.close(ours)


def test_a_dashboard_of_all_workers_cannot_drain_them() -> None:
    """It shows how to drain one worker, and not that it may only watch."""
    view, action = press(View(may=frozenset({QuitKey, PauseKey, ResumeKey})), "d", busy())

    assert action is None
    assert "worker drain NAME" in view.notice
