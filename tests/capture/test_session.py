"""The strict server session of the mail catcher: what it keeps, what it refuses, and which rule it names."""

from __future__ import annotations

import base64
import hmac
from itertools import pairwise

import pytest
from attrs import evolve, frozen
from hypothesis import given
from hypothesis import strategies as st

from trio_worker.capture.actions import (
    CaughtMail,
    Close,
    DelayReplies,
    Drop,
    Keep,
    LoginTried,
    Send,
    ServerAction,
    Stall,
    StartTls,
    Violation,
)
from trio_worker.capture.chaos import Chaos, InjectedFaults, parse_faults
from trio_worker.capture.server_profile import EXTENSIONS, ServerProfile
from trio_worker.capture.session import ServerSession

PLAIN_TEXT = b"Subject: hello\r\n\r\none line\r\n"
START = b"MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.com>\r\n"
EHLO = b"EHLO client.example\r\n"


def session(faults: str = "", profile: ServerProfile | None = None, *, tls: bool = False) -> ServerSession:
    parsed = parse_faults(faults)
    assert isinstance(parsed, InjectedFaults)
    return ServerSession(
        ServerProfile() if profile is None else profile, Chaos(lambda: 0.0, parsed), connection_id=7, tls=tls
    )


def joined(actions: list[ServerAction]) -> list[ServerAction]:
    """Join sends that follow each other, as a stream does."""
    result: list[ServerAction] = []
    for action in actions:
        if result and isinstance(action, Send) and isinstance(last := result[-1], Send):
            result[-1] = Send(last.payload + action.payload)
        else:
            result.append(action)
    return result


def talk(server: ServerSession, *groups: bytes) -> list[ServerAction]:
    """Greet, then give the server one group after another, each in one piece."""
    actions = server.open()
    for group in groups:
        actions += server.receive(group)
    return joined(actions)


def replies(actions: list[ServerAction]) -> list[int]:
    """Return the codes of all replies, in order, without the greeting."""
    sent = b"".join(action.payload for action in actions if isinstance(action, Send))
    return [int(line[:3]) for line in sent.decode().splitlines() if line[3] == " "][1:]


def mails(actions: list[ServerAction]) -> list[CaughtMail]:
    return [action.mail for action in actions if isinstance(action, Keep)]


def rules(actions: list[ServerAction]) -> list[str]:
    return [action.rule for action in actions if isinstance(action, Violation)]


def bdat(content: bytes, *, last: bool = True) -> bytes:
    return b"BDAT %d%s\r\n" % (len(content), b" LAST" if last else b"") + content


def stuffed(content: bytes) -> bytes:
    doubled = content.replace(b"\r\n.", b"\r\n..")
    return (b"." + doubled if doubled.startswith(b".") else doubled) + b".\r\n"


# What a correct client says, for any mail and any way to send it.

LINES = st.lists(st.text(st.sampled_from("ab. \té\u4e16"), max_size=12), min_size=1, max_size=6)
LOCAL_PARTS = st.sampled_from(["a", "b.c", '"quoted one"', "o'hara", "jörg"])
DOMAINS = st.sampled_from(["example.com", "[127.0.0.1]", "x", "münchen.example"])


@frozen
class Sent:
    """One mail as a client means it."""

    sender: str
    recipients: tuple[str, ...]
    content: bytes
    way: str


@st.composite
def sent_mails(draw: st.DrawFn) -> Sent:
    address = st.builds("{}@{}".format, LOCAL_PARTS, DOMAINS)
    body = "".join(f"{line}\r\n" for line in draw(LINES)).encode()
    return Sent(
        sender=draw(address | st.just("")),
        recipients=tuple(draw(st.lists(address, min_size=1, max_size=3))),
        content=b"Subject: x\r\n\r\n" + body,
        way=draw(st.sampled_from(["data", "bdat", "chunks"])),
    )


def transcript(mail: Sent) -> list[bytes]:
    """Return what the client sends, split where it must wait for replies."""
    size = len(mail.content)
    envelope = f"MAIL FROM:<{mail.sender}> SIZE={size} BODY=8BITMIME SMTPUTF8\r\n"
    envelope += "".join(f"RCPT TO:<{recipient}>\r\n" for recipient in mail.recipients)
    match mail.way:
        case "data":
            return [envelope.encode() + b"DATA\r\n", stuffed(mail.content)]
        case "bdat":
            return [envelope.encode() + bdat(mail.content)]
        case _:
            half = size // 2
            return [envelope.encode() + bdat(mail.content[:half], last=False) + bdat(mail.content[half:])]


def pieces(octets: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(octets), *(cut % (len(octets) + 1) for cut in cuts)})
    return [octets[begin:end] for begin, end in pairwise(places)]


