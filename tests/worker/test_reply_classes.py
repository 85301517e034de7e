"""What a refusal speaks of: the replies of known relays, and those that no row knows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_worker.smtp.reply import Reply, Stage, reply_from
from trio_worker.worker.reply_classes import classify, is_for_good
from trio_worker.worker.reply_rule import ReplyClass, ReplyRule

MAIL, RECIPIENT, US, RATE, CONCURRENCY, STANDING, SESSION = ReplyClass


def read(text: str, stage: Stage) -> Reply:
    return reply_from(int(text[:3]), text[4:], stage)


@pytest.mark.parametrize("stage", [Stage.MAIL, Stage.RCPT, Stage.FINAL])
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("550 5.4.5 Daily user sending limit exceeded. For more information on Gmail sending limits go to", STANDING),
        ("550 5.7.1 Daily SMTP relay limit exceeded for customer.", STANDING),
        ("450 4.2.1 Peak SMTP relay limit exceeded for customer.", RATE),
        ("432 4.3.2 Concurrent connections limit exceeded. Visit https://aka.ms/concurrent_sending", CONCURRENCY),
        ("432 4.3.2 STOREDRV.ClientSubmit; sender thread limit exceeded", CONCURRENCY),
        ("554 5.2.0 STOREDRV.Submission.Exception:SubmissionQuotaExceededException; Failed to process", STANDING),
        ("550 5.1.90 Your message can't be sent because you've reached your daily limit for recipients", STANDING),
        ("550 5.7.233 Your message can't be sent because your tenant exceeded its daily limit", STANDING),
        ("550 5.7.705 Access denied, tenant has exceeded threshold", STANDING),
        ("454 Throttling failure: Maximum sending rate exceeded.", RATE),
        ("454 Throttling failure: Daily message quota exceeded.", STANDING),
        ("554 Message rejected: Email address is not verified. The following identities failed the check", STANDING),
        ("554 Access denied: User `arn:aws:iam::1:user/u' is not authorized to perform `ses:SendRawEmail'", US),
        ("451 Authentication failed: Maximum credits exceeded", STANDING),
        ("554 5.7.0 Your sending limit was reached, try again later", STANDING),
        ("552 5.2.3 Your relay quota is used up", STANDING),
        ("550 Too many messages. Try again in 92 seconds.", RATE),
        ("452 too many emails per second", RATE),
        ("450 4.7.1 Error: too much mail from 192.0.2.1", RATE),
        ("554 5.7.1 <a@example.org>: Relay access denied", US),
        ("550 relay not permitted", US),
        ("550 5.7.54 SMTP; Unable to relay recipient in non-accepted domain", US),
        ("553 5.7.1 <no-reply@example.com>: Sender address rejected: not owned by user app", US),
        ("550 5.7.60 SMTP; Client does not have permissions to send as this sender", US),
        ("550 The from address does not match a verified Sender Identity.", US),
        ("504 5.5.2 <app>: Helo command rejected: need fully-qualified hostname", US),
        ("450 4.7.25 Client host rejected: cannot find your hostname, [192.0.2.1]", US),
        ("554 5.7.1 Service unavailable; Client host [192.0.2.1] blocked using zen.example.org", US),
        ("550 5.7.26 This mail has been blocked because the sender is unauthenticated.", US),
        ("503 5.5.1 Error: authenticate first", US),
        ("530 5.7.0 Authentication required", US),
        ("432 4.7.12 A password transition is needed", US),
        ("525 5.7.13 Your account is disabled", STANDING),
        ("525 5.7.13 Unauthorized IP address", US),
        ("502 5.7.0 Please contact support to activate your SMTP account", STANDING),
        ("550 5.1.0 <app@example.com>: Sender address rejected: User unknown in virtual mailbox table", US),
        ("450 4.1.8 <app@example.com>: Sender address rejected: Domain not found", US),
        ("550-Requested action not taken: mailbox unavailable\nSender address is not allowed.", US),
        ("554 5.2.0 STOREDRV.Submission.Exception:OutboundSpamException; Failed to process message", STANDING),
        ("550 5.7.1 Client does not have permissions to send as this sender", US),
        ("550 5.7.606 Access denied, banned sending IP [192.0.2.1]", US),
        ("550 Unauthenticated senders not allowed", US),
        ("550 5.7.1 Invalid credentials for relay [192.0.2.1]", US),
        ("550 Domain example.com has exceeded the max emails per hour (200/200 (100%)) allowed.", STANDING),
        ("550 Sender rate overlimit - 10.1 / 1h", RATE),
        ("551 5.7.1 Not authorised to send from this header address", US),
        ("553 Relaying disallowed as app@example.com", US),
        ("550 5.4.6 Unusual sending activity detected. Please try after sometime.", STANDING),
        ("550 You have exceeded your messaging limits", STANDING),
        ("550 Not allowed to send: Your account has run out of credits", STANDING),
    ],
)
def test_what_speaks_of_us_is_known_at_every_command(text: str, stage: Stage, expected: ReplyClass) -> None:
    """A relay may refuse client, name and sender as late as at RCPT, as Postfix does by default, or at the end."""
    reply = read(text, stage)
    classified = classify(reply)

    assert classified.reply_class is expected
    assert classified.is_known
    assert classified.source
    assert not is_for_good(reply, classified) or classified.is_doubtful


@pytest.mark.parametrize(
    ("text", "stage", "expected", "is_known"),
    [
        (
            "550 5.1.1 <a@example.org>: Recipient address rejected: User unknown in local table",
            Stage.RCPT,
            RECIPIENT,
            True,
        ),
        ("550 No such user here", Stage.RCPT, RECIPIENT, True),
        ("452 4.2.2 The email account that you tried to reach is over quota", Stage.RCPT, RECIPIENT, True),
        ("552 5.2.2 Mailbox limit exceeded", Stage.FINAL, RECIPIENT, True),
        ("550 Mailbox quota exceeded", Stage.RCPT, RECIPIENT, True),
        ("450 4.2.1 The user you are trying to contact is receiving mail too quickly", Stage.RCPT, RECIPIENT, True),
        ("450 4.2.0 <a@example.org>: Recipient address rejected: Greylisted", Stage.RCPT, RECIPIENT, True),
        ("452 4.5.3 Error: too many recipients", Stage.RCPT, RECIPIENT, True),
        ("550 5.2.1 The email account that you tried to reach is disabled", Stage.RCPT, RECIPIENT, True),
        (
            "450 4.1.1 <a@example.org>: Recipient address rejected: unverified address: said: 550 Daily sending limit",
            Stage.RCPT,
            RECIPIENT,
            True,
        ),
        ("550-Callout verification failed:\n550 Daily sending limit exceeded", Stage.RCPT, RECIPIENT, True),
        ("452 too many messages in mailbox", Stage.RCPT, RECIPIENT, True),
        ("450 4.7.1 too many messages for this recipient", Stage.RCPT, RECIPIENT, True),
        ("451 4.7.1 recipient a@example.org has exceeded hourly limit", Stage.RCPT, RECIPIENT, True),
        ("550 Requested action not taken: mailbox unavailable", Stage.RCPT, RECIPIENT, False),
        ("550 Requested action not taken: mailbox unavailable", Stage.FINAL, MAIL, False),
        ("550 Mailbox unavailable", Stage.RCPT, RECIPIENT, True),
        ("554 5.6.0 header limit exceeded; try again later", Stage.FINAL, MAIL, True),
        ("552 MIME parts limit reached", Stage.FINAL, MAIL, True),
        ("552 5.3.4 Message size exceeds fixed maximum message size", Stage.MAIL, MAIL, True),
        ("534 5.3.4 Message too big", Stage.MAIL, MAIL, True),
        ("552 Message exceeds maximum fixed size", Stage.FINAL, MAIL, True),
        ("552 no room", Stage.MAIL, MAIL, True),
        ("550 5.7.1 Rejected for policy reasons", Stage.FINAL, MAIL, False),
        ("550 no", Stage.RCPT, RECIPIENT, False),
        ("554 no", Stage.DATA, MAIL, False),
        ("451 4.3.0 Temporary lookup failure", Stage.MAIL, SESSION, False),
        ("451 4.3.0 Temporary lookup failure", Stage.RCPT, RECIPIENT, False),
    ],
)
def test_what_speaks_of_one_mail_or_of_the_session(
    text: str,
    stage: Stage,
    expected: ReplyClass,
    is_known: bool,  # noqa: FBT001  a parameter of pytest
) -> None:
    """Known words, or else the command that was refused."""
    classified = classify(read(text, stage))

    assert (classified.reply_class, classified.is_known) == (expected, is_known)


@pytest.mark.parametrize("text", ["552 user quota exceeded", "550 This account has been suspended"])
def test_what_may_be_a_mailbox_or_our_account_is_doubtful_at_rcpt(text: str) -> None:
    """One such address must not stop all mail, and a refusal of us must not bury it."""
    classified = classify(read(text, Stage.RCPT))

    assert (classified.reply_class, classified.is_doubtful) == (STANDING, True)


@pytest.mark.parametrize(
    ("text", "stage", "expected"),
    [
        ("554 5.7.1 <a@example.org>: Recipient address rejected: quota exceeded", Stage.RCPT, True),
        ("550 5.4.5 Daily user sending limit exceeded", Stage.RCPT, False),
        ("550 5.4.5 Daily user sending limit exceeded, mail postmaster@example.com", Stage.FINAL, False),
    ],
)
def test_words_about_us_may_name_a_recipient(
    text: str,
    stage: Stage,
    expected: bool,  # noqa: FBT001  a parameter of pytest
) -> None:
    """Such a reply may speak of the address alone."""
    assert classify(read(text, stage)).names_recipient is expected


def test_a_rule_of_the_user_goes_first() -> None:
    """The first one that fits decides; a code fits with and without its enhanced code."""
    rules = (ReplyRule(RATE, "550", "come back"), ReplyRule(STANDING, "5.1.1"), ReplyRule(MAIL, "550 5.7.1"))

    assert classify(read("550 5.7.1 Please COME BACK tomorrow", Stage.RCPT), rules).reply_class is RATE
    assert classify(read("550 5.1.1 user unknown", Stage.RCPT), rules).reply_class is STANDING
    assert classify(read("550 5.7.1 relaying denied", Stage.RCPT), rules).reply_class is MAIL
    assert classify(read("551 5.7.1 relaying denied", Stage.RCPT), rules).reply_class is US


@given(st.integers(400, 599), st.text(), st.sampled_from([Stage.MAIL, Stage.RCPT, Stage.DATA, Stage.FINAL]))
def test_every_reply_has_a_class(code: int, text: str, stage: Stage) -> None:
    """Whatever a relay says; what is refused for now is never for good."""
    reply = reply_from(code, text, stage)
    classified = classify(reply)

    assert classified.reply_class in ReplyClass
    assert reply.is_permanent or not is_for_good(reply, classified)


@given(st.text(alphabet="ab c[]<>@.mailboxuserlimitquota", max_size=500))
def test_no_words_of_a_relay_take_long(text: str) -> None:
    """A pattern that tries every way to match would take seconds on a text made for it; hypothesis has a deadline."""
    classify(reply_from(550, text, Stage.RCPT))
