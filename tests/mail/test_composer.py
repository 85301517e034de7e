"""From a job to a mail: the standard library's parser must read back exactly what was meant, for any job."""

from __future__ import annotations

import base64
import email
import email.header
import email.policy
import itertools
import json
import re
from typing import TYPE_CHECKING, Any, get_args

import jsonschema
import pytest
from attrs import evolve
from hypothesis import example, given
from hypothesis import strategies as st

from trio_worker.jobs.address import Mailbox, quote
from trio_worker.jobs.attachment import Attachment
from trio_worker.jobs.catalogue import read_catalogue
from trio_worker.jobs.email_type import Catalogue, FieldSpec, TypeSpec
from trio_worker.jobs.fault import Reason
from trio_worker.jobs.job import Job, Malformed, Message, Templated, decode, sample_job
from trio_worker.jobs.json_schema import job_schema
from trio_worker.mail.composer import Composer, ComposerFaults, Mail, open_composer
from trio_worker.mail.message_id import message_id_of
from trio_worker.mail.mime import (
    address_header,
    encode_body,
    encoded_words,
    multipart_entity,
    text_entity,
    unstructured_header,
)
from trio_worker.mail.options import MailOptions

if TYPE_CHECKING:
    from collections.abc import Iterable
    from email.message import EmailMessage

    from trio_worker.jobs.strict_json import Json

JOB_ID = "01JD4Y6T8Q"
AT = 1_700_000_000.0
OUR_HEADERS = ["Date", "From", "To", "Subject", "Message-ID", "MIME-Version", "Auto-Submitted"]


def built_in() -> Catalogue:
    catalogue = read_catalogue(())
    assert isinstance(catalogue, Catalogue)
    return catalogue


def opened(options: MailOptions, catalogue: Catalogue) -> Composer:
    composer = open_composer(options, catalogue)
    assert isinstance(composer, Composer), str(composer)
    return composer


CATALOGUE = built_in()
COMPOSER = opened(MailOptions(), CATALOGUE)
BUECHER = opened(MailOptions(sender="hi@bücher.example"), CATALOGUE)


def composed(job: Job, composer: Composer = COMPOSER) -> Mail:
    mail = composer.compose(job, JOB_ID, AT)
    assert isinstance(mail, Mail), str(mail)
    return mail


def message_job(**payload: Any) -> Job:
    document = {
        "task_type": "Email",
        "data": {"email_type": "Message", "data": {"to": "a@b", "subject": "s", "text": "t", **payload}},
    }
    job = decode(json.dumps(document).encode(), CATALOGUE.types)
    assert isinstance(job, Job), str(job)
    return job


def templated_job(email_type: str, **fields: Any) -> Job:
    document = {"task_type": "Email", "data": {"email_type": email_type, "data": fields}}
    job = decode(json.dumps(document).encode(), CATALOGUE.types)
    assert isinstance(job, Job), str(job)
    return job


def read_back(content: bytes) -> EmailMessage:
    """Let the standard library read a mail; addresses beyond ASCII it reads from text only (RFC 6532)."""
    message = email.message_from_bytes(content, policy=email.policy.default)
    header = email.message_from_string(content.partition(b"\r\n\r\n")[0].decode(), policy=email.policy.SMTPUTF8)
    for name in ("To", "Cc", "Reply-To"):
        if name in header:
            message.replace_header(name, header[name])
    return message


def canonical(text: str) -> str:
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text if text.endswith("\n") else text + "\n"


def is_alternative(part: EmailMessage) -> bool:
    return part.get_content_maintype() == "text" and part.get_content_disposition() is None


def texts_of(message: EmailMessage) -> dict[str, str]:
    return {
        part.get_content_subtype(): canonical(part.get_content())
        for part in message.walk()
        if is_alternative(part) and part.get_content_subtype() != "calendar"
    }


def file_of(part: EmailMessage) -> tuple[str | None, str, str | None, bytes]:
    """Return a file's name, type, first parameter and bytes, as a reader finds them."""
    content = part.get_payload(decode=True)
    assert isinstance(content, bytes)
    parameters = [f"{name}={value}" for name, value in part["Content-Type"].params.items()]
    return part.get_filename(), part.get_content_type(), parameters[0] if parameters else None, content


def meant_file(held: Attachment) -> tuple[str, str, str | None, bytes]:
    return held.name, held.type.essence, held.type.parameters[0] if held.type.parameters else None, held.content