@given(st.lists(sent_mails(), min_size=1, max_size=3), st.lists(st.integers(0, 400), max_size=8))
def test_a_correct_client_is_kept_exactly_however_its_octets_are_cut(sent: list[Sent], cuts: list[int]) -> None:
    """Every mail of a correct client is kept as it was meant, without a violation, wherever the stream is cut."""
    groups = [EHLO, *(group for mail in sent for group in transcript(mail)), b"QUIT\r\n"]

    whole = talk(session(), *groups)
    cut = talk(session(), *(piece for group in groups for piece in pieces(group, cuts)))

    assert cut == whole
    assert rules(whole) == []
    assert [(mail.sender, mail.recipients, mail.content) for mail in mails(whole)] == [
        (mail.sender, mail.recipients, mail.content) for mail in sent
    ]
    assert isinstance(whole[-1], Close)


@pytest.mark.parametrize("content", [PLAIN_TEXT, b"", b".\r\n..\r\n.x\r\n", b"\r\n"])
def test_a_whole_session_octet_by_octet_is_the_same_session(content: bytes) -> None:
    """A session fed one octet at a time gives the very same actions."""
    groups = [EHLO, START + b"DATA\r\n", stuffed(content) + START + bdat(content), b"QUIT\r\n"]

    whole = talk(session(), *groups)
    by_octet = talk(session(), *(bytes([octet]) for group in groups for octet in group))

    assert by_octet == whole
    assert [mail.content for mail in mails(whole)] == [content, content]


@given(st.lists(st.binary(max_size=60) | st.sampled_from([EHLO, START, b"DATA\r\n", b"BDAT 5\r\n", b"\r\n.\r\n"])))
def test_garbage_never_breaks_the_session(groups: list[bytes]) -> None:
    """Any input is answered or refused, nothing raises, and no mail without a recipient is kept."""
    actions = talk(session(), *groups)

    assert all(mail.recipients for mail in mails(actions))


# What an incorrect client gets. Each case: what it sends after EHLO, its last reply, the rule.

