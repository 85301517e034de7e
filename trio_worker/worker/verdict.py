"""Pure. What becomes of a job after an attempt: the policy, in one place.

The policy in English:

A mail the relay accepted is done. A mail the relay refuses for good (5xx) is dead at once, with the relay's words. A
mail refused for now (4xx, greylisting, a full mailbox at RCPT) is tried again later, each time after a longer wait,
or after the time that the reply names; when its attempts or its age are used up it is dead. Of several recipients each
has a fate of its own: who was accepted is never sent to again, who was refused for now is tried again alone.

What is not the mail's fault costs it nothing. When a connection ends that has worked before, the job goes back as it
was. When no connection can be opened, the job goes back as it was and claiming stops: that is the breaker's matter
(`relay_trouble`). The same holds for a refusal that speaks of us, our account, our rate or the session (`evidence`,
`reply_classes`). A mail that meets such trouble again is delayed, at no cost: if it is this mail that the relay cannot
bear, the next probe must be another one. A refusal that every mail gets, and no table knows, holds the mails that get
it from then on, for a person. Only a mail that
has lost three connections after the relay took its sender pays an attempt for each further one: it may be this mail
that makes the relay hang up. A relay that says 421 on a connection that has worked is given more credit: it may close
after every few mails.

When all of a message went out and no final reply came, nobody can know. The email type says whether such a mail is
tried again, with the same Message-ID, or held for a human.

A job before its time is put back until then; a job past its time is dead.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import assert_never

from attrs import evolve

from trio_worker.queue.record import Attempt, Cause, Failed, Record
from trio_worker.queue.settlement import DONE, Bury, Delay, Hold, Release, Verdict
from trio_worker.records import frozen
from trio_worker.smtp.failure_kind import FailureKind
from trio_worker.smtp.outcome import (
    Accepted,
    Loss,
    NotSent,
    Outcome,
    Refusal,
    Refused,
    Trouble,
    Uncertain,
    Unopened,
    Unsendable,
)
from trio_worker.smtp.reply import Reply, Stage
from trio_worker.worker.evidence import Attribution, Circumstances, Evidence, Judgement, deciding, judge
from trio_worker.worker.named_time import hinted_seconds
from trio_worker.worker.options import RetryPolicy
from trio_worker.worker.reply_classes import classify, is_for_good
from trio_worker.worker.reply_rule import ReplyClass, ReplyRule

# Losing a connection after MAIL is forgiven this often before an attempt is spent on it.
FORGIVEN_LOSSES = 3
# A relay that says 421 after every n mails says it to any one mail by chance: for n = 2 twenty times in a row once in
# a million mails. Beyond that it is this mail that it closes for.
FORGIVEN_CLOSINGS = 20
# What ends a session before MAIL is taken is the relay's trouble once; a mail that meets it again lets others go first.
FORGIVEN_TROUBLES = 1
# More mails than the relay takes in a time, or than it takes connections: a mail may meet that by chance as often.
FORGIVEN_LIMITS = 20
# The cause of a mail that is held because every mail gets the same refusal.
GUARD_WORD = "standing?"


@frozen
class Terms:
    """What a decision depends on beside the outcome.

    ``now`` is Redis' clock in epoch seconds, ``dice`` a random number from 0 up to 1, ``on_uncertain`` the email
    type's policy: ``retry`` or ``hold``. ``judgement`` says whose matter a refusal is; without one it is judged by
    itself, as if no other mail had been tried. ``rules`` are the user's for replies.
    """

    retry: RetryPolicy
    on_uncertain: str
    now: float
    dice: float
    judgement: Judgement | None = None
    rules: Sequence[ReplyRule] = ()


def is_done(outcome: Outcome) -> bool:
    """Whether a mail was accepted for everybody it was due to: then it is `DONE`, whatever the terms."""
    return isinstance(outcome, Accepted) and not outcome.refusals


def decide(outcome: Outcome, recipients: tuple[str, ...], record: Record, terms: Terms) -> Verdict:
    """Return what becomes of the job after an attempt for ``recipients``; the record inside is the one to store."""
    match outcome:
        case Accepted(reply, refusals):
            if is_done(outcome):
                return DONE
            counted = evolve(record, delivered=record.delivered + len(recipients) - len(refusals))
            return _sort_recipients((), refusals, reply, recipients, counted, terms)
        case Refused():
            return _refused(outcome, recipients, record, terms)
        case NotSent(loss):
            return _not_sent(loss, record, terms)
        case Uncertain(loss):
            return _uncertain(loss, record, terms)
        case Unsendable(why):
            return bury(record, Cause("unfit", text=why), terms.now)
        case Unopened(trouble):
            return Release(record, _cause_of_trouble(trouble))
        case _:
            assert_never(outcome)


def admit(
    record: Record, not_before: float | None, expires_at: float | None, max_age_seconds: float | None, now: float
) -> Delay | Bury | None:
    """Return why a job is not to be tried now, or None: it came before its time, or it is past it."""
    if expires_at is not None and now >= expires_at:
        return bury(record, Cause("expired", text="its expires_at has passed"), now)
    if max_age_seconds is not None and now - record.born >= max_age_seconds:
        text = f"older than {max_age_seconds:.0f} s, the limit of its type"
        return bury(record, Cause("expired", text=text), now)
    if not_before is not None and now < not_before:
        cause = Cause("early", text="its not_before is ahead")
        return Delay(not_before - now, evolve(record, cause=cause), cause)
    return None


def relay_trouble(outcome: Outcome) -> Trouble | None:
    """Return the trouble that opens the breaker, if a connection says so; refusals are judged by `evidence`."""
    match outcome:
        case Unopened(trouble):
            return trouble
        case NotSent(loss) if _is_relays(loss) and not loss.had_delivered and loss.how is not FailureKind.CANCELLED:
            return Trouble(loss.how, loss.stage, loss.reason, loss.reply)
        case _:
            return None


def _is_relays(loss: Loss) -> bool:
    """Whether a connection was lost for what the relay does to every mail, as far as one mail can tell."""
    return not loss.mail_accepted or (loss.how is FailureKind.GARBLED and not loss.had_delivered)


def backoff_seconds(attempts: int, base_seconds: float, cap_seconds: float, dice: float) -> float:
    """Return the wait after ``attempts`` failures: doubling from the base up to the cap, a quarter either way.

    The spread keeps mails that failed together from coming back together.
    """
    # Beyond 2^40 bases every cap is reached; the bound keeps the power small.
    doubled = min(cap_seconds, base_seconds * 2.0 ** min(max(attempts - 1, 0), 40))
    return doubled * (0.75 + 0.5 * dice)


def cause_of_reply(word: str, reply: Reply) -> Cause:
    """Return the cause that a reply gives."""
    return Cause(word, reply.codes, reply.stage, reply.text)


def cause_of_acceptance(reply: Reply) -> Cause:
    """Return the cause of a mail that is done: the codes of the reply that took it."""
    return _accepted(reply.code, reply.enhanced, reply.stage)


@lru_cache(64)
def _accepted(code: int, enhanced: str, stage: Stage) -> Cause:
    # A relay's acceptances differ in their text alone.
    return Cause("accepted", Reply(code, "", stage, enhanced).codes, stage)


def cause_of_loss(word: str, loss: Loss) -> Cause:
    """Return the cause that the end of a connection gives."""
    if loss.reply is None:
        return Cause(word, str(loss.how), loss.stage, loss.reason)
    if loss.how in {FailureKind.GARBLED, FailureKind.AHEAD}:
        # The reply by itself may look good.
        return Cause(word, str(loss.how), loss.stage, f"{loss.reason}: {loss.reply}")
    return cause_of_reply(word, loss.reply)


def _cause_of_trouble(trouble: Trouble) -> Cause:
    if trouble.reply is not None:
        return cause_of_reply("relay", trouble.reply)
    return Cause("relay", str(trouble.how), trouble.stage, trouble.reason)


def _refused(outcome: Refused, recipients: tuple[str, ...], record: Record, terms: Terms) -> Verdict:
    judgement = terms.judgement or judge(
        outcome, "", Evidence(), Circumstances(0, is_closed=True, losses=record.losses, guard=0, rules=terms.rules)
    )
    match judgement.attribution:
        case Attribution.MAIL:
            return _refused_alone(outcome.reply, outcome.refusals, recipients, record, terms)
        case Attribution.RELAY:
            if judgement.classified.names_recipient and judgement.classified.reply_class is ReplyClass.RATE:
                # It may be this recipient alone: then it must not be the first mail after every pause.
                return _stand_aside(record, cause_of_reply("relay", outcome.reply), terms, 0)
            return _put_back(deciding(outcome, terms.rules)[0], judgement.classified.reply_class, record, terms)
        case Attribution.GUARDED:
            cause = cause_of_reply(GUARD_WORD, outcome.reply)
            held = evolve(record, attempts=record.attempts + 1, cause=cause)
            return Hold(held.noting(_attempt(cause, terms.now), cause.text), cause)
        case _:
            assert_never(judgement.attribution)


def _put_back(reply: Reply, reply_class: ReplyClass, record: Record, terms: Terms) -> Delay | Release | Bury:
    """Give a job back for which the relay is to blame: at no cost."""
    cause = cause_of_reply("relay", reply)
    match reply_class:
        case ReplyClass.RATE | ReplyClass.CONCURRENCY:
            return _stand_aside(record, cause, terms, FORGIVEN_LIMITS)
        case ReplyClass.US | ReplyClass.STANDING:
            return _wait_aside(evolve(record, losses=record.losses + 1), cause, terms, record.losses + 1)[1]
        case _:
            return _stand_aside(record, cause, terms, FORGIVEN_TROUBLES)


def _refused_alone(
    reply: Reply, refusals: tuple[Refusal, ...], recipients: tuple[str, ...], record: Record, terms: Terms
) -> Verdict:
    """Decide on a mail that was refused for itself, or for its recipients."""
    if reply.stage is Stage.RCPT:
        return _sort_recipients((), refusals, reply, recipients, record, terms)
    if _is_for_good(reply, terms):
        return bury(record, cause_of_reply("refused", reply), terms.now)
    refused = {refusal.recipient for refusal in refusals}
    others = tuple(recipient for recipient in recipients if recipient not in refused)
    return _sort_recipients(others, refusals, reply, recipients, record, terms)


def _is_for_good(reply: Reply, terms: Terms) -> bool:
    return is_for_good(reply, classify(reply, terms.rules))


def _sort_recipients(
    others: tuple[str, ...],
    refusals: tuple[Refusal, ...],
    reply: Reply,
    recipients: tuple[str, ...],
    record: Record,
    terms: Terms,
) -> Verdict:
    """Part those to try again (``others`` and who was refused for now) from those refused for good."""
    for_now = tuple(refusal for refusal in refusals if not _is_for_good(refusal.reply, terms))
    for_good = tuple(refusal for refusal in refusals if _is_for_good(refusal.reply, terms))
    failed = tuple(Failed(refusal.recipient, refusal.reply.codes, refusal.reply.text) for refusal in for_good)
    due = (*others, *(refusal.recipient for refusal in for_now))
    # Where everybody who was tried is to be tried again, nothing about them has to be remembered.
    parted = record if len(due) == len(recipients) else evolve(record, due=due, failed=(*record.failed, *failed))
    if not due:
        return bury(parted, cause_of_reply("refused", for_good[0].reply), terms.now)
    telling = reply if others else for_now[0].reply
    return _retry(parted, cause_of_reply("deferred", telling), terms, hint=telling.text)


def _not_sent(loss: Loss, record: Record, terms: Terms) -> Verdict:
    cause = cause_of_loss("lost", loss)
    if loss.how is FailureKind.CANCELLED:
        return Release(record, cause)
    is_by_chance = loss.how is FailureKind.CLOSING and loss.had_delivered
    if _is_relays(loss):
        forgiven = FORGIVEN_LOSSES if loss.had_delivered else FORGIVEN_TROUBLES
        return _stand_aside(record, cause, terms, FORGIVEN_CLOSINGS if is_by_chance else forgiven)
    losing = evolve(record, losses=record.losses + 1)
    if losing.losses <= (FORGIVEN_CLOSINGS if is_by_chance else FORGIVEN_LOSSES):
        return Release(losing.noting(_attempt(cause, terms.now), cause.text), cause)
    return _retry(losing, cause, terms)


def _stand_aside(record: Record, cause: Cause, terms: Terms, forgiven: int) -> Delay | Release | Bury:
    """Charge nothing for what looks like the relay's trouble; but a mail that meets it again lets others go first.

    It may be this mail that the relay cannot bear, and then it must not be every probe.
    """
    losing = evolve(record, losses=record.losses + 1)
    if losing.losses <= forgiven:
        return Release(losing, cause)
    seconds, delay = _wait_aside(losing, cause, terms, losing.losses - forgiven)
    if terms.now + seconds - record.born > terms.retry.max_age_seconds:
        return Bury(delay.record, evolve(cause, word="too_old"))
    return delay


def _wait_aside(losing: Record, cause: Cause, terms: Terms, times: int) -> tuple[float, Delay]:
    """Return the delay of a mail that has to wait until the relay takes mail again, and its seconds."""
    policy = terms.retry
    seconds = backoff_seconds(times, policy.base_seconds, policy.cap_seconds, terms.dice)
    noted = evolve(losing, cause=cause).noting(_attempt(cause, terms.now), cause.text)
    return seconds, Delay(seconds, noted, cause)


def _uncertain(loss: Loss, record: Record, terms: Terms) -> Verdict:
    cause = cause_of_loss("uncertain", loss)
    doubtful = evolve(record, uncertain=record.uncertain + 1)
    if terms.on_uncertain == "hold":
        counted = evolve(doubtful, attempts=doubtful.attempts + 1, cause=cause)
        return Hold(counted.noting(_attempt(cause, terms.now), cause.text), cause)
    return _retry(doubtful, cause, terms)


def _retry(record: Record, cause: Cause, terms: Terms, hint: str = "") -> Delay | Bury:
    policy = terms.retry
    spent = evolve(record, attempts=record.attempts + 1, cause=cause).noting(_attempt(cause, terms.now), cause.text)
    seconds = backoff_seconds(spent.attempts, policy.base_seconds, policy.cap_seconds, terms.dice)
    named = hinted_seconds(hint)
    if named is not None and named >= policy.base_seconds:
        # A shorter one would use up the attempts in no time. A little past the named time, never before it; the cap
        # keeps a relay from parking a mail for days.
        seconds = min(named, policy.cap_seconds) * (1.0 + 0.1 * terms.dice)
    if spent.attempts >= policy.max_attempts:
        return Bury(spent, evolve(cause, word="exhausted"))
    if terms.now + seconds - spent.born > policy.max_age_seconds:
        return Bury(spent, evolve(cause, word="too_old"))
    return Delay(seconds, spent, cause)


def bury(record: Record, cause: Cause, now: float) -> Bury:
    """Return the verdict for a job that can never be sent as it is."""
    buried = evolve(record, attempts=record.attempts + 1, cause=cause)
    return Bury(buried.noting(_attempt(cause, now), cause.text), cause)


def _attempt(cause: Cause, now: float) -> Attempt:
    return Attempt(now, cause.word, cause.codes, cause.stage)
