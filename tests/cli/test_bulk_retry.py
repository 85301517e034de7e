"""Dead letters and held jobs in bulk: chosen in exactly one way, asked for, retried, and taken back."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.support.commands import CAUSES, Ask, bury, counts


@pytest.mark.parametrize(("typed", "code"), [("all", 0), ("y", 4), ("", 4)])
def test_all_of_them_has_to_be_typed(
    run: Callable[..., int], ask: Ask, monkeypatch: pytest.MonkeyPatch, typed: str, code: int
) -> None:
    """Also for a single job; a filter asks for yes only, and only if it moves more than one job."""
    bury(ask, CAUSES[:1])
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("builtins.input", lambda _question: typed)

    assert run("dead", "retry", "--all") == code
    assert counts(ask).dead == bool(code)


def test_all_of_them_without_a_terminal_wants_a_yes(run: Callable[..., int], ask: Ask) -> None:
    """Nobody could have typed it."""
    bury(ask, CAUSES[:1])

    assert run("dead", "retry", "--all") == 4
    assert run("dead", "retry", "--all", "--yes") == 0


def test_retry_of_a_group_with_an_undo(run: Callable[..., int], ask: Ask, capsys: pytest.CaptureFixture[str]) -> None:
    """Only the group goes back, as many as were seen, and it can be taken back."""
    bury(ask, CAUSES)
    assert run("dead", "retry", "--code", "550", "--yes", "--expect", "4") == 4
    assert counts(ask).dead == 4
    assert run("dead", "retry", "--code", "550", "--expect", "3", "--dry-run") == 0
    assert run("dead", "retry", "--code", "550", "--expect", "3", "--yes", "--rate", "0.1", "--json") == 0
    batch = json.loads(capsys.readouterr().out.split("\n", 1)[1])["batch"]
    assert (counts(ask).dead, counts(ask).delayed) == (1, 3)

    assert run("dead", "retry", "--undo", batch) == 0
    assert (counts(ask).dead, counts(ask).delayed) == (4, 0)
    assert run("dead", "retry", "--undo", "nosuch") == 3


def test_a_trial_does_not_wait_for_a_paused_queue(
    run: Callable[..., int], ask: Ask, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is refused at once, says why, and nothing has moved."""
    bury(ask, CAUSES)
    assert run("queue", "pause", "--reason", "relay maintenance", "--by", "ana") == 0

    assert run("dead", "retry", "--code", "550", "--trial", "1", "--yes") == 4
    assert "jobs is paused: relay maintenance (ana), until " in capsys.readouterr().err
    assert counts(ask).dead == 4


def test_retry_names_exactly_one_way_to_choose(run: Callable[..., int], ask: Ask) -> None:
    """Ids, or a filter, or all: two of them are a mistake, and none is no wish."""
    (job_id, *_) = bury(ask, CAUSES)
    assert run("dead", "retry") == 2
    assert run("dead", "retry", job_id, "--code", "550") == 2
    assert run("dead", "retry", "--all", "--code", "550") == 2
    assert run("dead", "retry", "--code", "999") == 3