LONG = b"x" * 999
WRONG: dict[str, tuple[list[bytes], int, str]] = {
    "bare LF in a command": ([b"NOOP\n"], 500, "RFC 5321 2.3.8"),
    "bare CR in a command": ([b"NO\rOP\r\n"], 500, "RFC 5321 2.3.8"),
    "control character in a command": ([b"NOOP \x00\r\n"], 500, "RFC 5321 4.1.2"),
    "command not ASCII": ([b"NOOP \xc3\xa9\r\n"], 500, "RFC 5321 4.1.2"),
    "command too long": ([b"NOOP " + b"x" * 506 + b"\r\n"], 500, "RFC 5321 4.5.3.1.4"),
    "command far too long": ([b"x" * 99_999 + b"\r\n"], 500, "RFC 5321 4.5.3.1.4"),
    "unknown command": ([b"SEND FROM:<a@b>\r\n"], 500, "RFC 5321 4.1.1"),
    "bare LF in DATA": ([START + b"DATA\r\n", b"a\nb\r\n.\r\n"], 554, "RFC 5321 2.3.8"),
    "bare CR in DATA": ([START + b"DATA\r\n", b"a\rb\r\n.\r\n"], 554, "RFC 5321 2.3.8"),
    "bare LF in BDAT": ([START + bdat(b"a\nb\r\n")], 554, "RFC 5321 2.3.8"),
    "bare CR in BDAT": ([START + bdat(b"a\r")], 554, "RFC 5321 2.3.8"),
    "NUL in DATA": ([START + b"DATA\r\n", b"\0\r\n.\r\n"], 554, "RFC 5321 4.5.2"),
    "dot not doubled": ([START + b"DATA\r\n", b"a\r\n.b\r\n.\r\n"], 554, "RFC 5321 4.5.2"),
    "first dot not doubled": ([START + b"DATA\r\n", b".b\r\n.\r\n"], 554, "RFC 5321 4.5.2"),
    "long line in DATA": ([START + b"DATA\r\n", LONG + b"\r\n.\r\n"], 554, "RFC 5321 4.5.3.1.6"),
    "long line in BDAT": ([START + bdat(LONG + b"\r\n")], 554, "RFC 5321 4.5.3.1.6"),
    "8-bit undeclared": ([START + bdat(b"S: x\r\n\r\n\xc3\xa9\r\n")], 554, "RFC 6152 3"),
    "8-bit header": (
        [b"MAIL FROM:<a@b> BODY=8BITMIME\r\nRCPT TO:<c@d>\r\n" + bdat(b"S: \xc3\xa9\r\n\r\n")],
        554,
        "RFC 6531 3.4",
    ),
    "input after EHLO": ([EHLO + b"RSET\r\n"], 554, "RFC 2920 3.1"),
    "input after DATA": ([START + b"DATA\r\n" + stuffed(PLAIN_TEXT)], 554, "RFC 2920 3.1"),
    "input after NOOP": ([b"NOOP\r\nRSET\r\n"], 554, "RFC 2920 3.1"),
    "input after VRFY": ([b"VRFY ann\r\nRSET\r\n"], 554, "RFC 2920 3.1"),
    "input after QUIT": ([b"QUIT\r\nRSET\r\n"], 221, "RFC 5321 4.1.1.10"),
    "input after QUIT's reply": ([b"QUIT\r\n", b"RSET\r\n"], 221, "RFC 5321 4.1.1.10"),
    "nested MAIL": ([START + b"MAIL FROM:<c@d>\r\n"], 503, "RFC 5321 4.1.4"),
    "RCPT before MAIL": ([b"RCPT TO:<a@b>\r\n"], 503, "RFC 5321 4.1.4"),
    "DATA before MAIL": ([b"DATA\r\n"], 503, "RFC 5321 4.1.4"),
    "DATA without RCPT": ([b"MAIL FROM:<a@b>\r\nDATA\r\n"], 554, "RFC 5321 4.1.1.4"),
    "BDAT without MAIL": ([bdat(PLAIN_TEXT)], 503, "RFC 3030 2"),
    "BDAT without RCPT": ([b"MAIL FROM:<a@b>\r\n" + bdat(PLAIN_TEXT)], 503, "RFC 3030 2"),
    "BDAT after LAST": ([START + bdat(PLAIN_TEXT) + bdat(PLAIN_TEXT)], 503, "RFC 3030 2"),
    "DATA after BDAT": ([START + bdat(b"x\r\n", last=False) + b"DATA\r\n"], 503, "RFC 3030 2"),
    "RCPT after BDAT": ([START + bdat(b"x\r\n", last=False) + b"RCPT TO:<a@b>\r\n"], 503, "RFC 3030 2"),
    "malformed BDAT": ([START + b"BDAT x LAST\r\n"], 501, "RFC 3030 2"),
    "space after the colon": ([b"MAIL FROM: <a@b>\r\n"], 501, "RFC 5321 4.1.1.2"),
    "no angle brackets": ([b"MAIL FROM:a@b\r\n"], 501, "RFC 5321 4.1.1.2"),
    "address without domain": ([b"MAIL FROM:<a>\r\n"], 501, "RFC 5321 4.1.1.2"),
    "source route": ([b"MAIL FROM:<@x:a@b>\r\n"], 501, "RFC 5321 4.1.1.2"),
    "trailing space": ([b"MAIL FROM:<a@b> \r\n"], 501, "RFC 5321 4.1.2"),
    "repeated parameter": ([b"MAIL FROM:<a@b> SIZE=1 SIZE=1\r\n"], 501, "RFC 5321 4.1.2"),
    "empty recipient": ([b"MAIL FROM:<a@b>\r\nRCPT TO:<>\r\n"], 501, "RFC 5321 4.1.1.3"),
    "local part too long": ([b"MAIL FROM:<" + b"x" * 65 + b"@b>\r\n"], 501, "RFC 5321 4.5.3.1"),
    "recipient too long": ([b"MAIL FROM:<>\r\nRCPT TO:<" + b"x" * 65 + b"@b>\r\n"], 501, "RFC 5321 4.5.3.1"),
    "address not UTF-8": ([b"MAIL FROM:<\xff@b>\r\n"], 501, "RFC 5321 4.1.1.2"),
    "sender not ASCII": (["MAIL FROM:<é@b>\r\n".encode()], 553, "RFC 6531 3.4"),
    "recipient not ASCII": (["MAIL FROM:<a@b>\r\nRCPT TO:<é@b>\r\n".encode()], 553, "RFC 6531 3.4"),
    "unknown parameter": ([b"MAIL FROM:<a@b> RET=FULL\r\n"], 555, "RFC 5321 4.1.1.11"),
    "parameter of RCPT": ([b"MAIL FROM:<a@b>\r\nRCPT TO:<a@b> NOTIFY=NEVER\r\n"], 555, "RFC 5321 4.1.1.11"),
    "BODY=BINARYMIME": ([b"MAIL FROM:<a@b> BODY=BINARYMIME\r\n"], 501, "RFC 6152 2"),
    "SMTPUTF8 with a value": ([b"MAIL FROM:<a@b> SMTPUTF8=1\r\n"], 501, "RFC 6531 3.4"),
    "SIZE over the limit": ([b"MAIL FROM:<a@b> SIZE=99999999999\r\n"], 552, "RFC 1870 6.1"),
    "more than SIZE said": ([b"MAIL FROM:<a@b> SIZE=2\r\nRCPT TO:<c@d>\r\n" + bdat(b"abc\r\n")], 552, "RFC 1870 6.3"),
    "EHLO without a name": ([b"EHLO\r\n"], 501, "RFC 5321 4.1.1.1"),
    "EHLO with an underscore": ([b"EHLO my_host\r\n"], 501, "RFC 5321 4.1.1.1"),
    "RSET with parameters": ([b"RSET now\r\n"], 501, "RFC 5321 4.1.1"),
    "QUIT with parameters": ([b"QUIT now\r\n"], 501, "RFC 5321 4.1.1"),
    "command far too long, in pieces": ([b"x" * 50_000, b"x" * 50_000, b"\r\n"], 500, "RFC 5321 4.5.3.1.4"),
    "VRFY of nothing": ([b"VRFY\r\n"], 501, "RFC 5321 4.1.1.6"),
    "STARTTLS not offered": ([b"STARTTLS\r\n"], 503, "RFC 3207 4"),
    "AUTH not offered": ([b"AUTH PLAIN AGEAYg==\r\n"], 502, "RFC 4954 4"),
}


