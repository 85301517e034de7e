"""Whose matter a refusal is, by what came before it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from trio_worker.smtp.failure_kind import FailureKind
from trio_worker.smtp.outcome import Refusal, Refused
from trio_worker.smtp.reply import Stage, reply_from
from trio_worker.worker.evidence import (
    DOUBTFUL_IN_A_ROW,
    MET_ALONE,
    Attribution,
    Circumstances,
    Evidence,
    Judgement,
    judge,
    masked,
)
from trio_worker.worker.reply_rule import ReplyClass, ReplyRule

QUIET = Circumstances(accepted=5, is_closed=True, losses=0, guard=10)


def refused(code: int, text: str, stage: Stage = Stage.RCPT) -> Refused:
    reply = reply_from(code, text, stage)
    return Refused(reply, (Refusal("a@example.org", reply),) if stage is Stage.RCPT else ())


QUOTA = refused(550, "5.4.5 Daily user sending limit exceeded", Stage.FINAL)
RELAYING = refused(554, "5.7.1 <a@example.org>: Relay access denied")
RELAYING_FOR_NOW = refused(454, "4.7.1 <a@example.org>: Relay access denied")
STRANGE = refused(554, "5.7.1 Computer says no", Stage.FINAL)
UNKNOWN = refused(550, "5.1.1 user unknown")


def judged(outcomes: Sequence[Refused], around: Circumstances = QUIET) -> list[Judgement]:
    """Judge refusals of different mails in a row."""
    evidence, judgements = Evidence(), []
    for number, outcome in enumerate(outcomes):
        judgement = judge(outcome, f"job {number}", evidence, around)
        evidence = judgement.evidence
        judgements.append(judgement)
    return judgements


def test_a_quota_is_the_relays_matter_at_once() -> None:
    """Its name goes with it, and the time that the relay names."""
    (judgement,) = judged([QUOTA])
    assert judgement.attribution is Attribution.RELAY
    assert judgement.trouble is not None
    assert (judgement.trouble.how, judgement.trouble.again_seconds) == (FailureKind.STANDING, None)

    (named,) = judged([refused(550, "quota exceeded, try again in 20 minutes", Stage.FINAL)])
    assert named.trouble is not None
    assert named.trouble.again_seconds == 1200


def test_one_address_that_the_relay_refuses_is_no_trouble() -> None:
    """Refused for now it pays an attempt at once; refused for good it is tried once more, before it is dead."""
    (for_now,) = judged([RELAYING_FOR_NOW])
    assert (for_now.attribution, for_now.trouble) == (Attribution.MAIL, None)

    (first,) = judged([RELAYING])
    assert (first.attribution, first.trouble) == (Attribution.RELAY, None)
    (again,) = judged([RELAYING], evolve(QUIET, losses=1))
    assert (again.attribution, again.trouble) == (Attribution.MAIL, None)


@pytest.mark.parametrize("outcome", [RELAYING, RELAYING_FOR_NOW])
def test_several_in_a_row_are_the_relays_matter(outcome: Refused) -> None:
    """A login that is missing is refused with the same words."""
    troubles = [judgement.trouble for judgement in judged([outcome] * DOUBTFUL_IN_A_ROW)]
    assert troubles[:-1] == [None] * (DOUBTFUL_IN_A_ROW - 1)
    assert troubles[-1] is not None
    assert (troubles[-1].how, troubles[-1].is_doubtful) == (FailureKind.US, True)


def test_words_of_a_quota_that_name_a_recipient_are_no_trouble_alone() -> None:
    """They may be of the one mailbox; three in a row are the relay's matter, with the back-off of a quota."""
    named = refused(554, "5.7.1 <a@example.org>: Recipient address rejected: quota exceeded, try again in 1 hour")
    judgements = judged([named] * DOUBTFUL_IN_A_ROW)

    assert [each.attribution for each in judgements] == [Attribution.RELAY] * DOUBTFUL_IN_A_ROW
    assert [each.trouble for each in judgements[:-1]] == [None] * (DOUBTFUL_IN_A_ROW - 1)
    assert judgements[-1].trouble is not None
    assert (judgements[-1].trouble.how, judgements[-1].trouble.is_doubtful) == (FailureKind.STANDING, False)


@pytest.mark.parametrize(("who", "pause"), [("<a@example.org>: ", None), ("", 3600.0)])
def test_a_time_that_is_named_for_a_recipient_is_no_pause_for_all(who: str, pause: float | None) -> None:
    """The rate may be of this recipient alone."""
    (judgement,) = judged([refused(450, f"4.7.1 {who}rate limit exceeded, try again in 1 hour")])

    assert judgement.trouble is not None
    assert (judgement.trouble.how, judgement.trouble.again_seconds) == (FailureKind.RATE, pause)


def test_an_accepted_mail_in_between_ends_a_row() -> None:
    """The relay takes our mail, so the next refusal is the first again."""
    evidence = judged([RELAYING] * (DOUBTFUL_IN_A_ROW - 1))[-1].evidence
    judgement = judge(RELAYING, "another", evidence, evolve(QUIET, accepted=6))

    assert judgement.trouble is None


