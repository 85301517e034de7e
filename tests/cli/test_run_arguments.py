"""Plain arguments of `run` are read without the library of the command line, and mean the same."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_worker.cli.command_line import app
from trio_worker.cli.run_arguments import read_run_plainly

WORDS = st.sampled_from(
    ["--burst", "--no-dashboard", "--ascii", "--queue", "--config", "mail", "a b", "conf/dev.toml", "~/x.toml"]
) | st.text(max_size=6)


@given(st.lists(WORDS, max_size=6))
def test_what_is_read_run_plainly_is_what_the_command_line_reads(words: list[str]) -> None:
    arguments = read_run_plainly(words)
    if arguments is None:
        return

    _, bound, _ = app.parse_args(["run", *words], exit_on_error=False, print_error=False)
    assert bound.arguments == arguments


@pytest.mark.parametrize(
    ("line", "arguments"),
    [
        ("", {}),
        ("--no-dashboard --config /etc/w.toml", {"no_dashboard": True, "config": Path("/etc/w.toml")}),
        ("--burst --ascii --queue mail", {"burst": True, "only_ascii": True, "queue": "mail"}),
    ],
)
def test_full_options_are_plain(line: str, arguments: dict[str, object]) -> None:
    assert read_run_plainly(shlex.split(line)) == arguments


@pytest.mark.parametrize(
    "line",
    [
        "--help",
        "-h",
        "--burst --burst",
        "--queue",
        "--queue ''",
        "--queue --burst",
        "--config=x",
        "x",
        "--dry-run",
        "--",
    ],
)
def test_all_other_arguments_are_left_to_the_command_line(line: str) -> None:
    """It explains them, refuses them or reads them."""
    assert read_run_plainly(shlex.split(line)) is None
