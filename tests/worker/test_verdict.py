"""The policy: what becomes of a job after each outcome."""

from __future__ import annotations

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from trio_worker.queue.record import Cause, Record, read_record, write_record
from trio_worker.queue.settlement import Bury, Delay, Done, Hold, Release, Verdict
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
from trio_worker.smtp.reply import Reply, Stage, reply_from
from trio_worker.worker.named_time import hinted_seconds
from trio_worker.worker.options import RetryPolicy
from trio_worker.worker.verdict import (
    FORGIVEN_CLOSINGS,
    FORGIVEN_LOSSES,
    Terms,
    admit,
    backoff_seconds,
    cause_of_acceptance,
    decide,
    relay_trouble,
)

NOW = 1000.0
RECORD = Record(born=NOW)
POLICY = RetryPolicy(max_attempts=5, base_seconds=60, cap_seconds=3600, max_age_seconds=86400)
TO = ("a@example.org", "b@example.org")


def judge(outcome: Outcome, record: Record = RECORD, on_uncertain: str = "retry", now: float = NOW) -> Verdict:
    return decide(outcome, TO, record, Terms(POLICY, on_uncertain, now, 0.5))


def reply(code: int, stage: Stage = Stage.FINAL, text: str = "") -> Reply:
    return Reply(code, text, stage)


def loss(how: FailureKind = FailureKind.EOF, *, had_delivered: bool = True, mail_accepted: bool = True) -> Loss:
    return Loss(how, Stage.DATA, "gone", None, had_delivered, mail_accepted)


def test_an_accepted_mail_is_done() -> None:
    """Accepted for all recipients: nothing is left to do."""
    assert judge(Accepted(reply(250))) == Done()


@pytest.mark.case("C19")
@pytest.mark.parametrize("stage", [Stage.DATA, Stage.FINAL])
@pytest.mark.parametrize("code", [500, 552, 554])
def test_a_mail_refused_for_good_is_dead_at_once(stage: Stage, code: int) -> None:
    """With the relay's codes and the stage."""
    verdict = judge(Refused(reply(code, stage, "spam")))

    assert isinstance(verdict, Bury)
    assert (verdict.cause.word, verdict.cause.codes, verdict.cause.stage) == ("refused", str(code), stage)
    assert verdict.record.attempts == 1


def test_a_mail_refused_for_now_is_delayed_and_pays_an_attempt() -> None:
    """Greylisting and the like: later, for all recipients."""
    verdict = judge(Refused(reply(451)))

    assert isinstance(verdict, Delay)
    assert (verdict.seconds, verdict.record.attempts, verdict.record.due) == (60.0, 1, None)


def test_a_wait_that_the_reply_names_is_honoured() -> None:
    """Never earlier than the relay asked for, with an upper limit."""
    verdict = judge(Refused(reply(450, text="greylisted, try again in 300 seconds")))

    assert isinstance(verdict, Delay)
    assert 300 <= verdict.seconds <= 330
    capped = judge(Refused(reply(450, text="come back in 9999 hours")))
    assert isinstance(capped, Delay)
    assert capped.seconds <= 3600 * 1.1


@pytest.mark.case("C18")
def test_a_full_mailbox_is_no_reason_to_die() -> None:
    """552 at RCPT means 452 (RFC 5321 4.5.3.1.10)."""
    refusals = tuple(Refusal(each, reply(552, Stage.RCPT)) for each in TO)

    assert isinstance(judge(Refused(refusals[-1].reply, refusals)), Delay)


def test_of_several_recipients_only_those_refused_for_now_are_tried_again() -> None:
    """Who was accepted is never sent to again, who was refused for good is remembered as failed."""
    refusals = (Refusal(TO[0], reply(451, Stage.RCPT)),)
    verdict = judge(Accepted(reply(250), refusals))
    assert isinstance(verdict, Delay)
    assert (verdict.record.due, verdict.record.delivered) == ((TO[0],), len(TO) - 1)

    both = (Refusal(TO[0], reply(451, Stage.RCPT)), Refusal(TO[1], reply(550, Stage.RCPT)))
    verdict = judge(Refused(both[-1].reply, both))

    assert isinstance(verdict, Delay)
    assert (verdict.record.due, verdict.record.delivered) == ((TO[0],), 0)
    assert [failed.recipient for failed in verdict.record.failed] == [TO[1]]