def told(name: str) -> str:
    """Return a name as the parser can read it: Python 3.11 puts a space between two encoded-words of a name."""
    return name if len(encoded_words(name)) == 1 else "".join(name.split())


def addresses_of(message: EmailMessage, name: str) -> list[tuple[str, str]]:
    return [(told(found.display_name), found.addr_spec) for found in message[name].addresses] if name in message else []


def meant(mailboxes: Iterable[Mailbox]) -> list[tuple[str, str]]:
    return [(told(mailbox.name), mailbox.address) for mailbox in mailboxes]


def assert_clean(content: bytes, *, ascii_only: bool) -> None:
    assert content.endswith(b"\r\n")
    assert b"\0" not in content
    assert not re.search(rb"\r(?!\n)|(?<!\r)\n", content)
    assert max(map(len, content.split(b"\r\n"))) <= 998
    assert content.isascii() or not ascii_only


# What producers send, with everything in it that ever broke a mail.
LINE = st.text(
    st.sampled_from("ab Z.,;:@<>\"\\()[]='?_-!%é中😀\u00a0\u202e\u0301")
    | st.characters(exclude_categories=["C", "Zl", "Zp"]),
    max_size=120,
)
LOCAL = st.sampled_from(["ann", "a.b+c", '"a b"', '"a@b"', "o'neil", "x" * 64, "änne", "中文"])
DOMAIN = st.sampled_from(["example.com", "b", "[192.0.2.1]", "bücher.example", "a.ab" * 40 + ".com"])
MAILBOXES = st.builds(
    lambda name, local, domain: f"{quote(name)} <{local}@{domain}>" if name.strip() else f"{local}@{domain}",
    LINE,
    LOCAL,
    DOMAIN,
)
BODY = st.text(
    st.sampled_from("ab .=-_\t\r\n\x0b\x0c\x1b\x85\u2028é中😀") | st.characters(exclude_characters="\0", codec="utf-8"),
    max_size=200,
).flatmap(
    lambda text: st.sampled_from(
        [text, text * 20, "x" * 998 + text, "x" * 999 + "\n", f"--=_{JOB_ID}.a\n{text}", ".\n"]
    )
)
FILES = st.fixed_dictionaries(
    {
        "name": LINE.map(lambda name: name.replace("/", "").replace("\\", "")[:60]).filter(
            lambda name: name.strip() not in ("", ".", "..")
        ),
        "type": st.sampled_from(
            ["application/pdf", "text/csv; charset=utf-8", "image/svg+xml", "text/calendar; method=REQUEST"]
        ),
        "base64": st.binary(max_size=200).map(lambda octets: base64.b64encode(octets).decode()),
    }
)
MESSAGES = st.fixed_dictionaries(
    {"to": st.lists(MAILBOXES, min_size=1, max_size=3), "subject": LINE, "text": st.none() | BODY, "html": BODY},
    optional={
        "cc": st.lists(MAILBOXES, max_size=2),
        "bcc": MAILBOXES,
        "reply_to": MAILBOXES,
        "headers": st.dictionaries(st.sampled_from(["X-A", "X-Long-Name-Of-A-Header", "Comments"]), LINE, max_size=2),
        "attachments": st.tuples(st.lists(FILES, max_size=2), st.lists(FILES, max_size=2)).map(
            lambda lists: [*lists[0], *({**each, "cid": f"id{place}"} for place, each in enumerate(lists[1]))]
        ),
    },
)


