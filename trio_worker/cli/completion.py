"""Edge. ``completion``: a script by which a shell completes our commands, without starting Python."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter

from trio_worker.cli.command_line import app
from trio_worker.cli.exit_codes import OK
from trio_worker.printing import say_text

Shell = Literal["bash", "zsh", "fish"]


def completion(shell: Annotated[Shell, Parameter(help="Shell: bash, zsh or fish.")], /) -> int:
    """Print the completion script for a shell. The script is static: pressing Tab does not start Python.

    bash: trio-worker completion bash > ~/.local/share/bash-completion/completions/trio-worker

    zsh: trio-worker completion zsh > DIR/_trio-worker, where DIR is in your fpath before compinit runs

    fish: trio-worker completion fish > ~/.config/fish/completions/trio-worker.fish
    """
    say_text(app.generate_completion(shell=shell), end="")
    return OK