def test_a_mail_whose_last_due_recipient_is_refused_for_good_is_dead() -> None:
    """Even though another recipient has it: the dead letter names who does not."""
    verdict = judge(Accepted(reply(250), (Refusal(TO[1], reply(550, Stage.RCPT)),)))

    assert isinstance(verdict, Bury)
    assert [failed.recipient for failed in verdict.record.failed] == [TO[1]]
    assert verdict.record.reborn(1.0).due == (TO[1],)


def test_attempts_and_age_are_bounded() -> None:
    """A mail refused for now for too long is dead."""
    spent = judge(Refused(reply(451)), evolve(RECORD, attempts=4))
    old = judge(Refused(reply(451)), evolve(RECORD, born=NOW - 86400))

    assert isinstance(spent, Bury)
    assert spent.cause.word == "exhausted"
    assert isinstance(old, Bury)
    assert old.cause.word == "too_old"


@pytest.mark.parametrize("outcome", [
    Unopened(Trouble(FailureKind.LOGIN, Stage.AUTH, "refused", reply(535, Stage.AUTH))),
    Unopened(Trouble(FailureKind.CONNECT, Stage.CONNECT, "connection refused")),
    NotSent(loss(had_delivered=False, mail_accepted=False)),
])  # fmt: skip
def test_the_relays_trouble_costs_the_mail_nothing_and_is_told_to_the_breaker(outcome: Outcome) -> None:
    """The job goes back as it was."""
    verdict = judge(outcome)

    assert isinstance(verdict, Release)
    assert verdict.record.attempts == 0
    assert relay_trouble(outcome) is not None


@pytest.mark.parametrize("outcome", [
    Refused(reply(451, Stage.MAIL)),
    Refused(reply(550, Stage.MAIL)),
])  # fmt: skip
def test_a_refused_session_costs_the_mail_nothing(outcome: Outcome) -> None:
    """A relay that refuses every sender for a moment, with words that say nothing more."""
    verdict = judge(outcome)

    assert isinstance(verdict, Release)
    assert verdict.record.attempts == 0


@pytest.mark.parametrize("outcome", [
    Refused(reply(530, Stage.MAIL)),
    Refused(reply(432, Stage.FINAL)),
    Refused(reply(454, Stage.FINAL, "Temporary authentication failure")),
    Refused(Reply(550, "Daily user sending limit exceeded", Stage.FINAL, "5.4.5")),
    Refused(reply(554, Stage.RCPT, "Relay access denied")),
])  # fmt: skip
def test_a_refusal_of_us_costs_the_mail_nothing_and_lets_others_be_the_probe(outcome: Outcome) -> None:
    """Neither an attempt nor its age: the relay would say the same to every mail."""
    verdict = judge(outcome, now=NOW + POLICY.max_age_seconds)

    assert isinstance(verdict, Delay)
    assert (verdict.record.attempts, verdict.cause.word) == (0, "relay")
    assert verdict.seconds >= 45


@pytest.mark.parametrize("outcome", [
    Accepted(reply(250)),
    Refused(reply(550, Stage.RCPT), (Refusal(TO[0], reply(550, Stage.RCPT)),)),
    Refused(reply(552, Stage.MAIL)),
    Refused(reply(451)),
    Unsendable("too large"),
    Uncertain(loss()),
    NotSent(loss()),
    NotSent(loss(had_delivered=True, mail_accepted=False)),
    NotSent(loss(FailureKind.CANCELLED, had_delivered=False, mail_accepted=False)),
])  # fmt: skip
def test_what_is_about_a_mail_or_one_connection_does_not_open_the_breaker(outcome: Outcome) -> None:
    """Nothing else stops for it."""
    assert relay_trouble(outcome) is None


@pytest.mark.case("C10")
def test_a_connection_that_had_worked_is_lost_for_free_until_the_mail_is_suspect() -> None:
    """After three losses past MAIL each further one costs an attempt."""
    record = RECORD
    for _ in range(FORGIVEN_LOSSES):
        verdict = judge(NotSent(loss()), record)
        assert isinstance(verdict, Release)
        record = verdict.record
    verdict = judge(NotSent(loss()), record)

    assert isinstance(verdict, Delay)
    assert verdict.record.attempts == 1


@pytest.mark.case("C26")
def test_a_relay_that_closes_every_connection_after_a_few_mails_costs_no_attempt() -> None:
    """421 on a connection that has delivered is forgiven far more often."""
    record = RECORD
    for _ in range(FORGIVEN_CLOSINGS):
        verdict = judge(NotSent(loss(FailureKind.CLOSING)), record)
        assert isinstance(verdict, Release)
        record = verdict.record

    assert isinstance(judge(NotSent(loss(FailureKind.CLOSING)), record), Delay)


