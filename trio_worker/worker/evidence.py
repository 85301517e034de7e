"""Pure. Whose matter a refusal is: this mail's, or the relay's with all our mail.

A reply that surely speaks of us, our account, our rate or our connections is the relay's matter at once. One that names
a sender or a recipient ("relay access denied") may be about one mail: three in a row, with no mail accepted in between,
make it the relay's. So one address that the relay refuses never stops the others.

The guard is for replies that no table knows: when the same permanent refusal has met ``retry.guard`` different mails in
a row and none was accepted in between, mails are held from then on, not buried.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import Enum, auto

from attrs import evolve

from trio_worker.records import frozen
from trio_worker.smtp.failure_kind import FailureKind
from trio_worker.smtp.outcome import Refused, Trouble
from trio_worker.smtp.reply import Reply
from trio_worker.worker.named_time import hinted_seconds
from trio_worker.worker.reply_classes import Classified, classify, is_for_good
from trio_worker.worker.reply_rule import ReplyClass, ReplyRule

# Doubtful refusals in a row that speak of us: two mails with bad addresses may follow each other, a third is no chance.
DOUBTFUL_IN_A_ROW = 3
# A mail that has met a refusal of all mail this often, each time while other mails went, is refused for itself: its
# words only look like a quota's. A quota over a rolling day lets some mails through and refuses the next.
MET_ALONE = 5

# What differs between two replies that say the same: what is in angle brackets, addresses, names with dots, what is set
# to a name (id=abc), and words with a digit, as ids have. Ids are long words of both cases as well, and words of one
# case that are longer than those of a language or stand alone in square brackets.
_VARIABLE = re.compile(
    r"<[^>]*>|\S*@\S*|[\w.:/+-]+=[\w.:/=+-]+|\b[\w-]+(?:\.[\w-]+)+\b|[\w.:/=+-]*\d[\w.:/=+-]*"
    r"|\b(?=\w*[a-z])(?=\w*[A-Z])\w{12,}\b|(?<=\[)[\w+/-]{8,}(?=\])|\b[A-Za-z]{20,}\b"
)


class Attribution(Enum):
    """Whose matter an outcome is."""

    MAIL = auto()  # this mail's, or a recipient's: it pays attempts and age, or is dead
    RELAY = auto()  # the relay's, with all our mail: it costs the mail nothing
    GUARDED = auto()  # every mail gets this refusal: it is held for a person


@frozen
class Evidence:
    """What the refusals since the last accepted mail have told.

    ``accepted`` is the number of mails accepted when the last refusal was noted; ``about_us`` counts refusals in a row
    that speak of us, ``same`` is the last permanent refusal that no row knows, ``job_ids`` are the mails that got it.
    """

    accepted: int = 0
    about_us: int = 0
    same: str = ""
    job_ids: frozenset[str] = frozenset()


@frozen
class Judgement:
    """Whose matter a refusal is; ``trouble`` is set where it is the relay's, `Classified` says of which kind."""

    attribution: Attribution
    evidence: Evidence
    classified: Classified
    trouble: Trouble | None = None


@frozen
class Circumstances:
    """What a judgement depends on beside the reply.

    ``accepted`` counts the mails accepted since the start, ``is_closed`` says whether the breaker is closed, ``losses``
    how often this mail has met the relay's trouble before, ``guard`` is the setting: 0 is off.
    """

    accepted: int
    is_closed: bool
    losses: int
    guard: int
    rules: Sequence[ReplyRule] = ()


def masked(reply: Reply) -> str:
    """Return a reply without what differs from mail to mail: addresses, host names, digits, ids."""
    return f"{reply.codes} {_VARIABLE.sub('#', reply.text).lower()}"


def deciding(refused: Refused, rules: Sequence[ReplyRule]) -> tuple[Reply, Classified]:
    """Return the reply that says whose matter a refusal is.

    Where one recipient was refused for itself the relay does take our mail, so that reply decides.
    """
    replies = [refusal.reply for refusal in refused.refusals] or [refused.reply]
    if refused.reply not in replies:
        replies = [refused.reply]
    classes = [(reply, classify(reply, rules)) for reply in replies]
    own = (each for each in classes if each[1].reply_class in {ReplyClass.MAIL, ReplyClass.RECIPIENT})
    return next(own, classes[-1])


def judge(refused: Refused, job_id: str, evidence: Evidence, around: Circumstances) -> Judgement:
    """Return whose matter a refusal of a whole mail is, and the evidence with it."""
    if evidence.accepted != around.accepted:
        evidence = Evidence(around.accepted)
    reply, classified = deciding(refused, around.rules)
    match classified.reply_class:
        case ReplyClass.MAIL | ReplyClass.RECIPIENT:
            return _judge_own(reply, classified, job_id, evidence, around)
        case ReplyClass.US:
            return _judge_us(FailureKind.US, reply, classified, evidence, around)
        case ReplyClass.STANDING:
            return _judge_us(FailureKind.STANDING, reply, classified, evidence, around)
        case ReplyClass.RATE:
            return _relays(FailureKind.RATE, reply, classified, evidence)
        case ReplyClass.CONCURRENCY:
            return _relays(FailureKind.CONCURRENCY, reply, classified, evidence)
        case ReplyClass.SESSION:
            return _relays(FailureKind.SESSION, reply, classified, evidence)


def _relays(how: FailureKind, reply: Reply, classified: Classified, evidence: Evidence) -> Judgement:
    # A rate that may be of one recipient: an hour named for it must not stop the others. Short pauses find out.
    is_short = how is FailureKind.RATE and classified.names_recipient
    named = None if is_short else hinted_seconds(reply.text)
    trouble = Trouble(how, reply.stage, "refused", reply, named, classified.is_doubtful)
    return Judgement(Attribution.RELAY, evidence, classified, trouble)


def _judge_own(
    reply: Reply, classified: Classified, job_id: str, evidence: Evidence, around: Circumstances
) -> Judgement:
    if classified.is_known or not around.guard or not is_for_good(reply, classified):
        return Judgement(Attribution.MAIL, evidence, classified)
    same = masked(reply)
    met_by = evidence.job_ids if same == evidence.same else frozenset[str]()
    if len(met_by) < around.guard:
        met_by |= {job_id}
    evidence = evolve(evidence, same=same, job_ids=met_by)
    if len(met_by) < around.guard:
        return Judgement(Attribution.MAIL, evidence, classified)
    trouble = Trouble(FailureKind.GUARD, reply.stage, "every mail gets the same refusal", reply)
    return Judgement(Attribution.GUARDED, evidence, classified, trouble)


def _judge_us(
    how: FailureKind, reply: Reply, classified: Classified, evidence: Evidence, around: Circumstances
) -> Judgement:
    is_first = evidence.about_us == 0
    evidence = evolve(evidence, about_us=evidence.about_us + 1)
    if around.is_closed:
        met_alone = 1 if classified.is_doubtful else MET_ALONE
        if is_first and around.accepted and around.losses >= met_alone:
            return Judgement(Attribution.MAIL, evidence, classified)
        may_be_of_one_mail = classified.is_doubtful or classified.names_recipient
        if may_be_of_one_mail and evidence.about_us < DOUBTFUL_IN_A_ROW:
            # What is refused for now may pay an attempt at once; what is refused for good is tried once more.
            is_own = classified.is_doubtful and reply.is_transient
            attribution = Attribution.MAIL if is_own else Attribution.RELAY
            return Judgement(attribution, evidence, classified)
    return _relays(how, reply, classified, evidence)
