"""Trio. ``top``: the dashboard of all workers of a queue, live, from any shell."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, assert_never

import trio
from cyclopts import Parameter
from cyclopts.validators import Number

from trio_worker.cli.connect import open_queue
from trio_worker.cli.durations import Seconds
from trio_worker.cli.exit_codes import OK
from trio_worker.cli.flags import AsJson, ConfigFile, OnlyAscii, QueueName
from trio_worker.cli.json_documents import Document
from trio_worker.cli.load_settings import load_settings
from trio_worker.cli.output import answer_or_exit, print_json, redis_name, refuse
from trio_worker.cli.pausing import pause_by_key, resume_by_key
from trio_worker.dashboard.frame import render_frame, render_svg
from trio_worker.dashboard.keyboard import open_keyboard
from trio_worker.dashboard.live import Dashboard
from trio_worker.dashboard.screen import open_screen
from trio_worker.dashboard.terminal import has_color, is_ascii_only, is_live
from trio_worker.dashboard.view import DrainKey, KeyAction, PauseKey, QuitKey, ResumeKey, View
from trio_worker.fleet.watch import Watch
from trio_worker.printing import say, say_drawn
from trio_worker.redis.client import RedisClient
from trio_worker.settings.reader import Settings
from trio_worker.telemetry.snapshot_json import document_of

# The size of a frame without a terminal: large enough for all figures.
_ONCE_COLUMNS, _ONCE_LINES = 120, 32
# The time between the two polls that give the rates of a single frame.
_RATE_SECONDS = 1.0


async def top(
    *,
    once: Annotated[
        bool, Parameter(negative=(), help="Print one frame and exit. This is the default without a terminal.")
    ] = False,
    svg: Annotated[Path | None, Parameter(help="Write one frame to this file, as an SVG image.")] = None,
    write: Annotated[bool, Parameter(negative=(), help="Allow keys that pause and resume the queue.")] = False,
    only_ascii: OnlyAscii = False,
    interval: Annotated[
        Seconds, Parameter(help="Time between two polls of the queue.", validator=Number(gte=0.5, lte=60))
    ] = 1.0,
    queue: QueueName = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> int:
    """Show the queue and all its workers, live. Changes nothing, unless --write is given."""
    settings = load_settings(config, {} if queue is None else {"queue.name": queue})
    async with open_queue(settings) as client:
        watch = Watch(
            client, settings.queue.name, redis_name(settings.redis.url), is_close_up=True, clock=trio.current_time
        )
        only_ascii = only_ascii or is_ascii_only(sys.stdout, os.environ)
        if once or as_json or svg is not None or not is_live(sys.stdout, os.environ):
            return await _show_once(watch, settings, svg, only_ascii=only_ascii, as_json=as_json)
        await _show_live(watch, client, interval, only_ascii=only_ascii, may_write=write)
    return OK


async def _show_once(watch: Watch, settings: Settings, svg: Path | None, *, only_ascii: bool, as_json: bool) -> int:
    answer_or_exit(await watch.poll(), settings)
    await trio.sleep(_RATE_SECONDS)
    await watch.poll()
    snapshot = watch.snapshot()
    if as_json:
        print_json(Document.SNAPSHOT, document_of(snapshot))
    elif svg is not None:
        picture = render_svg(snapshot, _ONCE_COLUMNS, _ONCE_LINES)
        try:
            await trio.Path(svg).write_text(picture, encoding="utf-8")
        except OSError as error:
            refuse(2, f"--svg: {svg}: {error.strerror}")
        say(f"wrote {svg}")
    else:
        color = sys.stdout.isatty() and has_color(os.environ)
        columns, lines = os.get_terminal_size() if sys.stdout.isatty() else (_ONCE_COLUMNS, _ONCE_LINES)
        frame = render_frame(snapshot, columns, lines, ascii_only=only_ascii, color=color)
        say_drawn(frame if color else _plain(frame))
    return OK


def _plain(frame: str) -> str:
    """Return a frame without the escape sequences for styles, for a file or a pipe."""
    return "".join(part.partition("m")[2] if number else part for number, part in enumerate(frame.split("\x1b[")))


async def _show_live(watch: Watch, client: RedisClient, interval: float, *, only_ascii: bool, may_write: bool) -> None:
    with open_keyboard() as keyboard, open_screen(sys.stdout, color=has_color(os.environ)) as screen:
        async with trio.open_nursery() as nursery:

            async def act(action: KeyAction) -> str:
                match action:
                    case QuitKey():
                        nursery.cancel_scope.cancel()
                        return ""
                    case DrainKey():
                        raise AssertionError("no key may drain all workers")
                    case PauseKey(reason):
                        return await pause_by_key(client, watch.queue_name, reason)
                    case ResumeKey():
                        return await resume_by_key(client, watch.queue_name)
                    case _:
                        assert_never(action)

            may: frozenset[type[KeyAction]] = (
                frozenset({QuitKey, PauseKey, ResumeKey}) if may_write else frozenset({QuitKey})
            )
            dashboard = Dashboard(
                watch.snapshot,
                screen,
                keyboard,
                act,
                View(may=may, every_seconds=interval),
                ascii_only=only_ascii,
            )
            await watch.poll()
            nursery.start_soon(_keep_polling, watch, interval)
            await dashboard.run()


async def _keep_polling(watch: Watch, every_seconds: float) -> None:
    """Poll until cancelled; more rarely where a round trip to Redis is long."""
    while True:
        began = trio.current_time()
        await watch.poll()
        took = trio.current_time() - began
        await trio.sleep(max(every_seconds, 10 * took) - took)