@pytest.mark.parametrize(("said", "code", "rule"), WRONG.values(), ids=WRONG)
def test_a_broken_rule_is_refused_and_named(said: list[bytes], code: int, rule: str) -> None:
    """Each broken rule earns its reply and one violation that names the section, and no mail but a good one is kept."""
    actions = talk(session(), EHLO, *said)

    assert rules(actions) == [rule]
    assert replies(actions)[-1] == code
    assert len(mails(actions)) == (1 if said == WRONG["BDAT after LAST"][0] else 0)


OFFERED_LESS: dict[str, tuple[str, bytes, int, str]] = {
    "pipelining": ("PIPELINING", START, 554, "RFC 2920 3.1"),
    "BDAT": ("CHUNKING", START.splitlines(keepends=True)[0], 250, ""),
    "SIZE": ("SIZE", b"MAIL FROM:<a@b> SIZE=1\r\n", 555, "RFC 5321 4.1.1.11"),
    "BODY": ("8BITMIME", b"MAIL FROM:<a@b> BODY=7BIT\r\n", 555, "RFC 5321 4.1.1.11"),
    "SMTPUTF8": ("SMTPUTF8", b"MAIL FROM:<a@b> SMTPUTF8\r\n", 555, "RFC 5321 4.1.1.11"),
}


@pytest.mark.parametrize(("keyword", "said", "code", "rule"), OFFERED_LESS.values(), ids=OFFERED_LESS)
def test_what_was_not_offered_is_refused(keyword: str, said: bytes, code: int, rule: str) -> None:
    """An extension that EHLO did not name may not be used."""
    server = session(profile=ServerProfile(extensions=EXTENSIONS - {keyword}))

    actions = talk(server, EHLO, said)

    assert replies(actions)[-1] == code
    assert rules(actions) == ([rule] if rule else [])


def test_bdat_that_was_not_offered_ends_the_connection() -> None:
    """Without CHUNKING the octets after BDAT look like commands: 502, then the connection is closed."""
    actions = talk(session(profile=ServerProfile(extensions=EXTENSIONS - {"CHUNKING"})), EHLO, START, bdat(PLAIN_TEXT))

    assert replies(actions)[-1] == 502
    assert rules(actions) == ["RFC 3030 2"]
    assert isinstance(actions[-1], Close)


def test_after_helo_nothing_is_offered() -> None:
    """HELO offers no extension, so neither parameters nor pipelining nor enhanced codes are in force."""
    actions = talk(session(), b"HELO client\r\n", b"MAIL FROM:<a@b> SIZE=3\r\n", b"MAIL FROM:<a@b>\r\nRSET\r\n")

    assert replies(actions) == [250, 555, 554]
    assert rules(actions) == ["RFC 5321 4.1.1.11", "RFC 2920 3.1"]
    assert not any(b"5.5.4" in action.payload for action in actions if isinstance(action, Send))


def test_without_pipelining_each_step_waits() -> None:
    """A client that waits for each reply is welcome without PIPELINING, BDAT with its octets included."""
    server = session(profile=ServerProfile(extensions=EXTENSIONS - {"PIPELINING"}))
    steps = [*START.splitlines(keepends=True), bdat(PLAIN_TEXT), *START.splitlines(keepends=True), b"DATA\r\n"]

    actions = talk(server, EHLO, *steps, stuffed(PLAIN_TEXT), b"QUIT\r\n")

    assert rules(actions) == []
    assert len(mails(actions)) == 2


@pytest.mark.parametrize("final", [bdat(PLAIN_TEXT), stuffed(PLAIN_TEXT)])
def test_without_pipelining_input_after_the_content_is_out_of_step(final: bytes) -> None:
    """Without PIPELINING nothing may follow the content before its reply; the mail is not kept."""
    server = session(profile=ServerProfile(extensions=EXTENSIONS - {"PIPELINING"}))
    opening = [] if final.startswith(b"BDAT") else [b"DATA\r\n"]

    actions = talk(server, EHLO, *START.splitlines(keepends=True), *opening, final + b"RSET\r\n")

    assert rules(actions) == ["RFC 2920 3.1"]
    assert mails(actions) == []


