"""Trio. The consumers: a fixed set of tasks, each of which sees a run of jobs through from claim to settlement.

A consumer receives a run, decodes and composes its mails, borrows a connection, sends while the connection's window has
room, waits for replies, decides and settles. It is woken once for all replies that come together, so many mails on one
connection cost less for each, and no mail goes without a task that has it.
"""

from __future__ import annotations

import math
import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, TypeAlias, assert_never

import trio
from attrs import evolve, field

from trio_worker.queue.broker import Broker
from trio_worker.queue.claim import Claim
from trio_worker.queue.record import Cause
from trio_worker.queue.settlement import DONE, Done, Release, Verdict
from trio_worker.records import define
from trio_worker.redis.calls import Unavailable
from trio_worker.smtp.capabilities import Capabilities
from trio_worker.smtp.connection import Connection
from trio_worker.smtp.failure_kind import FailureKind
from trio_worker.smtp.outcome import Accepted, Outcome, Trouble, Unopened
from trio_worker.smtp.pool import Pool, PoolClosed
from trio_worker.smtp.transaction import Transaction
from trio_worker.worker.attempt import report_of
from trio_worker.worker.delivery import Delivery
from trio_worker.worker.evidence import MET_ALONE
from trio_worker.worker.gate import Gate
from trio_worker.worker.in_flight import InFlight
from trio_worker.worker.left_out import with_left_out
from trio_worker.worker.load import Load
from trio_worker.worker.options import RetryPolicy
from trio_worker.worker.preparation import Preparation, now_of
from trio_worker.worker.settling import Settler
from trio_worker.worker.turns import BIG_OCTETS
from trio_worker.worker.verdict import Terms, decide, is_done

if TYPE_CHECKING:
    from trio_worker.queue.receipt import ReceiptWriter

# A mail that has met a limit on connections as often stops no claims when it meets it over the last one: others will.
MET_BEFORE = 2

Dice: TypeAlias = Callable[[], float]
# Jobs that one consumer takes at once.
Run: TypeAlias = Sequence[Claim]

# What became of mails, to be decided on.
Concluded: TypeAlias = Sequence[tuple[Delivery, Outcome]]

_STOPPED = Cause("released", text="the worker stopped before it was sent")
_DRAINS = Cause("released", text="the worker drains")
_UNKEPT = Cause("unkept", text="not sent: neither Redis nor the journal can be written")


