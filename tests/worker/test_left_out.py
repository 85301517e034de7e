"""Recipients left out, such as those beyond ASCII without SMTPUTF8: nobody else goes without the mail."""

from __future__ import annotations

import json

import pytest
import trio
from attrs import evolve

from tests.support.faults import faults
from tests.support.workers import WorkerMaker
from tests.worker.test_worker import counts, dead, recipients, run
from trio_worker.capture.catcher import Catcher
from trio_worker.capture.server import open_catcher
from trio_worker.capture.server_profile import EXTENSIONS
from trio_worker.jobs.catalogue import read_catalogue
from trio_worker.jobs.email_type import Catalogue
from trio_worker.mail.composer import Composer, open_composer
from trio_worker.mail.options import MailOptions
from trio_worker.queue.record import Cause, Failed, Record
from trio_worker.queue.settlement import DONE, Bury, Delay, Hold, Release, Verdict
from trio_worker.smtp.failure_kind import FailureKind
from trio_worker.worker.breaker import Open
from trio_worker.worker.events import BreakerChanged
from trio_worker.worker.left_out import WHY_UNFIT, with_left_out
from trio_worker.worker.phase import Disposition
from trio_worker.worker.worker import WorkerOptions

WIDE, ANN, BOB, CAT = "änne@example.org", "ann@example.org", "bob@example.org", "cat@example.org"
CAUSE = Cause("deferred", "450")


def message(*to: str, **fields: object) -> bytes:
    payload = {"to": to, "subject": "x", "text": "y", **fields}
    return json.dumps({"task_type": "Email", "data": {"email_type": "Message", "data": payload}}).encode()


def without_smtputf8(workers: WorkerMaker, catcher: Catcher) -> WorkerOptions:
    options = workers.options(catcher.port)
    return evolve(
        options, relay=evolve(options.relay, options=evolve(options.relay.options, ignore_ehlo=("SMTPUTF8",)))
    )


async def test_only_the_address_before_the_at_needs_the_extension(workers: WorkerMaker, catcher: Catcher) -> None:
    """Domains go as A-labels. Of several recipients those that can have the mail get it; the other is named."""
    await workers.push(message("you@exämple.org"), message(ANN, WIDE, "bob@EXÄMPLE.org"), message(WIDE))
    await run(workers.make(without_smtputf8(workers, catcher)))

    assert recipients(catcher) == {"you@xn--exmple-cua.org": 1, ANN: 1, "bob@xn--exmple-cua.org": 1}
    assert catcher.violations == ()
    parted, whole = sorted(await dead(workers.client), key=lambda job: job.record.delivered, reverse=True)
    assert parted.cause == Cause("unfit", text=f"1 of its recipients: {WHY_UNFIT}")
    assert (parted.record.delivered, parted.record.due) == (2, ())
    assert [(each.recipient, each.text) for each in parted.record.failed] == [(WIDE, WHY_UNFIT)]
    assert (whole.cause.word, whole.record.due) == ("unfit", None)
    assert "SMTPUTF8" in whole.cause.text
    # A retry is for those who went without.
    assert parted.record.reborn(0.0).due == (WIDE,)
    assert (await counts(workers.client)).known == 2


@pytest.mark.parametrize(
    ("to", "fault", "cause"),
    [
        ((ANN, WIDE, BOB), "rcpt=450:first1", ("unfit", "")),
        # Not beyond ASCII at all: one for now and one for good in the same attempt.
        ((ANN, CAT, BOB), "rcpt=450:first1 rcpt=550:first2", ("refused", "550 5.1.1")),
    ],
)
async def test_who_is_left_out_is_not_forgotten_when_the_others_have_the_mail(
    workers: WorkerMaker, catcher: Catcher, to: tuple[str, ...], fault: str, cause: tuple[str, str]
) -> None:
    """The first attempt delays the job for one of them; the second, which serves that one, does not make it done."""
    catcher.faults = faults(fault)
    await workers.push(message(*to))
    reporter = workers.make(without_smtputf8(workers, catcher), is_burst=False)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, reporter)
        with trio.fail_after(30):
            await workers.wait_until(lambda: reporter.board.ledger.settled[Disposition.DEAD] == 1)
        reporter.worker.drain("done")

    assert recipients(catcher) == {ANN: 1, BOB: 1}
    (letter,) = await dead(workers.client)
    assert (letter.cause.word, letter.cause.codes) == cause
    assert (letter.record.delivered, letter.record.due) == (2, ())
    assert [each.recipient for each in letter.record.failed] == [to[1]]