@pytest.mark.case("C13")
def test_an_uncertain_mail_is_tried_again_or_held_as_its_type_says() -> None:
    """Both count the doubt."""
    again, held = judge(Uncertain(loss())), judge(Uncertain(loss()), on_uncertain="hold")

    assert isinstance(again, Delay)
    assert isinstance(held, Hold)
    assert (again.record.uncertain, held.record.uncertain) == (1, 1)


@pytest.mark.case("C29")
def test_a_mail_that_this_relay_cannot_take_is_dead() -> None:
    """Trying again would not help."""
    assert isinstance(judge(Unsendable("too large")), Bury)


def test_a_job_before_its_time_waits_and_one_past_it_is_dead() -> None:
    """not_before, expires_at and the age limit of its type."""
    early = admit(RECORD, NOW + 5, None, None, NOW)

    assert isinstance(early, Delay)
    assert (early.seconds, early.record.attempts) == (5, 0)
    assert isinstance(admit(RECORD, None, NOW, None, NOW), Bury)
    assert isinstance(admit(evolve(RECORD, born=NOW - 3600), None, None, 3600, NOW), Bury)
    assert admit(RECORD, NOW, NOW + 1, 3600, NOW) is None


@given(st.integers(0, 10_000), st.floats(0, 1, exclude_max=True))
def test_waits_grow_to_the_cap_and_never_beyond_a_quarter_more(attempts: int, dice: float) -> None:
    """Doubling with a spread of a quarter either way."""
    seconds = backoff_seconds(attempts, 60, 3600, dice)

    assert 45 <= seconds <= 4500


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("Greylisted, please try again in 300 seconds", 300),
        ("greylisting in action, please come back in 00:04:58", 298),
        ("Too many messages. Try again in 92 seconds.", 92),
        ("Please wait 5 min", 300),
        ("retry after 2h", 7200),
        ("Delayed for 1:30 by policy", 90),
        ("Mailbox full: 512 M of 500 M used", None),
        ("limit is 100 messages per 1 h; id 12:34:56", None),
        ("sent 10 minutes ago", None),
        ("try again in a while", None),
    ],
)
def test_a_reply_may_name_the_time_to_wait(text: str, seconds: float | None) -> None:
    """Only behind words that speak of waiting: other numbers are sizes, counts and ids."""
    assert hinted_seconds(text) == seconds


@given(st.text())
def test_no_words_of_a_relay_break_the_search_for_a_hint(text: str) -> None:
    """A hint is a number of seconds or nothing."""
    hint = hinted_seconds(text)

    assert hint is None or hint >= 0


CODES = st.integers(200, 599)
STAGES = st.sampled_from([Stage.MAIL, Stage.RCPT, Stage.DATA, Stage.FINAL])
REPLIES = st.builds(Reply, CODES, st.text(max_size=30), STAGES)
REFUSALS = st.lists(
    st.builds(Refusal, st.sampled_from(TO), st.builds(Reply, st.integers(400, 599), st.just(""), st.just(Stage.RCPT))),
    max_size=2,
    unique_by=lambda refusal: refusal.recipient,
).map(tuple)
LOSSES = st.builds(
    Loss, st.sampled_from(FailureKind), STAGES, st.just("x"), st.none() | REPLIES, st.booleans(), st.booleans()
)
DECIDING = st.sampled_from([Stage.MAIL, Stage.DATA, Stage.FINAL])
OUTCOMES = st.one_of(
    st.builds(Accepted, REPLIES, REFUSALS),
    st.builds(Refused, st.builds(Reply, st.integers(400, 599), st.just(""), DECIDING), REFUSALS),
    st.builds(NotSent, LOSSES),
    st.builds(Uncertain, LOSSES),
    st.builds(Unsendable, st.text(max_size=10)),
    st.builds(Unopened, st.builds(Trouble, st.sampled_from(FailureKind), STAGES, st.just("x"))),
)  # fmt: skip


@given(
    OUTCOMES,
    st.integers(0, 6),
    st.integers(0, 30),
    st.sampled_from(["retry", "hold"]),
    st.floats(0, 1, exclude_max=True),
)
def test_every_outcome_has_a_verdict_that_loses_nobody(
    outcome: Outcome, attempts: int, losses: int, on_uncertain: str, dice: float
) -> None:
    """Each recipient is accepted, due again or named as failed; records survive being stored."""
    record = evolve(RECORD, attempts=attempts, losses=losses)
    verdict = decide(outcome, TO, record, Terms(POLICY, on_uncertain, NOW, dice))

    if isinstance(verdict, Done):
        assert isinstance(outcome, Accepted)
        assert outcome.refusals == ()
        return
    assert verdict.record.attempts - attempts in {0, 1}
    assert read_record(write_record(verdict.record), 0.0) == verdict.record
    if isinstance(verdict, Release):
        assert verdict.record.attempts == attempts
    if verdict.record.due is not None:
        refused = {refusal.recipient for refusal in getattr(outcome, "refusals", ())}
        failed = {each.recipient for each in verdict.record.failed}
        expected = refused if isinstance(outcome, Accepted) else set(TO)
        assert set(verdict.record.due) | failed == expected
    accepted = len(TO) - len(outcome.refusals) if isinstance(outcome, Accepted) else 0
    assert verdict.record.delivered == accepted


