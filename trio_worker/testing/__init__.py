"""Trio. A complete worker for the tests of an application: it runs their jobs, catches the mails and injects faults.

`open_mail_worker` is for tests in trio; `open_blocking_mail_worker` runs the same worker in a thread, for all other
tests. The pytest plugin of this package makes fixtures of both.
"""

from __future__ import annotations

from trio_worker.capture.actions import CaughtMail
from trio_worker.queue.counts import Counts
from trio_worker.queue.record import ShelvedJob
from trio_worker.testing.blocking import BlockingMails, BlockingMailWorker, open_blocking_mail_worker
from trio_worker.testing.mail_worker import (
    Mails,
    MailWorker,
    MailWorkerError,
    NotInTimeError,
    mail_job,
    open_mail_worker,
)
from trio_worker.testing.producers import TrioRedis

__all__ = [
    "BlockingMailWorker",
    "BlockingMails",
    "CaughtMail",
    "Counts",
    "MailWorker",
    "MailWorkerError",
    "Mails",
    "NotInTimeError",
    "ShelvedJob",
    "TrioRedis",
    "mail_job",
    "open_blocking_mail_worker",
    "open_mail_worker",
]