def test_mail_before_ehlo_is_refused() -> None:
    """A transaction needs EHLO or HELO first, NOOP and RSET do not."""
    actions = talk(session(), b"NOOP\r\n", b"RSET\r\n", b"MAIL FROM:<a@b>\r\n")

    assert replies(actions) == [250, 250, 503]
    assert rules(actions) == ["RFC 5321 4.1.4"]


# Transactions.


def test_what_was_pipelined_after_a_refusal_is_no_violation() -> None:
    """A legal group whose MAIL or RCPT is refused gets refusals to the end, but breaks no rule."""
    server = session("rcpt=550:first1 mail=451:after1")

    actions = talk(server, EHLO, START + b"DATA\r\n", b"RSET\r\n" + START + bdat(PLAIN_TEXT))

    assert replies(actions) == [250, 250, 550, 554, 250, 451, 503, 503]
    assert rules(actions) == []


def test_a_refused_bdat_swallows_its_octets() -> None:
    """The octets of a refused BDAT are no commands."""
    actions = talk(session("data=451:first1"), EHLO, START + bdat(b"QUIT\r\nQUIT\r\n"), b"NOOP\r\n")

    assert replies(actions) == [250, 250, 250, 451, 250]
    assert mails(actions) == []


def test_a_refused_bdat_leaves_the_sender_standing() -> None:
    """Without RSET after a refused BDAT the next MAIL is nested, and the next mail goes out with the old sender."""
    first = b"MAIL FROM:<old@x>\r\nRCPT TO:<rcpt-550@x>\r\n" + bdat(PLAIN_TEXT)
    second = b"MAIL FROM:<new@x>\r\nRCPT TO:<good@x>\r\n" + bdat(PLAIN_TEXT)

    careless = talk(session(), EHLO, first + second)
    careful = talk(session(), EHLO, first + b"RSET\r\n" + second)

    assert replies(careless) == [250, 250, 550, 503, 503, 250, 250]
    assert rules(careless) == ["RFC 5321 4.1.4"]
    assert [mail.sender for mail in mails(careless)] == ["old@x"]
    assert rules(careful) == []
    assert [mail.sender for mail in mails(careful)] == ["new@x"]


def test_after_a_refused_chunk_only_rset_helps() -> None:
    """A refused chunk fails the transaction: chunks in flight are swallowed, MAIL is refused until RSET."""
    chunks = bdat(b"one\r\n", last=False) + bdat(b"two\r\n", last=False)

    actions = talk(session("data=452:first1"), EHLO, START + chunks, b"MAIL FROM:<c@d>\r\n", b"RSET\r\n" + START)

    assert replies(actions) == [250, 250, 250, 452, 503, 503, 250, 250, 250]
    assert rules(actions) == ["RFC 3030 2"]


def test_the_end_of_data_clears_the_transaction_whatever_its_reply() -> None:
    """After the dot the next MAIL is never nested, even when the content was refused."""
    group = [START + b"DATA\r\n", stuffed(PLAIN_TEXT) + START + b"DATA\r\n", stuffed(PLAIN_TEXT)]

    actions = talk(session("final=451:first1"), EHLO, *group)

    assert replies(actions) == [250, 250, 250, 354, 451, 250, 250, 354, 250]
    assert len(mails(actions)) == 1
    assert rules(actions) == []


def test_a_relay_may_go_ahead_without_recipients_and_keeps_nothing() -> None:
    """A relay that says 354 although all recipients were refused refuses the lone dot, without blame."""
    server = session("rcpt=550", ServerProfile(accepts_data_without_recipients=True))

    actions = talk(server, EHLO, START + b"DATA\r\n", b".\r\n")

    assert replies(actions) == [250, 250, 550, 354, 554]
    assert rules(actions) == []
    assert mails(actions) == []


@pytest.mark.parametrize("cut", [1, 50, 100_000])
def test_content_over_the_limit_is_refused_and_not_hoarded(cut: int) -> None:
    """Content over the announced limit gets 552, at any size and in any parts; the session goes on."""
    server = session(profile=ServerProfile(size_limit_bytes=100))
    content = stuffed(b"x" * 70 + b"\r\n" + b"y" * 70 + b"\r\n" + (b"z" * 70 + b"\r\n") * 300)
    pieces_of_content = [content[begin : begin + cut] for begin in range(0, len(content), cut)]

    actions = talk(server, EHLO, START + b"DATA\r\n", *pieces_of_content, START + bdat(b"x" * 101), b"QUIT\r\n")

    assert replies(actions) == [250, 250, 250, 354, 552, 250, 250, 552, 221]
    assert rules(actions) == ["RFC 1870 6.1", "RFC 1870 6.1"]