async def test_with_the_extension_everybody_has_the_mail(workers: WorkerMaker, catcher: Catcher) -> None:
    """It is used where an address needs it, and only there."""
    await workers.push(message(ANN, WIDE, "you@exämple.org"))
    await run(workers.make(workers.options(catcher.port)))

    assert recipients(catcher) == {ANN: 1, WIDE: 1, "you@xn--exmple-cua.org": 1}
    assert catcher.violations == ()
    assert f"To: {ANN}, {WIDE}".encode() in catcher.mails[0].content.replace(b"\r\n ", b" ")


@pytest.mark.parametrize("sender", ["Hänse <hi@bücher.example>", "hi@bücher.example"])
async def test_a_sender_whose_domain_is_beyond_ascii_sends(workers: WorkerMaker, catcher: Catcher, sender: str) -> None:
    """By its A-labels, over any relay."""
    workers.composer = composer_of(sender)
    await workers.push(message(ANN))
    await run(workers.make(without_smtputf8(workers, catcher)))

    assert [mail.sender for mail in catcher.mails] == ["hi@xn--bcher-kva.example"]
    assert catcher.violations == ()


def composer_of(sender: str) -> Composer:
    catalogue = read_catalogue(())
    assert isinstance(catalogue, Catalogue)
    composer = open_composer(MailOptions(sender=sender), catalogue)
    assert isinstance(composer, Composer)
    return composer


async def test_a_sender_that_the_relay_cannot_take_kills_no_mail(workers: WorkerMaker) -> None:
    """It is trouble between the relay and the settings: claiming stops by that name, and the jobs wait."""
    workers.composer = composer_of("hänse@example.com")
    await workers.push(*(message(ANN) for _ in range(20)))
    async with open_catcher(extensions=EXTENSIONS - {"SMTPUTF8"}) as catcher:
        options = workers.options(catcher.port)
        options = evolve(options, relay=evolve(options.relay, needs_smtputf8=True))
        reporter = workers.make(options, is_burst=False)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run, reporter)
            with trio.fail_after(30):
                await workers.wait_until(
                    lambda: any(
                        isinstance(each, BreakerChanged) and isinstance(each.breaker, Open) for each in workers.events
                    )
                )
            trouble = reporter.worker._gate.trouble
            reporter.worker.drain("done")

    assert trouble is not None
    assert trouble.how is FailureKind.EXTENSION
    assert await dead(workers.client) == []
    assert catcher.total == 0


@pytest.mark.parametrize(
    "verdict",
    [Delay(1.0, Record(1.0), CAUSE), Release(Record(1.0), CAUSE), Hold(Record(1.0), CAUSE), Bury(Record(1.0), CAUSE)],
)
def test_while_all_are_due_nobody_is_told_apart(verdict: Verdict) -> None:
    """A mail that went to nobody is tried as it is, perhaps at a relay with the extension."""
    assert with_left_out(verdict, (WIDE,), 1, Record(1.0), 2.0) == verdict


def test_who_was_left_out_is_named_once() -> None:
    """As soon as others are parted, before those who are refused in the same attempt; and in the end."""
    refused = Failed(CAT, "550")
    first = Delay(1.0, Record(1.0, due=(ANN,), delivered=1, failed=(refused,)), CAUSE)
    parted = with_left_out(first, (WIDE,), 2, Record(1.0), 2.0)
    assert isinstance(parted, Delay)
    assert [each.recipient for each in parted.record.failed] == [WIDE, CAT]

    assert with_left_out(parted, (), 1, parted.record, 3.0) == parted
    done = with_left_out(DONE, (), 1, parted.record, 4.0)
    assert isinstance(done, Bury)
    assert (done.record.due, done.record.delivered, done.record.attempts) == ((), 2, 1)
    assert done.record.failed == parted.record.failed
    assert with_left_out(DONE, (), 1, Record(1.0), 4.0) is DONE