@define(eq=False)
class Consumers:
    """The consumer tasks of one worker, and the channel through which the claiming task gives them runs of jobs.

    ``start`` opens ``number`` tasks in a nursery; they end when `close` was called and the channel is empty. A cancel
    of that nursery breaks what is under way: nothing that was claimed is left without a verdict.
    """

    preparation: Preparation
    broker: Broker
    in_flight: InFlight
    settler: Settler
    gate: Gate
    pool: Pool
    retry: RetryPolicy
    receipts: ReceiptWriter | None = None
    dice: Dice = field(default=random.random)
    number: int = 0
    running: int = 0
    busy: int = 0  # consumers that have a job
    _load: Load = field(factory=Load)  # of those, over the last minute
    _nursery: trio.Nursery | None = None
    _context: Context = field(factory=Context)  # in which each consumer starts
    _send: trio.MemorySendChannel[Run] = field(init=False)
    _receive: trio.MemoryReceiveChannel[Run] = field(init=False)
    _hungry: dict[Connection, None] = field(factory=dict)  # busy, with room for more mails
    _capabilities: Capabilities = field(factory=Capabilities)  # of the connection that was used last

    def __attrs_post_init__(self) -> None:
        # What lies in it is bounded by the jobs in flight; to give a run must not wait, or a cancel would lose it.
        self._send, self._receive = trio.open_memory_channel[Run](float("inf"))

    def start(self, nursery: trio.Nursery, number: int) -> None:
        """Start the consumers; ``nursery`` outlives the claiming task."""
        self._nursery, self._context = nursery, copy_context()
        self._load.add(trio.current_time(), 0)
        self.set_number(number)

    def set_number(self, number: int) -> None:
        """Set the number of consumers; those beyond it end after the run that they have.

        After `close` none is started or woken: all of them end.
        """
        self.number = number
        if self._nursery is None:
            return
        while self.running < number:
            self.running += 1
            # A task begins in the context of its starter; a signal's, for example, has no asyncio loop.
            self._context.run(self._nursery.start_soon, self._consume)
        for _ in range(self.running - number):
            self._send.send_nowait(())  # wakes an idle one, to see that it is one too many

    def give(self, claims: Sequence[Claim], waiting: int) -> None:
        """Deal the jobs of one claim, behind which ``waiting`` more wait: few are spread, many go by the window.

        Each big one goes alone: no mail shall wait until it is made.
        """
        depth = self.pool.depth
        big = [claim for claim in claims if len(claim.body) > BIG_OCTETS]
        if big:
            claims = [claim for claim in claims if len(claim.body) <= BIG_OCTETS]
        has_plenty = waiting >= self.number * depth
        runs = math.ceil(len(claims) / depth) if has_plenty else max(1, min(len(claims), self.number))
        size = max(1, min(depth, math.ceil(len(claims) / max(1, runs))))
        for start in range(0, len(claims), size):
            self._send.send_nowait(claims[start : start + size])
        for claim in big:
            self._send.send_nowait((claim,))
        # What no idle consumer took is for those whose windows have room.
        for connection in tuple(self._hungry)[: self._receive.statistics().current_buffer_used]:
            connection.nudge()

    def close(self) -> None:
        """Give nothing more: each consumer ends when the channel is empty, and none is started. Never awaits."""
        self._nursery = None
        self._send.close()

    def release_waiting(self) -> None:
        """Give back what lies in the channel when no consumer is left to take it. Never awaits."""
        while self._receive.statistics().current_buffer_used:  # an empty run among them is not the last one
            self._release([Delivery(claim, claim.record) for claim in self._waiting_run()], _STOPPED)

    def idle_share(self, now: float) -> float | None:
        """Return which part of the consumers had no job over the last minute; None before the first job."""
        mean = self._load.mean(now)
        return None if mean is None or not self.number else min(1.0, max(0.0, 1 - mean / self.number))

    async def _consume(self) -> None:
        """One consumer."""
        self._note_busy(1)
        try:
            while self.running <= self.number:
                ready = await self._prepared(await self._next_run())
                try:
                    while ready:
                        async with self.pool.borrow() as connection:
                            last = await self._carry(ready, connection)
                        self._conclude(last)  # who waits for the connection has it by now
                finally:
                    self._release(ready, _STOPPED)
        except trio.EndOfChannel:
            pass
        finally:
            self.running -= 1
            self._note_busy(-1)

    async def _carry(self, ready: deque[Delivery], connection: Connection | Trouble | PoolClosed) -> Concluded:
        """Send what is ready over a connection, and what comes in the meantime; return what is to be decided on."""
        last: Concluded = ()
        match connection:
            case PoolClosed():
                self._release(ready, _DRAINS)
            case Trouble():
                last = [(delivery, Unopened(connection)) for delivery in _taken(ready, len(ready))]
            case Connection():
                under_way: dict[Transaction, Delivery] = {}
                try:
                    last = await self._exchange(ready, connection, under_way)
                finally:
                    if under_way:  # a cancel came while Redis was asked
                        connection.abort()
                        self._conclude(_take_concluded(connection.take_decided(), under_way, connection))
                if connection.conversation.end is not None:
                    self._conclude(last)
                    last = ()
                    # If a cancel ended it: the next one may be there without a wait, and must not be sent over.
                    await trio.lowlevel.checkpoint_if_cancelled()
            case _:
                assert_never(connection)
        return last

    async def _exchange(
        self, ready: deque[Delivery], connection: Connection, under_way: dict[Transaction, Delivery]
    ) -> Concluded:
        """Feed a connection while its window has room and mails are there, until nothing is under way on it.

        Returns the outcomes of the last mails: the next borrower of the connection need not wait for their verdicts.
        """
        sent = 0
        while True:
            if self.pool.is_closed:
                self._release(ready, _DRAINS)
            may_go_on = bool(ready) or self._may_go_on(sent)
            room = self.pool.room(connection) if may_go_on else 0
            if room and not ready:
                ready += await self._prepared(self._small_run() if under_way else self._waiting_run())
            batch = await self._cleared(ready, room) if room and ready else ()
            if batch:
                sent += len(batch)
                self._begin(batch, connection, under_way)
            if not under_way:
                return ()
            if room > len(batch):
                self._hungry[connection] = None
            decided = await connection.outcomes()
            self._hungry.pop(connection, None)
            if not decided and ready:
                self._share(ready)
            concluded = _take_concluded(decided, under_way, connection)
            if not under_way and not ready and not self._may_go_on(sent):
                return concluded
            self._conclude(concluded)

    def _share(self, ready: deque[Delivery]) -> None:
        """Let idle consumers have their part of the mails that wait for room, if places are free for them.

        The relay may be slow on one connection alone; the pool nudges who has such a one.
        """
        idle = min(self._receive.statistics().tasks_waiting_receive, self.pool.free)
        size = math.ceil(len(ready) / (idle + 1))
        for _ in range(idle):
            # Their mails are made again: that is rare, and cheap compared with a wait for the relay.
            shared = [ready.pop().claim for _ in range(min(size, len(ready)))]
            if shared:
                self._send.send_nowait(shared[::-1])

    def _may_go_on(self, sent: int) -> bool:
        """Whether to take more mails for a connection: after a window's worth it is another one's turn."""
        is_enough = sent >= self.pool.depth
        return self.running <= self.number and not (is_enough and self.pool.waiting)

    async def _cleared(self, ready: deque[Delivery], room: int) -> Sequence[Delivery]:
        """Take what may go now, at most ``room`` mails; leases that may have run out are confirmed first.

        What is not to be sent is settled here.
        """
        if not self.settler.can_keep:
            self._release(ready, _UNKEPT)
            return ()
        batch = _taken(ready, room)
        since = trio.current_time() - self.broker.options.lease_seconds / 2
        must_mark = True in [each.is_held_when_uncertain for each in batch]
        if not must_mark and self.in_flight.are_young([each.claim for each in batch], since):
            return batch
        doubtful = [
            each for each in batch if each.is_held_when_uncertain or not self.in_flight.is_young(each.claim, since)
        ]
        try:
            lost = await self._confirm(doubtful)
        except BaseException:
            ready.extendleft(reversed([each for each in batch if each.verdict is None]))
            raise
        return [each for each in batch if each not in lost]

    async def _confirm(self, doubtful: Sequence[Delivery]) -> set[Delivery]:
        """Ask Redis just before the bytes go out whether jobs are still ours; return those that are not, released."""
        lost: set[Delivery] = set()
        for marks_started in (False, True):
            asked = [each for each in doubtful if each.is_held_when_uncertain is marks_started]
            if not asked:
                continue
            began = trio.current_time()
            found = await self.broker.confirm([each.claim for each in asked], marks_started=marks_started)
            if isinstance(found, Unavailable):
                lost.update(asked)
                self._release(asked, Cause("unconfirmed", text=f"not sent: {found.reason}"))
                continue
            gone = [each for each in asked if each.claim in found]
            self.in_flight.note_renewed([each.claim for each in asked if each.claim not in found], (), began)
            lost.update(gone)
            self._release(gone, Cause("unconfirmed", text="not sent: another worker took it over"))
        return lost

    def _begin(self, batch: Sequence[Delivery], connection: Connection, under_way: dict[Transaction, Delivery]) -> None:
        """Have a connection send mails, in one write; one that cannot be put into words is buried."""
        now, counted = trio.current_time(), time.perf_counter()
        capabilities, was_idle = connection.session.capabilities, connection.was_idle
        self._capabilities = capabilities
        for delivery in batch:
            delivery.borrow_seconds = counted - delivery.ready_at
            awaits_recipients = was_idle or delivery.is_held_when_uncertain
            try:
                transaction = connection.begin(
                    delivery.envelope(capabilities, awaits_recipients=awaits_recipients), now
                )
            except Exception as error:  # noqa: BLE001  the edge of one job, as in preparation
                delivery.verdict = self.preparation.bury_broken(delivery, error)
                self.settler.settle_nowait((delivery,))
            else:
                under_way[transaction] = delivery
                was_idle = False
        connection.flush(now)

    def _conclude(self, concluded: Concluded) -> None:
        """Decide what becomes of jobs now that it is known what became of their mails, and settle them."""
        for delivery, outcome in concluded:
            try:
                delivery.verdict = self._judge(delivery, outcome)
            except Exception as error:  # noqa: BLE001  the edge of one job, as in preparation
                delivery.verdict = self.preparation.bury_broken(delivery, error)
            delivery.mail = None  # from here on it would only take up memory
        if concluded:
            self.settler.settle_nowait([delivery for delivery, _ in concluded])

    def _judge(self, delivery: Delivery, outcome: Outcome) -> Verdict:
        """Learn from what became of a mail, and decide what becomes of its job."""
        delivery.outcome = outcome
        delivery.tried = report_of(
            outcome,
            len(delivery.recipients),
            delivery.content_bytes,
            delivery.compose_seconds,
            delivery.borrow_seconds,
            self.gate.rules,
        )
        judgement = self.gate.note(outcome, delivery.claim.job_id, delivery.record.losses)
        if is_done(outcome) and not delivery.unfit and not delivery.record.failed:
            if self.receipts is not None:
                delivery.receipt = _receipt(self.receipts, delivery, outcome)
            return DONE
        if judgement is not None and judgement.trouble is not None:
            self._leave_connection(delivery, judgement.trouble)
        now = now_of(delivery.claim)
        terms = Terms(self.retry, delivery.on_uncertain, now, self.dice(), judgement, self.gate.rules)
        verdict = decide(outcome, delivery.recipients, delivery.record, terms)
        if delivery.unfit or delivery.record.failed:
            verdict = with_left_out(verdict, delivery.unfit, len(delivery.recipients), delivery.record, now)
        if isinstance(verdict, Done):
            return verdict
        return evolve(verdict, record=verdict.record.tried_on(now, delivery.connection_id, delivery.smtp_seconds))

    def _leave_connection(self, delivery: Delivery, trouble: Trouble) -> None:
        """Do with one connection less if the relay says that there are too many; with none left, stop claiming."""
        if trouble.how is not FailureKind.CONCURRENCY or delivery.connection_id is None:
            return
        if delivery.record.losses >= MET_ALONE:
            return  # this mail meets it over each connection, so it says nothing of one
        began = trio.current_time() - (delivery.smtp_seconds or 0.0)
        is_last = not self.pool.withdraw(delivery.connection_id, trouble, began)
        if is_last and delivery.record.losses < MET_BEFORE:
            self.gate.note_trouble(trouble)

    async def _prepared(self, run: Run) -> deque[Delivery]:
        """Return the deliveries of a run that are to be sent; those that have their verdict already are settled.

        Awaits only where jobs are large, so that others go on between two of them; a cancel then releases all.
        """
        deliveries = [Delivery(claim, claim.record) for claim in run]
        if self.pool.is_closed:
            self._release(deliveries, _DRAINS)
            return deque()
        if self.preparation.turns.take_nowait(sum([len(claim.body) for claim in run])):
            now = now_of(run[0]) if run else 0.0  # all of one claim
            for delivery in deliveries:
                self.preparation.prepare(delivery, now)
        else:
            await self._prepare_in_turns(deliveries)
        decided = [delivery for delivery in deliveries if delivery.verdict is not None]
        if decided:
            self.settler.settle_nowait(decided)
        return deque([delivery for delivery in deliveries if delivery.verdict is None])

    async def _prepare_in_turns(self, deliveries: Sequence[Delivery]) -> None:
        try:
            for delivery in deliveries:
                await self.preparation.prepare_in_turn(delivery, now_of(delivery.claim), self._capabilities)
        except BaseException:
            self._release(deliveries, _STOPPED)
            raise

    def _release(self, deliveries: Iterable[Delivery], cause: Cause) -> None:
        """Give jobs back whose mails never came to their turn; empties a line that they wait in."""
        released = list(deliveries)
        for delivery in released:
            delivery.verdict, delivery.mail = Release(delivery.record, cause), None
        if isinstance(deliveries, deque):
            deliveries.clear()
        if released:
            self.settler.settle_nowait(released)

    async def _next_run(self) -> Run:
        """Wait for a run; raises trio.EndOfChannel when there is no further one."""
        run = self._waiting_run()
        if not run:
            self._note_busy(-1)
            try:
                run = await self._receive.receive()
            finally:
                self._note_busy(1)
        return run

    def _small_run(self) -> Run:
        """Return a run that waits, but no big job: the replies to mails under way would wait for it."""
        run = self._waiting_run()
        if not run or len(run[0].body) <= BIG_OCTETS or self._nursery is None:
            return run
        self._send.send_nowait(run)
        return ()

    def _waiting_run(self) -> Run:
        """Return a run that waits in the channel; an empty one where there is none."""
        try:
            return self._receive.receive_nowait()
        except (trio.WouldBlock, trio.EndOfChannel):
            return ()

    def _note_busy(self, more: int) -> None:
        self.busy += more
        self._load.add(trio.current_time(), more)