def test_the_limits_grow_with_the_extensions() -> None:
    """MAIL may be longer than 512 octets by what the offered extensions add, and not by more."""
    room = 512 + 26 + 17 + 10 - len(b"MAIL FROM:<a@b> SIZE=1\r\n")
    fits = b"MAIL FROM:<a@b> SIZE=" + b"0" * room + b"1\r\n"

    actions = talk(session(), EHLO, fits, fits.replace(b"=0", b"=00"))

    assert replies(actions) == [250, 501, 500]
    assert rules(actions) == ["RFC 1870 4", "RFC 5321 4.5.3.1.4"]


def test_the_null_sender_and_postmaster_are_addresses() -> None:
    """The empty reverse-path and a bare Postmaster are correct."""
    actions = talk(session(), EHLO, b"MAIL FROM:<>\r\nRCPT TO:<Postmaster>\r\n" + bdat(PLAIN_TEXT))

    assert [(mail.sender, mail.recipients) for mail in mails(actions)] == [("", ("Postmaster",))]
    assert rules(actions) == []


def test_a_last_that_was_refused_is_the_last() -> None:
    """After a refused BDAT LAST another BDAT is refused and blamed, as long as no recipient begins anew."""
    actions = talk(session("final=451:first1"), EHLO, START + bdat(PLAIN_TEXT), bdat(PLAIN_TEXT))

    assert replies(actions) == [250, 250, 250, 451, 503]
    assert rules(actions) == ["RFC 3030 2"]


def test_a_thousand_recipients_are_taken_and_no_more() -> None:
    """The recipient after the thousandth is refused for now, which is no violation."""
    actions = talk(session(), EHLO, b"MAIL FROM:<a@b>\r\n" + b"RCPT TO:<c@d>\r\n" * 1001)

    assert replies(actions) == [250, 250, *[250] * 1000, 452]
    assert rules(actions) == []


def test_questions_are_answered() -> None:
    """NOOP, HELP, VRFY and EXPN have harmless replies."""
    actions = talk(session(), EHLO, b"NOOP\r\n", b"HELP\r\n", b"VRFY ann\r\n", b"EXPN staff\r\n")

    assert replies(actions) == [250, 250, 214, 252, 252]
    assert rules(actions) == []


# TLS and logins.

WITH_LOGIN = ServerProfile(credentials=("ann", "secret"))
RIGHT = base64.b64encode(b"\0ann\0secret")


def test_starttls_forgets_what_was_said_in_clear() -> None:
    """Input after STARTTLS is discarded and blamed; after the handshake EHLO is needed again and offers AUTH."""
    server = session(profile=evolve(WITH_LOGIN, has_tls=True, auth_in_clear=False))

    before = talk(server, EHLO, b"STARTTLS\r\nMAIL FROM:<evil@x>\r\n")
    server.tls_started()
    after = server.receive(b"MAIL FROM:<a@b>\r\n") + server.receive(EHLO)

    assert rules(before) == ["RFC 3207 4"]
    assert isinstance(before[-1], StartTls)
    assert b"STARTTLS" in b"".join(action.payload for action in before if isinstance(action, Send))
    assert rules(after) == ["RFC 5321 4.1.4"]
    assert isinstance(offered := after[-1], Send)
    assert b"AUTH CRAM-MD5 LOGIN PLAIN" in offered.payload
    assert b"STARTTLS" not in offered.payload


def test_starttls_takes_no_parameters() -> None:
    """STARTTLS with parameters gets 501, and with a fault its fault; neither starts TLS."""
    server = session("starttls=454", profile=ServerProfile(has_tls=True))

    actions = talk(server, EHLO, b"STARTTLS now\r\n", b"STARTTLS\r\n")

    assert replies(actions) == [250, 501, 454]
    assert rules(actions) == ["RFC 3207 4"]


def test_a_login_in_clear_is_refused_where_tls_is_to_be_had() -> None:
    """AUTH before STARTTLS gets 538 and is a violation."""
    server = session(profile=evolve(WITH_LOGIN, has_tls=True, auth_in_clear=False))

    actions = talk(server, EHLO, b"AUTH PLAIN " + RIGHT + b"\r\n")

    assert replies(actions)[-1] == 538
    assert rules(actions) == ["RFC 4954 4"]


@pytest.mark.parametrize(
    "steps",
    [
        [b"AUTH PLAIN " + RIGHT],
        [b"AUTH PLAIN", RIGHT],
        [b"AUTH LOGIN", base64.b64encode(b"ann"), base64.b64encode(b"secret")],
        [b"AUTH LOGIN " + base64.b64encode(b"ann"), base64.b64encode(b"secret")],
    ],
)
def test_a_right_login_is_known_to_its_mails(steps: list[bytes]) -> None:
    """PLAIN and LOGIN, with or without an initial response, end in 235, and the mail knows its user."""
    server = session(profile=evolve(WITH_LOGIN, require_auth=True), tls=True)

    actions = talk(server, EHLO, *(step + b"\r\n" for step in steps), START + bdat(PLAIN_TEXT))

    assert 235 in replies(actions)
    assert LoginTried("ann", accepted=True) in actions
    assert [(mail.user, mail.tls) for mail in mails(actions)] == [("ann", True)]
    assert rules(actions) == []


