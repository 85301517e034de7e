"""Edge. The mail worker in a separate thread: its methods block, for tests without trio."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from email.message import EmailMessage
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, TypeVarTuple

from redis import Redis
from redis.asyncio import Redis as AsyncioRedis

from trio_worker.capture.actions import CaughtMail
from trio_worker.queue.counts import Counts
from trio_worker.queue.record import ShelvedJob
from trio_worker.records import define
from trio_worker.testing.mail_worker import WAIT_SECONDS, Mails, MailWorker, NotInTimeError, PushedJob, open_mail_worker
from trio_worker.trio_thread import TrioThread, open_trio_thread

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")


@define(eq=False, repr=False)
class BlockingMails:
    """`Mails` with methods that block."""

    _mails: Mails
    _thread: TrioThread[MailWorker]

    def __repr__(self) -> str:
        return repr(self._mails)

    @property
    def envelopes(self) -> tuple[CaughtMail, ...]:
        """Sender, recipients and octets of each mail, oldest first."""
        return self._thread.call_soon(lambda: self._mails.envelopes)

    def caught(self) -> list[EmailMessage]:
        """Return the mails caught so far, oldest first."""
        return self._thread.call(self._mails.caught)

    def wait(self, count: int = 1, timeout: float = WAIT_SECONDS) -> list[EmailMessage]:
        """Wait until ``count`` mails are caught since the start; return all of them. Raises `NotInTimeError`."""
        __tracebackhide__ = True
        return _raised_here(self._thread, self._mails.wait, count, timeout)


@define(eq=False, repr=False)
class BlockingMailWorker:
    """`MailWorker` with methods that block: the worker runs in a separate thread. Any thread may call them."""

    _worker: MailWorker
    _thread: TrioThread[MailWorker]
    mails: BlockingMails

    def __repr__(self) -> str:
        return repr(self._worker)

    @property
    def redis_url(self) -> str:
        """The URL that producers push to, in this process or another; fakeredis has none (ValueError)."""
        return self._worker.redis_url

    @property
    def queue_name(self) -> str:
        """The list that producers push to."""
        return self._worker.queue_name

    def connect(self) -> Redis:
        """Return a redis-py client of the queue's Redis, as producers use; closed with the worker."""
        return self._worker.connect()

    def connect_asyncio(self) -> AsyncioRedis:
        """Return redis-py's client for asyncio, for producers in a loop of the test; close it there (`async with`)."""
        return self._worker.connect_asyncio()

    def push(self, *jobs: PushedJob) -> None:
        """Push jobs in this order: documents (see `mail_job`), or bytes and text, which are pushed unchanged."""
        self._thread.call(self._worker.push, *jobs)

    def chaos(self, faults: str) -> None:
        """Make the relay inject faults from now on, such as ``rcpt=451:20%``; the empty text ends this."""
        self._thread.call_soon(self._worker.chaos, faults)

    def counts(self) -> Counts:
        """Return how many jobs are in each state."""
        return self._thread.call(self._worker.counts)

    def dead(self) -> list[ShelvedJob]:
        """Return the dead letters, oldest first: their bytes, and the ``cause`` of each."""
        return self._thread.call(self._worker.dead)

    def held(self) -> list[ShelvedJob]:
        """Return the held jobs, oldest first: they may have been delivered."""
        return self._thread.call(self._worker.held)

    def wait_until_idle(self, timeout: float = WAIT_SECONDS) -> None:
        """Wait until every job is sent, dead or held. Raises `NotInTimeError`."""
        __tracebackhide__ = True
        _raised_here(self._thread, self._worker.wait_until_idle, timeout)


def _raised_here(thread: TrioThread[MailWorker], function: Callable[[*_Ts], Awaitable[_T]], *args: *_Ts) -> _T:
    """Call a wait in the thread; raise its `NotInTimeError` here, so that the traceback ends where the test waits."""
    __tracebackhide__ = True
    try:
        return thread.call(function, *args)
    except NotInTimeError as error:
        raise error.with_traceback(None) from None


@contextmanager
def open_blocking_mail_worker(
    redis: str,
    *,
    config: Path | None = None,
    settings: Mapping[str, Any] | None = None,
    templates_from: Path | None = None,
) -> Iterator[BlockingMailWorker]:
    """Run `open_mail_worker` in a thread, for the block; everything is closed at its end."""
    opening = partial(open_mail_worker, redis, config=config, settings=settings, templates_from=templates_from)
    with open_trio_thread(opening) as (thread, worker):
        yield BlockingMailWorker(worker, thread, BlockingMails(worker.mails, thread))