@given(payload=MESSAGES, eight_bit=st.booleans(), smtputf8=st.booleans())
@example(payload={"to": ["a@b"], "subject": "=?utf-8?q?x?=", "text": "", "html": ""}, eight_bit=True, smtputf8=True)
@example(
    payload={"to": ["a@b"], "subject": "a" + " " * 900 + "b", "text": ".", "html": " "}, eight_bit=False, smtputf8=True
)
def test_a_message_is_read_back_as_it_was_meant(payload: dict[str, Any], *, eight_bit: bool, smtputf8: bool) -> None:
    """Addresses, subject, headers, texts and files survive, nothing else appears, and the schema takes it all."""
    jsonschema.validate(payload, job_schema({})["properties"]["data"]["oneOf"][0]["properties"]["data"])
    job = message_job(**payload)
    message = job.content
    assert isinstance(message, Message)
    mail = composed(job)
    content = mail.content(eight_bit=eight_bit, smtputf8=smtputf8)
    read = read_back(content)

    assert_clean(content, ascii_only=not (eight_bit or mail.needs_smtputf8 or (mail.uses_smtputf8 and smtputf8)))
    expected = {*OUR_HEADERS, *message.headers, "Content-Type"}
    expected |= {name for name, given in (("Cc", message.cc), ("Reply-To", message.reply_to)) if given}
    assert {*read.keys()} - {"Content-Transfer-Encoding"} == expected
    assert len(read.keys()) == len(set(read.keys()))
    shown = [[box for box in boxes if smtputf8 or not box.needs_smtputf8] for boxes in (message.to, message.cc)]
    if smtputf8 or not mail.needs_smtputf8:
        assert [addresses_of(read, name) for name in ("To", "Cc")] == [meant(boxes) for boxes in shown]
    assert read["Subject"] == message.subject.strip(" ")
    assert {name: read[name] for name in message.headers} == dict(message.headers)
    bodies = {"plain": message.text, "html": message.html}
    assert texts_of(read) == {subtype: canonical(text) for subtype, text in bodies.items() if text is not None}
    files = [part for part in read.walk() if part.get_content_disposition() == "attachment"]
    assert [file_of(part) for part in files] == [meant_file(held) for held in message.attachments if held.cid is None]
    related = [part for part in read.walk() if part.get_content_disposition() == "inline"]
    assert [(part["Content-ID"], *file_of(part)) for part in related] == [
        (f"<{held.cid}>", *meant_file(held)) for held in message.attachments if held.cid is not None
    ]
    invitations = [part for part in read.walk() if is_alternative(part) and part.get_content_type() == "text/calendar"]
    assert [part.get_payload(decode=True) for part in invitations] == [
        held.content for held in message.attachments if held.type.is_invitation and held.cid is None
    ]


def test_bcc_reaches_the_envelope_only() -> None:
    """Recipients in Bcc get the mail and are in no header; no recipient gets it twice."""
    mail = composed(message_job(to=["a@b", "Ann <c@d>"], cc="a@B", bcc=["hidden@example.com", "C@d"]))

    assert mail.recipients == ("a@b", "c@d", "hidden@example.com", "C@d")
    assert b"hidden" not in mail.content(eight_bit=True)


def test_a_mail_to_bcc_alone_shows_no_recipient() -> None:
    """A mail whose recipients are all hidden says so in its To header."""
    content = composed(message_job(to=[], bcc=["a@b"])).content(eight_bit=True)

    assert b"\r\nTo: undisclosed-recipients:;\r\n" in content


def test_every_flavour_is_made_once() -> None:
    """A mail that is tried again costs no second encoding."""
    mail = composed(message_job(text="é"))

    assert mail.content(eight_bit=True) is mail.content(eight_bit=True)
    assert b"8bit" in mail.content(eight_bit=True)
    assert b"quoted-printable" in mail.content(eight_bit=False)


def test_the_repr_of_a_mail_tells_no_recipient() -> None:
    """A mail in a log or a traceback shows neither its recipients nor its content."""
    assert repr(composed(message_job(to="ann@example.com", text="secret"))) == (
        "Mail(sender='no-reply@example.com', message_id='<01JD4Y6T8Q@example.com>', needs_smtputf8=False)"
    )


@pytest.mark.parametrize("field", ["to", "cc", "bcc", "reply_to"])
def test_any_address_beyond_ascii_uses_smtputf8(field: str) -> None:
    """One address beyond ASCII before the @, in header or envelope, uses it; a name or a domain does not.

    Only where replies would go astray without it, the whole mail needs it.
    """
    wide, narrow = message_job(**{field: "é@example.com"}), message_job(**{field: "É <e@é.example>"})

    assert (composed(wide).uses_smtputf8, composed(wide).needs_smtputf8) == (True, field == "reply_to")
    assert (composed(narrow).uses_smtputf8, composed(narrow).needs_smtputf8) == (False, False)


def test_without_smtputf8_others_see_who_else_got_the_mail() -> None:
    """An address beyond ASCII is the name of an empty group, which no reply goes to (RFC 6857, 3.1.4)."""
    mail = composed(message_job(to=["Änne <änne@bücher.example>", "ann@example.com"], cc=["中文@example.com"]))
    plain = mail.content(eight_bit=False, smtputf8=False)
    read = email.message_from_bytes(plain, policy=email.policy.default)

    assert plain.isascii()
    assert addresses_of(read, "To") == [("", "ann@example.com")]
    assert [group.display_name for group in read["To"].groups] == ["Änne änne@xn--bcher-kva.example", None]
    assert [group.display_name for group in read["Cc"].groups] == ["中文@example.com"]
    assert "änne@xn--bcher-kva.example" in mail.content(eight_bit=False).decode()


