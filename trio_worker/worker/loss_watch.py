"""Trio. Notices that Redis has lost data, and has it noted in Redis: once, however many workers see it."""

from __future__ import annotations

import secrets

import trio
from attrs import field

from trio_worker.queue.keys import keys_of
from trio_worker.queue.losses import LOSS_SHOWN_SECONDS, LossSign
from trio_worker.records import define, frozen
from trio_worker.redis.calls import Unavailable
from trio_worker.redis.client import RedisClient
from trio_worker.worker.events import DataLost, Publish

# A note that Redis does not take is tried again after this.
NOTE_AGAIN_SECONDS = 2.0
# No call takes so long: an answer that is older than the last one by more shows that Redis' clock was set back.
SET_BACK_SECONDS = 60.0


@frozen
class QueueSum:
    """The sums of a queue at one moment of Redis' clock (epoch seconds), as a claim or a heartbeat brings them.

    ``ever_popped`` counts the jobs that were ever taken from the list, and falls only if Redis loses data. After that
    moment a claim took ``popped`` more.
    """

    at: float
    ever_popped: int
    generation: str = ""
    popped: int = 0


@frozen
class _Suspicion:
    """A loss that is to be noted in Redis; ``again`` of it may be sent again, as far as this worker knows."""

    sign: LossSign
    count: int
    args: tuple[str | int, ...] = ()
    again: int = 0
    is_told: bool = False  # its event was published


@define(eq=False)
class LossWatch:
    """What one worker has seen of a queue's sums. `run` it beside the work, and `note` what is left at the end."""

    client: RedisClient
    queue_name: str
    publish: Publish
    _last: QueueSum | None = None
    _known: set[str] = field(factory=set)  # generations in which this worker has seen the queue
    _pending: list[_Suspicion] = field(factory=list)
    _has_pending: trio.Event = field(factory=trio.Event)
    _noting: trio.Lock = field(factory=trio.Lock)

    def see(self, found: QueueSum, waiting: int = 0) -> None:
        """Take in sums; ``waiting`` jobs were in the list after them."""
        last = self._last
        if last is not None and 0 <= last.at - found.at < SET_BACK_SECONDS:
            # The last ones came later from Redis, or in the same millisecond: these are older, and tell nothing new.
            return
        is_noted = found.generation not in ("", *self._known)
        if last is not None and not is_noted and found.ever_popped < last.ever_popped:
            lost = last.ever_popped - found.ever_popped
            again = min(lost, found.popped + waiting)
            args = (found.generation, secrets.token_hex(4), found.popped)
            self._suspect(_Suspicion(LossSign.TOTALS, lost, args, again))
        self._adopt(found)

    def see_evicted(self, run_id: str, before: int, now: int) -> None:
        """Take in that a server has evicted keys: their number at the last look and at this one."""
        self._suspect(_Suspicion(LossSign.EVICTED, now - before, (run_id or "-", before, now)))

    def see_gone(self, count: int) -> None:
        """Take in that settlements found their jobs gone. Each is this worker's alone, so it is told at once."""
        self.publish(DataLost(LossSign.GONE, count))
        self._suspect(_Suspicion(LossSign.GONE, count, is_told=True))

    async def run(self) -> None:
        """Note losses in Redis, until cancelled."""
        while True:
            await self._has_pending.wait()
            await self.note()
            if self._pending:
                await trio.sleep(NOTE_AGAIN_SECONDS)

    async def note(self) -> None:
        """Note the losses that were seen; what Redis does not take stays, unless it may not be noted at all."""
        async with self._noting:
            while self._pending:
                suspicion = self._pending[0]
                answer = await self.client.run_script(
                    "lost",
                    keys_of(self.queue_name),
                    suspicion.sign,
                    round(LOSS_SHOWN_SECONDS * 1000),
                    suspicion.count,
                    *suspicion.args,
                )
                if isinstance(answer, Unavailable):
                    if not answer.is_misconfigured:
                        return
                    self._tell(suspicion, suspicion.count, suspicion.again)
                else:
                    self._take(suspicion, answer)
                del self._pending[0]
        if not self._pending:
            self._has_pending = trio.Event()

    def _suspect(self, suspicion: _Suspicion) -> None:
        self._pending.append(suspicion)
        self._has_pending.set()

    def _take(self, suspicion: _Suspicion, answer: list[int | bytes]) -> None:
        lost, again, _ever, generation = answer
        if suspicion.sign is LossSign.TOTALS and isinstance(generation, bytes):
            self._known.add(generation.decode("utf-8", "replace"))
        if lost:
            self._tell(suspicion, int(lost), int(again))

    def _tell(self, suspicion: _Suspicion, lost: int, again: int) -> None:
        if not suspicion.is_told:
            self.publish(DataLost(suspicion.sign, lost, again))

    def _adopt(self, found: QueueSum) -> None:
        self._known.add(found.generation)
        after = found.ever_popped + found.popped
        self._last = QueueSum(found.at, after, found.generation)
