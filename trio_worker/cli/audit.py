"""Trio. ``audit``: checks that every job is in exactly one state."""

from __future__ import annotations

from contextlib import aclosing
from typing import Annotated

from attrs import asdict
from cyclopts import Parameter

from trio_worker.cli.blocking import blocking, open_calls
from trio_worker.cli.exit_codes import OK, PARTLY
from trio_worker.cli.flags import AsJson, ConfigFile
from trio_worker.cli.json_documents import Document
from trio_worker.cli.load_settings import load_settings
from trio_worker.cli.output import answer_or_exit, print_json
from trio_worker.printing import say
from trio_worker.queue.audit import Stray, find_strays
from trio_worker.queue.counts import Counts, count_jobs
from trio_worker.telemetry.number_words import counted

# The maximum number of strays that are printed: a damaged queue may have as many strays as jobs.
STRAYS_SHOWN = 50


@blocking
async def audit(
    *,
    deep: Annotated[
        bool, Parameter(negative=(), help="Also check each job; without it only counts are compared.")
    ] = False,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> int:
    """Compare the counts of all states, read at one moment. Exits with 5 if they do not balance."""
    settings = load_settings(config)
    strays: list[Stray] = []
    found = 0
    with open_calls(settings) as client:
        counts = answer_or_exit(await count_jobs(client, settings.queue.name), settings)
        if deep:
            async with aclosing(find_strays(client, settings.queue.name)) as found_strays:
                async for stray in found_strays:
                    known = answer_or_exit(stray, settings)
                    found += 1
                    strays += [known] if len(strays) < STRAYS_SHOWN and known not in strays else []
    balances = counts.balances and not found
    if as_json:
        print_json(
            Document.AUDIT,
            {
                "balances": balances,
                "deep": deep,
                "counts": _counts_document(counts),
                "strays": [{"job_id": stray.job_id, "what": stray.reason} for stray in strays],
            },
        )
    else:
        _print_counts(counts, deep=deep)
        for stray in strays:
            say(f"  {stray.job_id}  {stray.reason}")
        say("clean" if balances else f"NOT CLEAN: {found or 'the counts'} {'strays' if found else 'do not balance'}")
    return OK if balances else PARTLY


def _counts_document(counts: Counts) -> dict[str, object]:
    """Return the counts with their public keys, of which one is older than the field's name."""
    document = asdict(counts)
    tallies = document.pop("operator_counts")
    return {**document, "tallies": tallies}


def _print_counts(counts: Counts, *, deep: bool) -> None:
    for name in ("waiting", "leased", "delayed", "held", "dead"):
        say(f"{name:<9}{getattr(counts, name):>12,}")
    known = counted(counts.known, "job")
    say(f"{known} in a state, {counts.bodies:,} with their bytes, {counts.leases:,} with a lease entry")
    if deep:
        say("every job was checked")