@pytest.mark.parametrize("outcome", [
    Refused(Reply(554, "8-bit is not welcome", Stage.MAIL)),
    NotSent(loss(had_delivered=False, mail_accepted=False)),
])  # fmt: skip
def test_a_mail_that_meets_the_relays_trouble_again_lets_others_go_first(outcome: Outcome) -> None:
    """No attempt is counted; it ends when the job is too old, because the mail itself may cause the trouble."""
    first = judge(outcome)
    assert isinstance(first, Release)
    second = judge(outcome, first.record)
    assert isinstance(second, Delay)
    assert second.seconds >= 45
    assert second.record.attempts == 0
    old = judge(outcome, first.record, now=NOW + POLICY.max_age_seconds)
    assert isinstance(old, Bury)
    assert old.cause.word == "too_old"


def test_a_relay_that_says_try_again_in_no_time_is_not_taken_at_its_word() -> None:
    """The attempts would be used up within seconds."""
    verdict = judge(Refused(reply(451, text="try again in 0 seconds")))
    assert isinstance(verdict, Delay)
    assert verdict.seconds >= 45


@given(st.integers(200, 299), st.sampled_from(["", "2.0.0", "2.6.0"]), st.sampled_from(Stage), st.text())
def test_an_acceptance_gives_its_codes_as_the_cause(code: int, enhanced: str, stage: Stage, text: str) -> None:
    """Without its text, which is not needed; the next one with the same codes has the same cause."""
    cause = cause_of_acceptance(Reply(code, text, stage, enhanced))

    assert cause == Cause("accepted", f"{code} {enhanced}".strip(), stage)
    assert cause_of_acceptance(Reply(code, "another", stage, enhanced)) is cause


def test_a_relay_out_of_step_on_a_connection_that_never_worked_is_the_relays_trouble() -> None:
    """It may do so to every mail: claiming stops, and no mail pays; one that meets it again lets others go first."""
    odd = Loss(FailureKind.GARBLED, Stage.DATA, "a reply too many", reply(250, Stage.DATA, "ok"), mail_accepted=True)
    outcome = NotSent(odd)
    first, again = judge(outcome), judge(outcome, evolve(RECORD, losses=7))

    assert relay_trouble(outcome) == Trouble(FailureKind.GARBLED, Stage.DATA, "a reply too many", odd.reply)
    assert isinstance(first, Release)
    assert isinstance(again, Delay)
    assert again.record.attempts == 0
    assert (first.cause.word, first.cause.codes, first.cause.stage) == ("lost", "garbled", Stage.DATA)
    assert first.cause.text == "a reply too many: 250 ok"
    assert relay_trouble(NotSent(evolve(odd, had_delivered=True))) is None


def test_a_mail_that_was_dropped_because_it_came_ahead_costs_nothing() -> None:
    """It says how the relay wants mail, and nothing of this mail or of the relay's health."""
    ahead = Loss(FailureKind.AHEAD, Stage.MAIL, "dropped", reply(503, Stage.MAIL, "order"), had_delivered=True)
    verdict = judge(NotSent(ahead))

    assert isinstance(verdict, Release)
    assert verdict.record.attempts == 0
    assert (verdict.cause.codes, verdict.cause.text) == ("ahead", "dropped: 503 order")
    assert relay_trouble(NotSent(ahead)) is None


def test_a_rate_that_names_a_recipient_puts_its_mail_behind_the_others() -> None:
    """Given back at once it would be the first mail after every pause."""
    reply = reply_from(450, "4.7.1 <a@example.org>: rate limit exceeded", Stage.RCPT)
    refused = Refused(reply, (Refusal("a@example.org", reply),))

    verdict = decide(refused, ("a@example.org",), Record(born=0.0), Terms(RetryPolicy(), "retry", 0.0, 0.5))

    assert isinstance(verdict, Delay)
    assert verdict.record.attempts == 0
