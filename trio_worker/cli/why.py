"""Trio. ``why``: the bottleneck that limits throughput now, and which setting to change."""

from __future__ import annotations

from attrs import asdict

from trio_worker.cli.blocking import blocking, open_calls
from trio_worker.cli.exit_codes import OK
from trio_worker.cli.flags import AsJson, ConfigFile, QueueName
from trio_worker.cli.json_documents import Document
from trio_worker.cli.load_settings import load_settings
from trio_worker.cli.output import answer_or_exit, print_json, redis_name
from trio_worker.fleet.polls import Polls
from trio_worker.printing import say
from trio_worker.telemetry.bottleneck import Finding, find_bottleneck


@blocking
async def why(*, queue: QueueName = None, config: ConfigFile = None, as_json: AsJson = False) -> int:
    """Find what limits throughput now, from the figures of the dashboard, and print what to change."""
    settings = load_settings(config, {} if queue is None else {"queue.name": queue})
    with open_calls(settings) as client:
        polls = Polls(client, settings.queue.name, redis_name(settings.redis.url))
        # One look is enough: workers tell their rates of the last ten seconds, and the minutes how the queue grows.
        answer_or_exit(await polls.poll(), settings)
    finding = find_bottleneck(polls.snapshot())
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