def test_a_domain_beyond_ascii_is_a_sender_as_any_other() -> None:
    """Envelope, header and Message-ID have its A-labels, and the texts its letters; the mail needs no SMTPUTF8."""
    mail = composed(templated_job("Registration", email="ann@bücher.example", username="ann", token="t"), BUECHER)
    read = read_back(mail.content(eight_bit=False))

    assert (mail.sender, mail.uses_smtputf8) == ("hi@xn--bcher-kva.example", False)
    assert (read["From"], read["To"]) == ("hi@xn--bcher-kva.example", "ann@xn--bcher-kva.example")
    assert mail.message_id == read["Message-ID"] == f"<{JOB_ID}@xn--bcher-kva.example>"
    assert "bücher.example" in texts_of(read)["plain"]
    assert message_id_of(JOB_ID, MailOptions(sender="hi@bücher.example")) == mail.message_id
    assert message_id_of(JOB_ID, MailOptions(message_id_domain="BÜCHER.example")) == mail.message_id


def test_links_beyond_ascii_leave_the_header_in_ascii() -> None:
    """The header with the link to unsubscribe goes over every relay, and fits its line."""
    url = "https://exämple.org/ü" + "x" * 450
    spec = evolve(CATALOGUE.types["WeeklyRecap"], unsubscribe_path="/" + "a" * 399)
    catalogue = evolve(CATALOGUE, types={**CATALOGUE.types, "WeeklyRecap": spec})
    content = composed(sample_job(spec), opened(MailOptions(frontend_url=url), catalogue)).content(eight_bit=False)

    assert_clean(content, ascii_only=True)
    assert b"List-Unsubscribe: <https://xn--exmple-cua.org/%C3%BCxxx" in content


def test_auto_submitted_can_be_overridden() -> None:
    """A producer that knows that a person pressed "send" may say so; otherwise the mail is automatic."""
    said = read_back(composed(message_job(headers={"auto-submitted": "no"})).content(eight_bit=True))
    unsaid = read_back(composed(message_job()).content(eight_bit=True))

    assert said.get_all("Auto-Submitted") == ["no"]
    assert unsaid.get_all("Auto-Submitted") == ["auto-generated"]


def test_the_header_carries_date_and_message_id() -> None:
    """The Date is the moment of composing in UTC, the Message-ID is made of the job's id."""
    options = MailOptions(sender="ann@example.com", envelope_from="bounces@example.net", message_id_domain="id.example")
    mail = composed(message_job(), opened(options, CATALOGUE))
    read = read_back(mail.content(eight_bit=True))

    assert read["Date"] == "Tue, 14 Nov 2023 22:13:20 +0000"
    assert (read["Message-ID"], mail.message_id) == ("<01JD4Y6T8Q@id.example>", "<01JD4Y6T8Q@id.example>")
    assert (read["From"], mail.sender) == ("ann@example.com", "bounces@example.net")


@pytest.mark.parametrize("job_id", ["", "a b", "a\r\nb", "x" * 57, "é"])
def test_a_job_id_that_is_none_is_a_bug(job_id: str) -> None:
    """The id is ours: a wrong one is no fault of the job."""
    with pytest.raises(ValueError, match="job id"):
        COMPOSER.compose(message_job(), job_id, AT)


@pytest.mark.parametrize(
    ("email_type", "link"),
    [
        ("Registration", "http://localhost:8081/#/verify-email?token=a%2Fb%26c%3D%22%3C"),
        ("EmailChange", "http://localhost:8081/#/verify-email?token=a%2Fb%26c%3D%22%3C"),
        ("ResetPassword", "http://localhost:8081/#/reset-password?token=a%2Fb%26c%3D%22%3C"),
    ],
)
def test_links_carry_the_token_percent_encoded(email_type: str, link: str) -> None:
    """Text and HTML lead to the same link, and a token with odd characters stays one token."""
    job = templated_job(email_type, email="ann@example.com", username="<b>Ann</b>", token='a/b&c="<')
    texts = texts_of(read_back(composed(job).content(eight_bit=True)))

    assert f"\n{link}\n" in texts["plain"]
    assert texts["html"].count(f'href="{link}"') == 2
    assert "Hello <b>Ann</b>," in texts["plain"]
    assert "Hello &lt;b&gt;Ann&lt;/b&gt;," in texts["html"]