@pytest.mark.parametrize(("password", "code"), [(b"secret", 235), (b"wrong", 535)])
def test_cram_md5_proves_the_password(password: bytes, code: int) -> None:
    """CRAM-MD5 accepts the digest of its challenge under the right password only."""
    server = session(profile=WITH_LOGIN)
    asked = talk(server, EHLO, b"AUTH CRAM-MD5\r\n")[-1]
    assert isinstance(asked, Send)
    challenge = base64.b64decode(asked.payload.splitlines()[-1].removeprefix(b"334 "))

    proof = b"ann " + hmac.new(password, challenge, "md5").hexdigest().encode()
    answered = server.receive(base64.b64encode(proof) + b"\r\n")

    assert LoginTried("ann", accepted=code == 235) in answered
    assert f"{code} ".encode() in b"".join(action.payload for action in answered if isinstance(action, Send))


@pytest.mark.parametrize(
    ("said", "code", "rule"),
    [
        ([b"AUTH PLAIN " + base64.b64encode(b"\0ann\0wrong")], 535, ""),
        ([b"AUTH PLAIN", b"*"], 501, ""),
        ([b"AUTH PLAIN !!!"], 501, "RFC 4954 4"),
        ([b"AUTH PLAIN ="], 501, "RFC 4954 4"),
        ([b"AUTH PLAIN", b"\xff"], 501, "RFC 4954 4"),
        ([b"AUTH XOAUTH2 eA=="], 504, "RFC 4954 4"),
        ([b"AUTH CRAM-MD5 eA=="], 501, "RFC 4954 4"),
        ([b"AUTH"], 501, "RFC 4954 4"),
        ([b"AUTH PLAIN " + RIGHT, b"AUTH PLAIN " + RIGHT], 503, "RFC 4954 4"),
        ([b"MAIL FROM:<a@b>", b"AUTH PLAIN " + RIGHT], 503, "RFC 4954 4"),
        ([b"AUTH LOGIN\r\n" + base64.b64encode(b"ann")], 554, "RFC 2920 3.1"),
        ([b"AUTH LOGIN", base64.b64encode(b"ann") + b"\r\nNOOP"], 554, "RFC 2920 3.1"),
        ([b"AUTH PLAIN", b"x" * 13_000, b"NOOP"], 250, "RFC 5321 4.5.3.1.4"),
    ],
)
def test_a_wrong_login_is_refused(said: list[bytes], code: int, rule: str) -> None:
    """Wrong passwords are refused, wrong exchanges are refused and named."""
    actions = talk(session(profile=WITH_LOGIN), EHLO, *(line + b"\r\n" for line in said))

    assert replies(actions)[-1] == code
    assert rules(actions) == ([rule] if rule else [])


def test_auth_plain_in_one_message_may_be_followed() -> None:
    """AUTH PLAIN with its initial response may stand in a group, as RFC 4954 allows."""
    actions = talk(session(profile=WITH_LOGIN), EHLO, b"AUTH PLAIN " + RIGHT + b"\r\n" + START + bdat(PLAIN_TEXT))

    assert replies(actions) == [250, 235, 250, 250, 250]
    assert rules(actions) == []


def test_mail_without_a_required_login_is_refused() -> None:
    """A relay that requires a login says 530 to MAIL; that is no violation."""
    actions = talk(session(profile=evolve(WITH_LOGIN, require_auth=True)), EHLO, START)

    assert replies(actions) == [250, 530, 503]
    assert rules(actions) == []


# Faults.


@pytest.mark.parametrize("stage", ["connect", "ehlo", "mail", "rcpt", "data", "body", "final", "rset", "quit"])
@pytest.mark.parametrize(("act", "last"), [("drop", Drop()), ("stall", Stall()), ("421", Close())])
@pytest.mark.parametrize("way", ["data", "bdat"])
def test_a_fault_at_any_stage_ends_the_connection(stage: str, act: str, last: ServerAction, way: str) -> None:
    """Drop, stall and 421 at each stage end the conversation there, and the mail is kept only if it was accepted."""
    mail = [START + bdat(PLAIN_TEXT)] if way == "bdat" else [START + b"DATA\r\n", stuffed(PLAIN_TEXT)]
    if stage == "body" and act == "stall":
        last = Stall(reads=False)

    actions = talk(session(f"{stage}={act}"), EHLO, *mail, b"RSET\r\n", b"QUIT\r\n")

    assert actions[-1] == last
    assert rules(actions) == []
    assert len(mails(actions)) == (1 if stage in {"rset", "quit"} else 0)


def test_accept_drop_keeps_the_mail_and_says_nothing() -> None:
    """accept-drop is the accident that leaves a client in the dark: kept, then the connection is gone."""
    actions = talk(session("final=accept-drop"), EHLO, START + bdat(PLAIN_TEXT))

    assert replies(actions) == [250, 250, 250]
    assert len(mails(actions)) == 1
    assert actions[-1] == Drop()


