"""The headers of a message: what each may hold."""

from __future__ import annotations

import pytest

from trio_worker.jobs.header import HeaderKind, fault_of_header, kind_of_header, mailboxes_of


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("X-Campaign", HeaderKind.FREE_TEXT),
        ("Comments", HeaderKind.FREE_TEXT),
        ("References", HeaderKind.STRUCTURED),
        ("list-unsubscribe-POST", HeaderKind.STRUCTURED),
        ("X-SMTPAPI", HeaderKind.STRUCTURED),
        ("Errors-To", HeaderKind.ADDRESSES),
        ("disposition-notification-to", HeaderKind.ADDRESSES),
    ],
)
def test_a_header_has_a_kind(name: str, kind: HeaderKind) -> None:
    """By its name, in any case; what nobody knows is free text."""
    assert kind_of_header(name) is kind


@pytest.mark.parametrize(
    ("name", "value", "part"),
    [
        ("a b", "x", "not a name"),
        ("From", "a@b", "cannot set"),
        ("X-A", 7, "must be a string"),
        ("X-A", "a\r\nX-B: b", "control character"),
        ("X-A", "x" * 8193, "longer than 8192"),
        ("References", f"<{'x' * 1000}@b>", "cannot be folded"),
        ("References", "<a@b>" + " " * 900 + f"<{'x' * 100}@b>", "cannot be folded"),
        ("Errors-To", f"{'x' * 998}@b", "cannot be folded"),
        ("List-Unsubscribe", "<https://example.com/é>", "must be ASCII"),
        ("Errors-To", "Änne", "has no @"),
        ("Errors-To", "Änne <a@b> Ann", "not one mailbox"),
        ("Errors-To", "Ann <änne@example.com>", "not ASCII"),
        ("Errors-To", 'Änne "Ann <a@b>', "commas between them"),
        ("Errors-To", "Änne <a@b>,", "commas between them"),
        ("Errors-To", "Änne <a@b>,, c@d", "commas between them"),
    ],
)
def test_what_cannot_be_a_header_is_a_fault(name: str, value: object, part: str) -> None:
    """Nothing is lost or guessed: what can neither be written nor encoded is told to the producer."""
    assert part in (fault_of_header(name, value) or "")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-A", "é" * 2000),
        ("X-A", "x" * 8192),
        ("References", f"<{'x' * 990}@b>"),
        ("List-Unsubscribe", "<https://example.com/?a=?b>, <mailto:a@b>"),
        ("Errors-To", 'Änne <a@b>, "Ö, Ann" <c@d>'),
        ("Errors-To", r'"Änne \"the, boss\"" <a@b>, c@d'),
        ("Errors-To", r'"Änne \" Ann" <a@b>'),
        ("Errors-To", "<>"),
    ],
)
def test_what_can_be_a_header_is_none(name: str, value: str) -> None:
    """Free text is encoded at any length; ids and URLs go as they are."""
    assert fault_of_header(name, value) is None


@pytest.mark.parametrize("text", ["é" + ',"' * 200_000, "é" + ',"" ' * 200_000, 'é"' + "\\" * 400_000, "a@b," * 50_000])
def test_mailboxes_are_split_in_one_pass(text: str) -> None:
    """For half a megabyte: a search that began anew at each comma would not end."""
    assert mailboxes_of(text)
