"""Trio. ``capture``: runs the local mail catcher, shows its mails, sets the faults that it injects."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Annotated, Any

import trio
from cyclopts import App, Parameter

from trio_worker.capture.host import Hosting, host_catcher, read_chaos, read_host, write_chaos
from trio_worker.capture.maildir import clear_caught, count_caught, list_caught, read_caught
from trio_worker.capture.server import CatcherPortTaken
from trio_worker.cli.audit_log import log_reveal
from trio_worker.cli.exit_codes import MISCONFIGURED, NOTHING_MATCHED, OK, REFUSED, UNREACHABLE
from trio_worker.cli.flags import AsJson, ConfigFile
from trio_worker.cli.json_documents import Document
from trio_worker.cli.load_settings import load_settings
from trio_worker.cli.output import print_json, refuse
from trio_worker.cli.table import TableColumn, table_lines, terminal_width
from trio_worker.own_files import UntrustedPathError, check_own_folder
from trio_worker.printing import complain, say, say_octets
from trio_worker.privacy import mask_address
from trio_worker.settings.reader import Settings
from trio_worker.telemetry.number_words import counted

# The key stands on a line of its own below: it is long, and must not be cut.
_COLUMNS = [
    TableColumn("at"),
    TableColumn("to", cut_to=10),
    TableColumn("bytes", is_right=True),
    TableColumn("subject", cut_to=10),
]

capture = App(name="capture", help="Local mail catcher: run, ls, show, chaos, clear.", help_format="plaintext")


@capture.command(name="run")
async def run_catcher(*, config: ConfigFile = None) -> int:
    """Run the mail catcher until Ctrl-C. If another process runs it already, stand by to take over."""
    settings = load_settings(config, may_be_missing=True)
    options = settings.capture
    if not options.listen:
        refuse(MISCONFIGURED, "capture.listen is empty: the catcher has no address")
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        try:
            async with host_catcher(options, settings.smtp.login) as hosting:
                where = hosting.catcher
                say(f"catching on {where.host}:{where.port}" if where else _standing_by(options.dir), flush=True)
                await _until_signal(hosting, signals)
        except CatcherPortTaken as error:
            complain(str(error))
            return UNREACHABLE
        except UntrustedPathError as error:
            refuse(MISCONFIGURED, f"capture.dir: {error.strerror}")
    return OK


@capture.command(name="ls")
def list_mails(
    *,
    limit: Annotated[int, Parameter(help="Maximum number of mails, newest last.")] = 20,
    reveal: Annotated[bool, Parameter(negative=(), help="Show addresses and subjects in full.")] = False,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> int:
    """List caught mails, newest last."""
    settings = load_settings(config)
    folder = _folder_of(settings)
    caught, shown = count_caught(folder), list_caught(folder, max(0, limit))
    rows: list[dict[str, Any]] = [
        {
            "key": mail.key,
            "at": mail.at.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "to": [address if reveal else mask_address(address) for address in mail.recipients],
            # A subject may contain private data.
            "subject": mail.subject if reveal else f"({counted(len(mail.subject), 'character')})",
            "bytes": mail.size_bytes,
        }
        for mail in shown
    ]
    if reveal:
        log_reveal(settings, "capture ls", [mail.key for mail in shown])
    if as_json:
        print_json(Document.CAUGHT, {"caught": caught, "mails": rows})
        return OK
    cells = [(row["at"], ", ".join(row["to"]), f"{row['bytes']:,}", row["subject"]) for row in rows]
    heads, *lines = table_lines(_COLUMNS, cells, terminal_width())
    if rows:
        say(heads)
    for row, line in zip(rows, lines, strict=True):
        say(line)
        say(f"  {row['key']}")
    more = " Details: trio-worker capture show KEY" if rows else ""
    say(f"{len(rows):,} of {counted(caught, 'caught mail')}.{more}")
    return OK


@capture.command(name="show")
def show_mail(key: str, *, config: ConfigFile = None) -> int:
    """Print one caught mail, byte for byte. The key "last" is the newest. The log gets a line about it."""
    settings = load_settings(config)
    folder = _folder_of(settings)
    if key == "last":
        caught = list_caught(folder, 1)
        key = caught[-1].key if caught else key
    content = read_caught(folder, key)
    if content is None:
        refuse(NOTHING_MATCHED, f"{key}: no such mail in {folder}")
    log_reveal(settings, "capture show", [key])
    say_octets(content)
    return OK


@capture.command(name="chaos")
def set_chaos(
    faults: Annotated[
        str | None, Parameter(help='Faults, for example "rcpt=451:20% final=stall"; "" for none.')
    ] = None,
    *,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> int:
    """Show the faults that the catcher injects, or set them. They apply at once.

    A fault is STAGE=ACTION:QUALIFIER:QUALIFIER; faults are separated by spaces.

    Stages: connect ehlo starttls auth mail rcpt data body final rset quit; every means all of them.

    Actions: a reply code from 400 to 599, optionally with an enhanced code and a text: 550-5.1.1-No_such_user.

    Other actions: drop, stall, delay-50ms; at final also accept-drop: the mail is kept, then the connection is reset.

    Qualifiers: 20% (probability); every5 and first3, counted over all connections; after5, counted on one connection.
    """
    folder = _folder_of(load_settings(config))
    if faults is not None:
        wrong = write_chaos(folder, faults)
        if wrong is not None:
            refuse(REFUSED, f"{faults}", f"{'^':>{wrong.place + 1}} {wrong.problem}")
    now = read_chaos(folder)
    if as_json:
        print_json(Document.CHAOS, {"faults": now})
    else:
        say(now or "no faults")
    return OK


@capture.command(name="clear")
def clear_mails(*, config: ConfigFile = None, as_json: AsJson = False) -> int:
    """Delete every caught mail."""
    folder = _folder_of(load_settings(config))
    cleared = clear_caught(folder)
    if as_json:
        print_json(Document.CLEAR, {"cleared": cleared})
    else:
        say(f"{counted(cleared, 'caught mail')} deleted from {folder} permanently")
    return OK


def _folder_of(settings: Settings) -> Path:
    """Return the folder of the catcher; exit with 78 if another user has a hand in it."""
    folder = Path(settings.capture.dir)
    try:
        check_own_folder(folder)
    except UntrustedPathError as error:
        refuse(MISCONFIGURED, f"capture.dir: {error.strerror}")
    except OSError:  # nothing was caught yet
        return folder
    return folder


def _standing_by(folder: str) -> str:
    host = read_host(Path(folder))
    where = f"process {host.pid} on {host.host}:{host.port}" if host else "another process"
    return f"standing by: {where} runs the catcher"


async def _until_signal(hosting: Hosting, signals: object) -> None:
    async with trio.open_nursery() as nursery:

        async def report_takeover() -> None:
            catcher = await hosting.wait_until_host()
            say(f"took over: catching on {catcher.host}:{catcher.port}", flush=True)

        if not hosting.is_host:
            nursery.start_soon(report_takeover)
        async for _ in signals:  # type: ignore[attr-defined]  # trio gives its signal receiver no public type
            nursery.cancel_scope.cancel()
            return
