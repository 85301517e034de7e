"""Edge. ``health`` among the other commands; the entry point runs it without them, as it must start at once."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from trio_worker.probe import main


def health(
    *words: Annotated[
        str, Parameter(help="live or ready, and --wait, --address, --config.", allow_leading_hyphen=True)
    ],
) -> int:
    """Ask a running worker, at its metrics.listen, whether it lives or is ready; 0 yes, 69 no, 75 not in time."""
    return main(list(words))