@pytest.mark.parametrize("email_type", ["WeeklyRecap", "MonthlyRecap", "YearlyRecap"])
@pytest.mark.parametrize("stats", [None, {}, {"list": [1]}])
def test_a_recap_without_figures_is_kind(email_type: str, stats: object) -> None:
    """No figures, or none that can be shown, gives a text of its own and no empty table."""
    job = templated_job(email_type, email="ann@example.com", username="Ann", stats=stats)
    read = read_back(composed(job).content(eight_bit=True))

    assert read["List-Unsubscribe"] == "<http://localhost:8081/settings/email-preferences>"
    assert all("that is fine" in text for text in texts_of(read).values())


def test_a_recap_shows_its_figures() -> None:
    """Numbers and words are shown in the producer's order; nested objects are flattened, lists left out."""
    stats = {
        "stepsWalked": 12345,
        "average_sleep": 7.25,
        "BMI": 22.0,
        "goal reached": True,
        "mood": " good\n<b> ",
        "sleep": {"deep": 1.5, "phases": [1]},
        "days": [1, 2],
        "none": None,
        "huge": 10**18,
    }
    job = templated_job("WeeklyRecap", email="ann@example.com", username="Ann", stats=stats)
    texts = texts_of(read_back(composed(job).content(eight_bit=True)))

    assert [line.strip() for line in texts["plain"].splitlines() if line.startswith("  ")] == [
        "Steps walked: 12,345",
        "Average sleep: 7.25",
        "BMI: 22",
        "Goal reached: yes",
        "Mood: good <b>",
        "Sleep / Deep: 1.5",
        "Huge: 1e+18",
    ]
    assert "good &lt;b&gt;" in texts["html"]


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | LINE,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(LINE, inner, max_size=5),
    max_leaves=10,
)


@given(
    email_type=st.sampled_from(sorted(CATALOGUE.types)),
    mailbox=MAILBOXES,
    username=LINE,
    token=LINE.filter(bool),
    stats=st.none() | st.dictionaries(LINE, JSON, max_size=5),
    eight_bit=st.booleans(),
)
def test_a_templated_mail_is_clean_whatever_its_fields(
    email_type: str, mailbox: str, username: str, token: str, stats: object, *, eight_bit: bool
) -> None:
    """Any fields that decode make a mail with the headers that were meant, to that recipient, in clean lines."""
    job = templated_job(email_type, email=mailbox, username=username, token=token, stats=stats)
    content = job.content
    assert isinstance(content, Templated)
    mail = composed(job)
    octets = mail.content(eight_bit=eight_bit)
    read = read_back(octets)

    assert_clean(octets, ascii_only=not (eight_bit or mail.uses_smtputf8))
    assert addresses_of(read, "To") == meant([content.recipient])
    more = ["List-Unsubscribe"] if email_type.endswith("Recap") else []
    assert [name for name in read if not name.startswith("Content-")] == OUR_HEADERS + more
    assert f"Hello {username}," in texts_of(read)["plain"]


def catalogue_of(subject: str = "s", text: str = "t", html: str = "<p>", **more: str) -> Catalogue:
    spec = TypeSpec(
        "Own", (FieldSpec("email", "recipient", sample="a@b"), FieldSpec("note", "text", required=False), NUMBER)
    )
    sources = {"Own/subject.j2": subject, "Own/text.j2": text, "Own/html.j2": html}
    return Catalogue({"Own": spec}, {**sources, **more})


NUMBER = FieldSpec("number", "number", sample=1)