def _receipt(receipts: ReceiptWriter, delivery: Delivery, outcome: Outcome) -> str:
    """Return the receipt of a mail that is done, for all of its recipients: some may have had it for long."""
    recipients = delivery.recipients
    if delivery.record.due is not None and delivery.mail is not None:
        recipients = delivery.mail.recipients
    reply = f"{outcome.reply.codes} {outcome.reply.text}" if isinstance(outcome, Accepted) else ""
    mail_id = delivery.record.mail_id
    return receipts.receipt(delivery.claim.job_id, recipients, reply, delivery.producer_id, mail_id)


def _take_concluded(
    decided: Iterable[Transaction], under_way: dict[Transaction, Delivery], connection: Connection
) -> list[tuple[Delivery, Outcome]]:
    """Take from what is under way those mails whose outcome is known, and note how that went."""
    concluded = []
    for transaction in decided:
        delivery = under_way.pop(transaction, None)
        if delivery is not None and transaction.outcome is not None:
            delivery.smtp_seconds, delivery.connection_id = transaction.seconds, connection.connection_id
            concluded.append((delivery, transaction.outcome))
    return concluded


def _taken(line: deque[Delivery], count: int) -> list[Delivery]:
    """Take ``count`` deliveries from the head of a line."""
    return [line.popleft() for _ in range(min(count, len(line)))]
