"""Edge. Confirmation: the flags of commands that change many jobs, and the question at the terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated

from cyclopts import Parameter

from trio_worker.printing import complain, read_answer
from trio_worker.records import frozen


@Parameter(name="*")
@frozen
class Confirmation:
    """The flags that say whether a command asks before it changes jobs, and how many jobs it must find."""

    expect: Annotated[int | None, Parameter(help="Refuse unless exactly this number of jobs is found.")] = None
    dry_run: Annotated[
        bool, Parameter(name=["--dry-run", "-n"], negative=(), help="Print what would be done, and do nothing.")
    ] = False
    yes: Annotated[bool, Parameter(name=["--yes", "-y"], negative=(), help="Do not ask for a confirmation.")] = False
    no_input: Annotated[
        bool, Parameter(name=["--no-input"], negative=(), help="Never ask: refuse if a confirmation is needed.")
    ] = False

    def confirm(self, question: str) -> bool:
        """Ask a question; no is the default answer."""
        return self._ask(f"{question} [y/N] ", lambda answer: answer.lower() in {"y", "yes"})

    def confirm_by_typing(self, question: str, word: str) -> bool:
        """Ask for a word to be typed: for what cannot be undone."""
        return self._ask(f"{question} Type {word} to go on: ", lambda answer: answer == word)

    def matches_expected(self, found: int, noun: str) -> bool:
        """Return whether the number found is the one of --expect, if there is one; complain if not."""
        if self.expect is None or found == self.expect:
            return True
        complain(f"refused: {found:,} {noun}, not {self.expect:,}")
        return False

    def _ask(self, prompt: str, is_yes: Callable[[str], bool]) -> bool:
        """Return the answer; without a terminal it is no, and the complaint names --yes."""
        if self.yes:
            return True
        if self.no_input or not sys.stdin.isatty():
            complain("refused: a confirmation is needed; --yes confirms")
            return False
        if is_yes(read_answer(prompt).strip()):
            return True
        complain("nothing was done")
        return False


ASK = Confirmation()
"""The default of commands: they ask."""
