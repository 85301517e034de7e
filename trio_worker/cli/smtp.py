"""Trio. ``smtp``: checks a session with the relay, and traces the sessions of workers.

``check`` opens one session, times each step and sends nothing; ``explain`` says what a reply is taken for; ``trace``
orders workers to send their commands and the replies.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Sequence
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypeAlias, assert_never

import trio
from attrs import asdict, field
from cyclopts import App, Parameter

from trio_worker.bridge import open_bridge
from trio_worker.capture.host import read_host
from trio_worker.cli.connect import exit_on_signals, open_queue
from trio_worker.cli.durations import Duration
from trio_worker.cli.exit_codes import LOGIN_REFUSED, MISCONFIGURED, OK, REFUSED, TIMED_OUT, UNREACHABLE, USAGE
from trio_worker.cli.flags import AsJson, ConfigFile
from trio_worker.cli.json_documents import Document, with_schema
from trio_worker.cli.load_settings import load_settings
from trio_worker.cli.missing_password import MissingPassword, missing_password, without_login
from trio_worker.cli.output import print_json, redis_name, refuse, report_unavailable
from trio_worker.cli.setup import relay_of
from trio_worker.cli.smtp_explain import explain_reply
from trio_worker.cli.target_workers import ANSWER_POLL_SECONDS, Patience, choose_workers, order_workers
from trio_worker.fleet.orders import MAX_SECONDS, Trace, send_order
from trio_worker.fleet.watch import Watch
from trio_worker.jobs.address import AddressFault, Mailbox, may_be_mailed, parse_mailbox
from trio_worker.printing import complain, say
from trio_worker.privacy import mask_text
from trio_worker.records import define, frozen
from trio_worker.redis.calls import Unavailable
from trio_worker.settings.reader import Settings
from trio_worker.smtp.connection import Connection
from trio_worker.smtp.failure_kind import FailureKind
from trio_worker.smtp.outcome import Trouble, Unsendable
from trio_worker.smtp.reply import Reply, Stage
from trio_worker.smtp.session import Session, certificate_ends_at, open_session
from trio_worker.smtp.verify import verify_address
from trio_worker.telemetry.feed import FeedTrace
from trio_worker.telemetry.number_words import clock

_LABELS = {Stage.CONNECT: "connect", Stage.GREETING: "greeting"}

# How a check ends: with the reply that decided, with a reason why the relay was not asked, with trouble, or before the
# login, whose password is not known.
CheckEnd: TypeAlias = Reply | Unsendable | Trouble | MissingPassword

smtp = App(name="smtp", help="SMTP relay: check, explain, trace.", help_format="plaintext")


@frozen
class Step:
    """One step of a check: its name, its duration and its result, masked."""

    name: str
    seconds: float
    result: str


@define
class StepTimer:
    """Times the steps of one check, and prints each step as it ends, unless ``is_quiet``."""

    is_quiet: bool
    steps: list[Step] = field(factory=list)
    _since: float = field(factory=time.perf_counter)

    def note(self, stage: Stage, result: str) -> None:
        """Add a step that has just ended; its duration counts from the end of the step before."""
        self.add(_LABELS.get(stage, stage.upper()), result)

    def add(self, name: str, result: str) -> None:
        """Add a step by its name on the screen."""
        now = time.perf_counter()
        step = Step(name, now - self._since, mask_text(result))
        self._since = now
        self.steps.append(step)
        if not self.is_quiet:
            say(f"  {step.name:<9}{_milliseconds(step.seconds):>8} ms  {step.result}".rstrip(), flush=True)


@define
class TimedResolver(trio.abc.HostnameResolver):
    """Resolves names as trio does, as a separate step: else a slow name server would look like a slow relay."""

    timer: StepTimer

    async def getaddrinfo(self, host: bytes | None, port: Any, *kinds: int) -> Any:
        """Return the addresses that the resolver of the system finds."""
        resolve = partial(socket.getaddrinfo, host, port, *kinds)
        found = await trio.to_thread.run_sync(resolve, abandon_on_cancel=True)
        self.timer.add("resolve", " ".join(dict.fromkeys(str(address[4][0]) for address in found)))
        return found

    async def getnameinfo(self, sockaddr: Any, flags: int) -> tuple[str, str]:
        """Return the name of an address; opening a connection does not need it."""
        return await trio.to_thread.run_sync(socket.getnameinfo, sockaddr, flags, abandon_on_cancel=True)


@smtp.command(name="check")
async def check_relay(
    *,
    to: Annotated[str | None, Parameter(help="Recipient address to ask the relay about.")] = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> int:
    """Connect to the relay, start TLS, log in and send MAIL FROM, then RSET, and time every step. Sends no mail.

    A login whose password is not known here is not tried.
    """
    settings = load_settings(config)
    sender, recipient = _parties(settings, to)
    missing = missing_password(settings)
    relay = relay_of(settings) if missing is None else without_login(relay_of(settings))
    name = f"{settings.smtp.host}:{settings.smtp.port}"
    if not as_json:
        say(f"relay {name}")
    timer = StepTimer(is_quiet=as_json)
    began = time.perf_counter()
    # It stays for the whole run of trio, which is this command.
    trio.socket.set_custom_hostname_resolver(TimedResolver(timer))
    async with exit_on_signals(), open_bridge(complain):
        opened = await open_session(relay, timer.note)
        ended: CheckEnd
        if isinstance(opened, Session):
            # Read before the session ends, because the transport then forgets TLS.
            session = _session(opened)
            if missing is None:
                ended = await _try(opened, settings, sender, recipient, timer)
            else:
                ended = missing
                await Connection(0, opened, settings.smtp_timeouts).close()
        else:
            session, ended = _session(None), opened
    seconds = time.perf_counter() - began
    code = _code(ended)
    if as_json:
        steps = [{"step": each.name, "seconds": round(each.seconds, 4), "says": each.result} for each in timer.steps]
        problem = None if code == OK else _problem(ended, settings)
        document = {"relay": name, "ok": code == OK, "seconds": round(seconds, 4), "steps": steps, "problem": problem}
        print_json(Document.RELAY_CHECK, {**document, **session})
    elif code == OK:
        say(f"ok in {seconds * 1000:.0f} ms: no mail was sent")
    else:
        complain(f"failed after {seconds * 1000:.0f} ms: {_problem(ended, settings)}")
    return code


@smtp.command(name="trace")
async def trace_relay(
    *names: Annotated[str, Parameter(help="Names of workers, as `worker list` shows them; default: all.")],
    for_seconds: Annotated[Duration, Parameter(name="--for", help="Duration of the trace.")] = 60.0,
    patience: Patience = 10.0,
    config: ConfigFile = None,
    as_json: Annotated[bool, Parameter(name=["--json"], negative=(), help="Print one JSON object per line.")] = False,
) -> int:
    """Show the SMTP commands of workers and the replies of the relay, live. Addresses are masked, content is left out.

    At most 800 lines per second are shown.
    """
    if not 1 <= for_seconds <= MAX_SECONDS:
        refuse(USAGE, "--for: must be between 1s and 1d")
    settings = load_settings(config)
    async with open_queue(settings) as client:
        watch = Watch(client, settings.queue.name, redis_name(settings.redis.url), clock=trio.current_time)
        # Before the order: a worker traces only while there is a watcher, and lines of an older trace are skipped.
        failed = await watch.pass_over() or await watch.poll()
        if failed:
            return report_unavailable(failed, settings)
        wanted = await choose_workers(client, settings, names, every=not names)
        order, code = Trace(for_seconds), OK
        heard_at: float | None = None
        async with trio.open_nursery() as following:
            # The trace of the workers that answered is shown while others are still waited for.
            following.start_soon(partial(_follow, watch, order, wanted, as_json=as_json))
            async with aclosing(order_workers(client, settings, order, wanted, patience)) as answers:
                async for came in answers:
                    if isinstance(came, Unavailable):
                        code = report_unavailable(came, settings)
                        following.cancel_scope.cancel()
                        break
                    name, answer = came
                    if answer is None:
                        code = TIMED_OUT
                    elif heard_at is None:
                        heard_at = trio.current_time()
                    complain(f"{name}: {f'no answer within {patience:g} s' if answer is None else answer}")
            following.cancel_scope.deadline = (heard_at or trio.current_time()) + for_seconds
    return code


async def _follow(watch: Watch, order: Trace, names: Sequence[str], *, as_json: bool) -> None:
    """Print the lines of the trace as they come; after a failure of Redis the order is sent again."""
    is_away = False
    while True:
        failed = await watch.poll()
        if bool(failed) is not is_away:
            is_away = bool(failed)
            complain(f"Redis: {failed.reason}; retrying" if failed else "Redis answers again")
            if not failed:
                await send_order(watch.client, watch.queue_name, order, names)
        for line in watch.exchanges:
            if line.worker in names:
                say(
                    json.dumps(with_schema(Document.TRACE, asdict(line)), ensure_ascii=False)
                    if as_json
                    else _line(line),
                    flush=True,
                )
        await trio.sleep(ANSWER_POLL_SECONDS)


def _line(line: FeedTrace) -> str:
    exchange = line.exchange
    where = "opening" if exchange.connection_id is None else f"conn {exchange.connection_id}"
    took = f"{_milliseconds(exchange.seconds)} ms"
    return f"{clock(line.at)}  {line.worker}  {where:<8}  {exchange.said:<36}  {took:>9}  {exchange.reply}".rstrip()


def _parties(settings: Settings, to: str | None) -> tuple[Mailbox, Mailbox | None]:
    """Return the sender of the configuration and the recipient of --to, or exit."""
    sender = parse_mailbox(settings.mail.envelope_from or settings.mail.sender)
    if isinstance(sender, AddressFault):  # the settings were checked
        refuse(MISCONFIGURED, f"mail.from: {sender.reason}")
    if to is None:
        return sender, None
    recipient = parse_mailbox(to)
    if isinstance(recipient, AddressFault):
        refuse(REFUSED, f"--to: {recipient.reason}")
    if not may_be_mailed(settings.smtp.only_to, [recipient.address]):
        refuse(REFUSED, "--to: smtp.only_to does not allow this recipient")
    return sender, recipient


async def _try(
    opened: Session, settings: Settings, sender: Mailbox, recipient: Mailbox | None, timer: StepTimer
) -> CheckEnd:
    """Verify sender and recipient, then send QUIT; after trouble the session is aborted."""
    parties = [sender] if recipient is None else [sender, recipient]
    is_wide = any(each.needs_smtputf8 for each in parties)
    ended: CheckEnd
    try:
        if is_wide and not opened.capabilities.smtputf8:
            ended = Unsendable("an address is not ASCII and the relay does not offer SMTPUTF8")
        else:
            ended = await verify_address(
                opened,
                settings.smtp_timeouts,
                sender.address,
                None if recipient is None else recipient.address,
                needs_smtputf8=is_wide,
                on_step=timer.note,
            )
        if not isinstance(ended, Trouble):
            await Connection(0, opened, settings.smtp_timeouts).close()
    finally:
        opened.transport.abort()
    return ended


def _code(ended: CheckEnd) -> int:
    match ended:
        case Reply():
            return OK if ended.is_positive else REFUSED
        case Unsendable():
            return REFUSED
        case Trouble():
            return LOGIN_REFUSED if ended.how is FailureKind.LOGIN else UNREACHABLE
        case MissingPassword():
            return MISCONFIGURED
        case _:
            assert_never(ended)


def _problem(ended: CheckEnd, settings: Settings) -> str:
    """Return what went wrong; also that the relay is a mail catcher that does not run."""
    if isinstance(ended, Reply):
        return mask_text(f"{ended.stage.upper()} was refused: {ended}")
    if isinstance(ended, Unsendable | MissingPassword):
        return ended.why
    listen = settings.capture.listen
    if listen == f"{settings.smtp.host}:{settings.smtp.port}" and read_host(Path(settings.capture.dir)) is None:
        return f"{ended}: this is the mail catcher, which does not run now; start it with trio-worker capture run"
    return mask_text(str(ended))


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.1f}" if seconds < 0.01 else f"{seconds * 1000:.0f}"


def _session(opened: Session | None) -> dict[str, Any]:
    ends_at = None if opened is None else certificate_ends_at(opened.transport)
    return {
        "tls": "" if opened is None else opened.tls,
        "certificate_days": None if ends_at is None else int((ends_at - time.time()) // 86400),
        "extensions": [] if opened is None else list(opened.capabilities.keywords),
    }


smtp.command(explain_reply, name="explain")
