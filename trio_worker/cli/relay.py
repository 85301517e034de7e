"""Trio. ``relay``: has workers try the relay now, and says how that went.

A worker whose relay is in trouble claims nothing and probes it less and less often. After it was mended, nobody has to
wait for the next probe.
"""

from __future__ import annotations

from contextlib import aclosing
from typing import Annotated

import trio
from cyclopts import App, Parameter

from trio_worker.cli.connect import open_queue
from trio_worker.cli.exit_codes import OK, TIMED_OUT, UNREACHABLE
from trio_worker.cli.flags import ConfigFile
from trio_worker.cli.load_settings import load_settings
from trio_worker.cli.output import answer_or_exit
from trio_worker.cli.target_workers import ANSWER_POLL_SECONDS, Patience, choose_workers, order_workers
from trio_worker.fleet.orders import Probe
from trio_worker.fleet.overview import Overview, read_overview
from trio_worker.printing import complain, say
from trio_worker.redis.client import RedisClient
from trio_worker.settings.reader import Settings
from trio_worker.telemetry.heartbeat import Heartbeat
from trio_worker.telemetry.number_words import duration

relay = App(name="relay", help="The relay, as workers see it: probe.", help_format="plaintext")


@relay.command(name="probe")
async def probe_relay(
    *names: Annotated[str, Parameter(help="Names of workers, as `worker list` shows them; default: all.")],
    patience: Patience = 30.0,
    config: ConfigFile = None,
) -> int:
    """Have workers try the relay now. A relay in trouble is tried with a connection and one real mail.

    Exits with 69 if the relay is still in trouble.
    """
    settings = load_settings(config)
    async with open_queue(settings) as client:
        seen = answer_or_exit(await read_overview(client, settings.queue.name), settings)
        before = _failures(seen)
        wanted = await choose_workers(client, settings, names, every=not names)
        probing, code = set(), OK
        async with aclosing(order_workers(client, settings, Probe(), wanted, patience)) as answers:
            async for came in answers:
                name, answer = answer_or_exit(came, settings)
                if answer is None:
                    complain(f"{name}: no answer within {patience:g} s")
                    code = TIMED_OUT
                elif answer == "probing":
                    probing.add(name)
                else:
                    say(f"{name}: the relay works")
        return max(code, await _watch(client, settings, probing, before, patience))


async def _watch(
    client: RedisClient, settings: Settings, probing: set[str], before: dict[str, int], patience: float
) -> int:
    """Print how each probe ended, as the heartbeats tell it."""
    code = OK
    with trio.move_on_after(patience):
        while probing:
            seen = answer_or_exit(await read_overview(client, settings.queue.name), settings)
            beats = {each.beat.worker: each.beat for each in seen.workers}
            for name in sorted(probing):
                beat = beats.get(name)
                ended = (UNREACHABLE, "gone") if beat is None else _ending(beat, before.get(name, 0), seen)
                if ended is not None:
                    probing.discard(name)
                    code = max(code, ended[0])
                    say(f"{name}: {ended[1]}")
            if probing:
                await trio.sleep(ANSWER_POLL_SECONDS)
    for name in sorted(probing):
        complain(f"{name}: the probe has not ended within {patience:g} s")
    return max(code, TIMED_OUT) if probing else code


def _ending(beat: Heartbeat, failures_before: int, seen: Overview) -> tuple[int, str] | None:
    """Return the exit code and the words for a probe that has ended; None for one that is under way."""
    down = beat.relay_down
    if down is None:
        return None if beat.trouble or beat.suspended else (OK, f"{beat.relay} works")
    if down.probe_at is not None:
        if down.failures <= failures_before:
            return None
        again = duration(max(0.0, down.probe_at - seen.counts.at))
        return UNREACHABLE, f"{beat.relay} {down.why}; next probe in {again}"
    if beat.connections and not (seen.counts.waiting or seen.counts.due or beat.in_hand):
        return OK, f"{beat.relay} takes a connection; no mail waits, so the next one is the probe"
    return None


def _failures(seen: Overview) -> dict[str, int]:
    beats = [each.beat for each in seen.workers]
    return {beat.worker: 0 if beat.relay_down is None else beat.relay_down.failures for beat in beats}