@pytest.mark.parametrize(
    ("template", "kind"),
    [
        ("\n{{ 1 / number }}", "ZeroDivisionError"),
        (
            "\n{% macro again() %}{{ again() }}{% endmacro %}{% if not number %}{{ again() }}{% endif %}",
            "RecursionError",
        ),
        ("\n{{ note.upper() if number == 0 }}", "UndefinedError"),
        ("\n{{ [1][5 if number == 0 else 0] + 1 }}", "UndefinedError"),
        (
            "\n{% if not number %}{{ 'x' * (2 ** 62) }}{% endif %}",
            "makes a text or a list of more than 4,000,000 characters",
        ),
        ("\n{% if not number %}{{ 'x' + 1 }}{% endif %}", "TypeError"),
        ("\n{% if not number %}{% include 'gone.j2' %}{% endif %}", "TemplateNotFound"),
    ],
)
def test_a_template_that_fails_on_a_job_is_a_fault_of_the_job(template: str, kind: str) -> None:
    """Whatever a template does wrong ends in the dead letters with its name and line, and without values."""
    composer = opened(MailOptions(), catalogue_of(text=template))
    fields: dict[str, Json] = {"email": "a@b", "number": 0, "note": None}
    refused = composer.compose(Job("Own", Templated(Mailbox("", "a", "b"), fields)), JOB_ID, AT)

    assert isinstance(refused, Malformed)
    assert refused.reason == "template"
    assert [(fault.path, fault.reason) for fault in refused.faults] == [("Own/text.j2:2", f"fails: {kind}")]


def test_a_subject_of_two_lines_is_refused() -> None:
    """A field that smuggles a line end into the subject makes no second header."""
    composer = opened(MailOptions(), catalogue_of(subject="Order {{ note }}"))
    fields: dict[str, Json] = {"email": "a@b", "number": 0, "note": "x\r\nBcc: y@z"}
    refused = composer.compose(Job("Own", Templated(Mailbox("", "a", "b"), fields)), JOB_ID, AT)

    assert isinstance(refused, Malformed)
    assert refused.reason == "bad_header"


@pytest.mark.case("C31")
@pytest.mark.parametrize("mailbox", [Mailbox("", "a\r\nb", "c"), Mailbox("a\r\nBcc: b@c", "a", "c")])
def test_no_mailbox_smuggles_a_line_end(mailbox: Mailbox) -> None:
    """Even a job that was not decoded cannot add a header."""
    refused = COMPOSER.compose(Job("Message", Message("s", (mailbox,), text="t")), JOB_ID, AT)

    assert isinstance(refused, Malformed)
    assert refused.reason == "bad_header"


def test_a_type_without_templates_is_refused() -> None:
    """A job of a type that this composer does not know is refused, not raised."""
    job = evolve(sample_job(CATALOGUE.types["Registration"]), email_type="Gone")
    refused = COMPOSER.compose(job, JOB_ID, AT)

    assert isinstance(refused, Malformed)
    assert refused.reason == "unknown_type"


@pytest.mark.parametrize(
    ("sources", "path", "part"),
    [
        ({"text": "a\n{{ x "}, "Own/text.j2:2", "unexpected end"),
        ({"text": "{{ number|nothing }}"}, "Own/text.j2:1", "No filter named"),
        ({"html": "{{ nmae }}"}, "Own/html.j2:1", "'nmae', which fields.toml does not declare"),
        ({"text": "a\n\n{{ nmae }}\n{{ nmae }}"}, "Own/text.j2:3", "'nmae', which fields.toml does not declare"),
        ({"subject": "Order\nshipped"}, "Own/subject.j2", "is more than one line (with the samples)"),
        ({"subject": "{{ note or 'a\nb' }}"}, "Own/subject.j2", "is more than one line (with the samples)"),
        ({"subject": "\n"}, "Own/subject.j2", "is empty (with the samples)"),
        ({"subject": "{{ note }}"}, "Own/subject.j2", "is empty (with the samples)"),
        ({"html": "{% extends 'gone.j2' %}"}, "Own/html.j2:1", "there is no template gone.j2"),
        ({"text": "{% include '/etc/passwd' %}"}, "Own/text.j2:1", "there is no template /etc/passwd; one is named as"),
        ({"subject": "{{ note.upper() }}"}, "Own/subject.j2:1", "fails on the samples"),
        ({"text": "{% include '_x.j2' %}", "_x.j2": "\n{{ oops }}"}, "_x.j2:2", "'oops' is undefined"),
        ({"_x.j2": "{% if %}"}, "_x.j2:1", "Expected an expression"),
        ({"html": "{% extends '_x.j2' %}", "_x.j2": "{% if %}"}, "_x.j2:1", "Expected an expression"),
    ],
)
def test_templates_are_proven_at_start(sources: dict[str, str], path: str, part: str) -> None:
    """Syntax, names that no field declares, and failures on the samples are faults of the configuration."""
    faults = open_composer(MailOptions(), catalogue_of(**sources))

    assert isinstance(faults, ComposerFaults)
    assert [fault.path for fault in faults.faults] == [path]
    assert part in faults.faults[0].reason