def test_a_refusal_in_mid_content_closes() -> None:
    """A refusal at body comes with the first octets of the content, and the connection is closed after it."""
    actions = talk(session("body=552"), EHLO, START + b"DATA\r\n", b"S")

    assert replies(actions)[-1] == 552
    assert isinstance(actions[-1], Close)


def test_a_greeting_that_refuses_leaves_only_quit() -> None:
    """After a 554 greeting everything but QUIT gets 503."""
    actions = talk(session("connect=554"), EHLO, b"QUIT\r\n")

    assert replies(actions) == [503, 221]
    assert rules(actions) == []


def test_a_group_is_late_once() -> None:
    """Commands that come in one group are late together, those of the next group anew."""
    actions = talk(session("every=delay-50ms"), EHLO, START + bdat(PLAIN_TEXT), b"QUIT\r\n")

    assert [action.seconds for action in actions if isinstance(action, DelayReplies)] == [0.05] * 4


def test_a_late_bdat_is_late_from_its_last_octets() -> None:
    """A delay at data counts for the reply, which is due after the last octets."""
    server = session("data=delay-1s")
    command, content = bdat(PLAIN_TEXT)[:-5], PLAIN_TEXT[-5:]

    talk(server, EHLO, START + command)
    actions = server.receive(content)

    assert DelayReplies(1.0) in actions


@pytest.mark.parametrize("way", ["data", "bdat"])
def test_a_fault_for_every_reply_refuses_without_keeping(way: str) -> None:
    """every=451 at the end of the content refuses the mail and forgets its octets."""
    server = session()
    talk(server, EHLO, START + (b"DATA\r\n" if way == "data" else b""))
    faults = parse_faults("every=451")
    assert isinstance(faults, InjectedFaults)

    server.chaos.put_in_force(faults)
    refused = server.receive(b"first\r\n.\r\n" if way == "data" else bdat(b"first\r\n"))
    server.chaos.put_in_force(InjectedFaults())
    second = server.receive(b"RSET\r\n" + START + bdat(b"second\r\n"))

    assert mails(refused) == []
    assert [mail.content for mail in mails(second)] == [b"second\r\n"]


@pytest.mark.parametrize(
    ("recipient", "expected"),
    [
        ("rcpt-451@x", [250, 451, 554]),
        ("rcpt-550-5.1.1+tag@x", [250, 550, 554]),
        ("data-452@x", [250, 250, 452]),
        ("final-554@x", [250, 250, 354, 554]),
        ("rcpt-nonsense@x", [250, 250, 354, 250]),
        ("rcpt-delay-5ms@x", [250, 250, 354, 250]),
    ],
)
def test_a_recipient_can_ask_for_its_fault(recipient: str, expected: list[int]) -> None:
    """A local part such as rcpt-451 or final-550 scripts the fault of its own mail."""
    server = session()
    opened = f"MAIL FROM:<a@b>\r\nRCPT TO:<{recipient}>\r\nDATA\r\n".encode()

    actions = talk(server, EHLO, opened, *([stuffed(PLAIN_TEXT)] if 354 in expected else []))

    assert replies(actions)[1:] == expected
    assert rules(actions) == []


def test_a_login_can_be_refused_for_a_while() -> None:
    """auth=535:first2 refuses two logins with a correct password, counted over all connections."""
    parsed = parse_faults("auth=535:first2")
    assert isinstance(parsed, InjectedFaults)
    chaos = Chaos(lambda: 0.0, parsed)

    codes = [
        replies(talk(ServerSession(WITH_LOGIN, chaos), EHLO, b"AUTH PLAIN " + RIGHT + b"\r\n"))[-1]
        for _connection in range(4)
    ]

    assert codes == [535, 535, 235, 235]


def test_a_fault_for_every_reply_ends_a_login() -> None:
    """every=454 instead of the verdict on a login leaves the session ready for commands."""
    server = session(profile=WITH_LOGIN)
    talk(server, EHLO, b"AUTH LOGIN\r\n")
    faults = parse_faults("every=454:first1")
    assert isinstance(faults, InjectedFaults)

    server.chaos.put_in_force(faults)
    actions = server.receive(base64.b64encode(b"ann") + b"\r\n") + server.receive(b"NOOP\r\n")

    assert [action.payload[:3] for action in actions if isinstance(action, Send)] == [b"454", b"250"]


def test_the_log_of_commands_holds_verbs_only() -> None:
    """The log names verbs, nothing else that a client says."""
    server = session(profile=WITH_LOGIN)

    talk(server, EHLO, b"auth plain " + RIGHT + b"\r\n", b"secret word\r\n", b"QUIT\r\n")

    assert list(server.commands) == ["EHLO", "AUTH", "?", "QUIT"]
