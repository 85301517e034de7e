"""Trio. ``tail``: the outcomes of jobs at all workers, live."""

from __future__ import annotations

import json
import math
import time
from typing import Annotated, Any

import trio
from attrs import asdict
from cyclopts import Parameter

from trio_worker.cli.connect import open_queue
from trio_worker.cli.durations import Seconds
from trio_worker.cli.exit_codes import OK
from trio_worker.cli.flags import ConfigFile, QueueName
from trio_worker.cli.json_documents import Document, with_schema
from trio_worker.cli.load_settings import load_settings
from trio_worker.cli.output import answer_or_exit, redis_name
from trio_worker.fleet.watch import WATCH_SECONDS, Watch
from trio_worker.printing import complain, say
from trio_worker.telemetry.feed import FeedOutcome
from trio_worker.telemetry.number_words import clock, duration
from trio_worker.telemetry.words import reason_words, recipients_words
from trio_worker.worker.phase import Disposition

_POLL_SECONDS = 0.5


async def tail(
    *,
    errors: Annotated[bool, Parameter(negative=(), help="Only jobs that were not sent.")] = False,
    email_type: Annotated[str | None, Parameter(name="--type", help="Only jobs of this email type.")] = None,
    for_: Annotated[Seconds, Parameter(name="--for", help="Exit after this time: 30s, 15m.")] = math.inf,
    queue: QueueName = None,
    config: ConfigFile = None,
    as_json: Annotated[bool, Parameter(name=["--json"], negative=(), help="Print one JSON object per line.")] = False,
) -> int:
    """Print the outcomes of jobs until Ctrl-C. At hundreds of mails per second only a sample is printed."""
    settings = load_settings(config, {} if queue is None else {"queue.name": queue})
    async with open_queue(settings) as client:
        watch = Watch(client, settings.queue.name, redis_name(settings.redis.url), clock=trio.current_time)
        answer_or_exit(await watch.poll(), settings)
        # Redis still has the outcomes that earlier watchers asked for: they are not new.
        since = time.time() - WATCH_SECONDS
        is_away = False
        with trio.move_on_after(for_):
            while True:
                for line in watch.outcomes:
                    if line.at >= since and _is_wanted(line, email_type, errors=errors):
                        say(json.dumps(_document(line), ensure_ascii=False) if as_json else _text(line), flush=True)
                await trio.sleep(_POLL_SECONDS)
                failed = await watch.poll()
                if bool(failed) is not is_away:
                    is_away = bool(failed)
                    complain(f"Redis: {failed.reason}; retrying" if failed else "Redis answers again")
    return OK


def _is_wanted(line: FeedOutcome, email_type: str | None, *, errors: bool) -> bool:
    settled = line.settled
    return not (errors and settled.disposition is Disposition.SENT) and email_type in (None, settled.email_type)


def _text(line: FeedOutcome) -> str:
    settled = line.settled
    word = str(settled.disposition)
    parts = [
        clock(line.at),
        f"{word.upper() if settled.disposition is Disposition.DEAD else word:<9}",
        settled.job_id,
        f"{settled.email_type or '-':<13}",
        f"{recipients_words(settled):<22}",
        f"wait {duration(settled.waited_seconds, is_estimate=settled.is_estimate):>6}",
        f"smtp {duration(settled.smtp_seconds):>6}",
        reason_words(settled),
    ]
    return "  ".join(parts)


def _document(line: FeedOutcome) -> dict[str, Any]:
    return with_schema(Document.OUTCOME, {"at": line.at, "worker": line.worker, **asdict(line.settled)})