def test_a_subject_that_ends_with_a_line_feed_is_one_line() -> None:
    """As every editor writes it; also where a tag stands on a line of its own."""
    assert isinstance(
        open_composer(MailOptions(), catalogue_of(subject="\n{% if number %}\nOrder\n{% endif %}\n")), Composer
    )


def test_a_faulty_subject_is_told_beside_a_faulty_text_of_another_type() -> None:
    """All faults at once."""
    own = catalogue_of(subject="a\nb")
    other = {f"Other/{part}.j2": text for part, text in {"subject": "s", "text": "{{ nmae }}"}.items()}
    both = Catalogue({**own.types, "Other": evolve(own.types["Own"], email_type="Other")}, {**own.sources, **other})
    faults = open_composer(MailOptions(), both)

    assert isinstance(faults, ComposerFaults)
    assert {fault.path for fault in faults.faults} == {"Own/subject.j2", "Other/text.j2:1"}


def test_templates_share_frames_and_set_names() -> None:
    """A template may extend another, set names, define macros and import them."""
    catalogue = catalogue_of(
        text="{% extends '_x.j2' %}{% set mine = number + 1 %}{% block b %}{{ mine }}{% endblock %}",
        html="{% import '_m.j2' as m %}{% from '_m.j2' import twice as also %}{{ m.twice(note) }}{{ also('<') }}",
        **{"_x.j2": "<{% block b %}{% endblock %}>", "_m.j2": "{% macro twice(x) %}{{ x }}{{ x }}{% endmacro %}"},
    )
    composer = opened(MailOptions(), catalogue)
    job = Job("Own", Templated(Mailbox("", "a", "b"), {"email": "a@b", "number": 1, "note": None}))

    assert texts_of(read_back(composed(job, composer).content(eight_bit=True)))["plain"] == "<2>\n"


@pytest.mark.parametrize(
    ("options", "path"),
    [
        (MailOptions(sender="nobody"), "mail.from"),
        (MailOptions(envelope_from="a@b, c@d"), "mail.envelope_from"),
        (MailOptions(message_id_domain="a b"), "mail.message_id_domain"),
        (MailOptions(message_id_domain="☃.example"), "mail.message_id_domain"),
        (MailOptions(frontend_url="localhost"), "mail.frontend_url"),
        (MailOptions(frontend_url='http://a"b'), "mail.frontend_url"),
    ],
)
def test_options_that_no_mail_can_carry_are_faults(options: MailOptions, path: str) -> None:
    """Each wrong option is named by its key."""
    faults = open_composer(options, CATALOGUE)

    assert isinstance(faults, ComposerFaults)
    assert [fault.path for fault in faults.faults] == [path]


def test_links_live_as_long_as_the_mails_say() -> None:
    """The ages after which a mail is dead are those that its text promises."""
    ages = {name: options.max_age_seconds for name, options in MailOptions().types.items()}

    assert {name: age for name, age in ages.items() if age is not None} == {
        "Registration": 7200.0,
        "ResetPassword": 3600.0,
        "EmailChange": 7200.0,
    }


@given(st.lists(st.sampled_from(["x", "é", " ", "\t", "\r\n", "\x0b", "=", ".", "x" * 998]), max_size=30).map("".join))
def test_bodies_are_encoded_as_little_as_possible(text: str) -> None:
    """7bit and 8bit bodies go as they are; what no line can carry goes as quoted-printable."""
    octets = canonical(text).replace("\n", "\r\n").encode()
    encoded = encode_body(octets, eight_bit=True)
    plain = max(map(len, octets.split(b"\r\n"))) <= 998 and b"\x0b" not in octets

    assert encoded.encoding == ("quoted-printable" if not plain else "7bit" if octets.isascii() else "8bit")


def test_a_boundary_never_occurs_inside() -> None:
    """A text that contains the boundary gets another one."""
    part = text_entity("plain", b"--=_job\r\n--=_job1\r\n", eight_bit=True)

    assert b'boundary="=_job2"' in multipart_entity("mixed", "job", [part]).head


@given(LINE.filter(bool))
def test_encoded_words_are_read_back(text: str) -> None:
    """Encoded-words give back the text, wherever it was cut."""
    words = " ".join(encoded_words(text))

    assert str(email.header.make_header(email.header.decode_header(words))) == text