def test_a_mail_that_always_meets_a_refusal_of_us_alone_pays_for_it() -> None:
    """Words that only look like a quota's must not stop all mail for ever."""
    for losses in range(MET_ALONE):
        (judgement,) = judged([QUOTA], evolve(QUIET, losses=losses))
        assert judgement.attribution is Attribution.RELAY
    (judgement,) = judged([QUOTA], evolve(QUIET, losses=MET_ALONE))
    assert judgement.attribution is Attribution.MAIL


@pytest.mark.parametrize(
    "around",
    [Circumstances(0, is_closed=True, losses=9, guard=10), Circumstances(5, is_closed=False, losses=9, guard=10)],
)
def test_without_proof_that_others_go_a_mail_pays_nothing(around: Circumstances) -> None:
    """No mail was accepted since the start, or the breaker is open."""
    (judgement,) = judged([RELAYING], around)
    assert judgement.attribution is Attribution.RELAY


def test_the_guard_holds_mails_that_all_get_the_same_refusal() -> None:
    """The tenth, and every one after it; until then they are dead as the reply says."""
    found = [judgement.attribution for judgement in judged([STRANGE] * 12)]

    assert found == [Attribution.MAIL] * 9 + [Attribution.GUARDED] * 3


@pytest.mark.parametrize(
    "outcomes",
    [
        [UNKNOWN] * 12,
        [refused(451, "4.7.1 later", Stage.FINAL)] * 12,
        [STRANGE, refused(554, "5.7.1 Something else", Stage.FINAL)] * 12,
    ],
    ids=["known words", "for now", "other words in between"],
)
def test_the_guard_leaves_alone(outcomes: list[Refused]) -> None:
    """A list of addresses that are not known any more, a relay that is busy, and refusals that differ."""
    assert {judgement.attribution for judgement in judged(outcomes)} == {Attribution.MAIL}


def test_the_guard_counts_mails_and_not_attempts() -> None:
    """The same mail ten times is one mail; and with 0 the guard is off."""
    evidence = Evidence()
    for _ in range(20):
        judgement = judge(STRANGE, "one", evidence, QUIET)
        evidence = judgement.evidence
        assert judgement.attribution is Attribution.MAIL
    assert {each.attribution for each in judged([STRANGE] * 50, evolve(QUIET, guard=0))} == {Attribution.MAIL}


def test_where_one_recipient_is_refused_for_itself_the_relay_takes_our_mail() -> None:
    """Two recipients: one is unknown, for the other the relay does not relay."""
    unknown, relaying = UNKNOWN.reply, RELAYING.reply
    both = Refused(relaying, (Refusal("a@example.org", unknown), Refusal("b@example.net", relaying)))
    (judgement,) = judged([both])

    assert (judgement.attribution, judgement.trouble) == (Attribution.MAIL, None)


def test_a_rule_of_the_user_is_no_guess() -> None:
    """One refusal is enough for it, and the guard does not count it."""
    rules = (ReplyRule(ReplyClass.STANDING, text="computer says"),)
    (judgement,) = judged([STRANGE], evolve(QUIET, rules=rules))

    assert judgement.trouble is not None
    assert judgement.trouble.how is FailureKind.STANDING


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("550 5.7.1 <ann@example.org>: no (4XyzAb12C)", "550 5.7.1 <bob.b@example.net>: no (4QqqQb99Z)"),
        ("554 mail.example.org says no at 12:03:04 [10.0.0.1]", "554 mx2.example.net says no at 13:59:00 [10.9.8.7]"),
        ("554 rejected aBcDeFgHiJkLmNo", "554 rejected qRsTuVwXyZaBcDe"),
        ("554 rejected, id=qwertyuiop", "554 rejected, id=asdfg1hjkl"),
        ("554 rejected [qwertyuiop]", "554 rejected [asdfg1hjkl]"),
        ("554 rejected (qwertyuiopasdfghjklzx)", "554 rejected (MNBVCXZLKJHGFDSAPOIUY)"),
    ],
)
def test_a_mask_leaves_what_two_refusals_have_in_common(one: str, other: str) -> None:
    """Addresses, hosts, times and ids differ from mail to mail."""
    same, different = (masked(reply_from(int(text[:3]), text[4:], Stage.FINAL)) for text in (one, other))
    assert same == different


def test_a_mask_keeps_words() -> None:
    """Two refusals that say different things are not the same one."""
    found = {masked(reply_from(554, text, Stage.FINAL)) for text in ("unauthenticated", "[blocked]", "(blacklisted)")}
    assert len(found) == 3


@given(st.integers(500, 599), st.text())
def test_a_mask_keeps_the_code_and_no_address(code: int, text: str) -> None:
    """It is shown in no place, but could be."""
    found = masked(reply_from(code, f"{text} ann@example.org", Stage.FINAL))

    assert found.startswith(str(code))
    assert "ann@" not in found
