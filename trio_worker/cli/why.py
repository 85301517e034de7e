"""Trio. ``why``: the bottleneck that limits throughput now, and which setting to change."""

from __future__ import annotations

import math

from attrs import asdict

from trio_worker.cli.blocking import blocking, open_calls, sleep_until
from trio_worker.cli.exit_codes import OK
from trio_worker.cli.flags import AsJson, ConfigFile, QueueName
from trio_worker.cli.json_documents import Document
from trio_worker.cli.load_settings import load_settings
from trio_worker.cli.output import answer_or_exit, print_json, redis_name
from trio_worker.fleet.watch import Watch
from trio_worker.printing import say
from trio_worker.telemetry.bottleneck import Finding, find_bottleneck

# Rates, and whether the queue grows, need several polls; for a correct answer a person waits two seconds.
LOOKS = 4
_POLL_SECONDS = 0.5


@blocking
async def why(*, queue: QueueName = None, config: ConfigFile = None, as_json: AsJson = False) -> int:
    """Find what limits throughput now, from the figures of the dashboard, and print what to change."""
    settings = load_settings(config, {} if queue is None else {"queue.name": queue})
    with open_calls(settings) as client:
        watch = Watch(client, settings.queue.name, redis_name(settings.redis.url), wants_outcomes=False)
        for number in range(LOOKS):
            if number:
                await sleep_until(math.inf, _POLL_SECONDS)
            answer_or_exit(await watch.poll(), settings)
    finding = find_bottleneck(watch.snapshot())
    if as_json:
        print_json(Document.BOTTLENECK, asdict(finding))
        return OK
    _print(finding)
    return OK


def _print(finding: Finding) -> None:
    say(f"Limited by: {finding.headline}")
    for reason in finding.reasons:
        say(f"  {reason}")
    if finding.not_the_limit:
        say(f"  Not the limit: {', '.join(finding.not_the_limit)}.")
    for advice in finding.advice:
        say(advice)