@given(LINE.filter(bool))
def test_encoded_words_fit_their_lines(text: str) -> None:
    """No encoded-word has more than 75 characters, no line that holds one more than 76 (RFC 2047)."""
    header = unstructured_header("X-Name", "é" + text)

    assert all(len(word) <= 75 for word in encoded_words(text))
    assert all(len(line) <= 76 for line in header.split("\r\n"))


@given(st.lists(st.sampled_from(["Ann", "Änne Öztürk", "Cee, Ann", "n" * 200]), min_size=1, max_size=20))
def test_recipients_fold_between_mailboxes(names: list[str]) -> None:
    """A header of many mailboxes has no line over 78 characters."""
    header = address_header("To", [Mailbox(name, "ann", "example.com") for name in names])

    assert all(len(line) <= 78 for line in header.split("\r\n"))


@given(st.text(st.sampled_from("ab  "), min_size=1, max_size=300).map(lambda text: text.strip(" ")))
def test_a_header_folds_only_before_spaces_and_keeps_them(text: str) -> None:
    """Removing the line ends of a folded header gives the header."""
    header = unstructured_header("X-Name", text)

    assert header.replace("\r\n", "") == f"X-Name: {text}"
    assert all(line.strip() for line in header.removesuffix("\r\n").split("\r\n"))


def test_the_reasons_are_a_closed_list() -> None:
    """The words by which dead letters group are known beforehand."""
    assert get_args(Reason) == (
        "not_utf8",
        "not_json",
        "not_a_job",
        "unknown_type",
        "bad_field",
        "over_budget",
        "template",
        "bad_header",
    )


def header_lines(name: str, text: str) -> list[str]:
    """Return the lines of one header of a message, as they are in the mail."""
    content = composed(message_job(headers={name: text})).content(eight_bit=False).decode("ascii")
    start = content.index(f"\r\n{name}:") + 2
    lines = content[start:].split("\r\n")
    return [lines[0], *itertools.takewhile(lambda line: line.startswith(" "), lines[1:])]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("List-Unsubscribe", f"<https://example.com/?a=?utf-8?q?x?=&b={'x' * 900}>, <mailto:a@example.com>"),
        ("References", " ".join(f"<{letter * 900}@example.com>" for letter in "abc")),
        ("In-Reply-To", "<=?utf-8?b?eA==?=@example.com>"),
        ("X-SMTPAPI", '{"unique_args": {"id": "=?x?q?y?="}}'),
        ("X-Link", "https://example.com/?a=?b"),
        ("Comments", "note: " * 300 + "end"),
        ("X-Path", "a: " + "b" * 850 + ": c: " + "d" * 850 + ":"),
    ],
)
def test_an_id_and_a_url_are_never_encoded(name: str, text: str) -> None:
    """A program that reads the header finds it as it was written, in lines that every relay takes."""
    lines = header_lines(name, text)

    assert "".join(lines) == f"{name}: {text}"
    assert max(map(len, lines)) <= 998


def test_a_header_of_addresses_keeps_them() -> None:
    """Names beyond ASCII are encoded, addresses are not: a reader finds the same mailboxes."""
    lines = header_lines("Disposition-Notification-To", 'Änne Müller <a@example.com>, "Ö, Ann" <c@example.com>')
    # The library reads addresses of the headers that it knows.
    as_to = "\r\n".join(lines).replace("Disposition-Notification-To", "To")
    read = email.message_from_string(as_to, policy=email.policy.default)

    assert addresses_of(read, "To") == [("Änne Müller", "a@example.com"), ("Ö, Ann", "c@example.com")]
    assert max(map(len, lines)) <= 78


@given(st.text(st.characters(exclude_categories=["C", "Zl", "Zp"]), min_size=1, max_size=300), st.integers(1, 62))
def test_no_line_with_an_encoded_word_is_too_long(text: str, size: int) -> None:
    """At most 76 characters (RFC 2047, 2), however long the name of the header is."""
    header = unstructured_header(f"X-{'N' * size}", f"é{text}")

    assert all(len(line) <= 76 for line in header.split("\r\n") if "=?" in line)
    assert str(email.header.make_header(email.header.decode_header(header.partition(":")[2].strip()))) == f"é{text}"


@pytest.mark.parametrize("text", ["=?x?q? " * 50_000, "=?" * 200_000])
def test_encoded_words_are_looked_for_in_one_pass(text: str) -> None:
    """In a third of a megabyte: a search that went to the end from each =? would not end."""
    assert unstructured_header("X-Name", text).startswith("X-Name:")
