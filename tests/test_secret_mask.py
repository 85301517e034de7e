"""Our own secrets are masked in what a peer says, in every form in which it may repeat them."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_worker.secret_mask import NO_SECRETS, LoginMask, mask_of

PASSWORD = "pa5s w0rd+/ß"
OCTETS = PASSWORD.encode()
PLAIN = base64.b64encode(b"\0mailer\0" + OCTETS).decode()
# As OAuth and some proxies wrap it: the password stands anywhere inside of the base64.
WRAPPED = [base64.b64encode(b"x" * before + OCTETS + b"tail").decode() for before in range(3)]
FORMS: list[str] = [
    PASSWORD,
    PASSWORD.upper(),
    PLAIN,
    PLAIN[:20] + " \n" + PLAIN[20:],
    base64.b64encode(OCTETS).decode(),
    base64.urlsafe_b64encode(OCTETS).decode().rstrip("="),
    OCTETS.hex(),
    quote(PASSWORD, safe=""),
    *WRAPPED,
]


@pytest.mark.parametrize("form", FORMS)
def test_each_form_of_a_password_is_masked(form: str) -> None:
    """In clear, in upper case as an EHLO keyword, folded, in hex, percent-encoded, and anywhere in base64."""
    seen = mask_of(PASSWORD).masked(f"535 5.7.8 no {form} here")

    assert seen == "535 5.7.8 no … here"


@pytest.mark.parametrize("form", [PLAIN, *WRAPPED, base64.b64encode(OCTETS).decode(), OCTETS.hex()])
def test_an_encoded_password_that_was_cut_is_masked(form: str) -> None:
    """A relay may repeat only the beginning of what it got; from six octets of the password on, nothing is left."""
    for cut in range(1, 6):
        assert mask_of(PASSWORD).masked(f"535 5.7.8 {form[:-cut]} here") == "535 5.7.8 … here"


def test_the_beginning_of_a_password_in_clear_is_not_masked() -> None:
    """The mask of a common word would tell how the password begins."""
    assert mask_of("Password-2024").masked("535 Password expired") == "535 Password expired"


ENCODINGS: list[Callable[[bytes], str]] = [
    lambda octets: octets.decode(),
    lambda octets: octets.hex(),
    lambda octets: base64.b64encode(octets).decode(),
    lambda octets: base64.urlsafe_b64encode(octets).decode(),
    lambda octets: quote(octets, safe=""),
]


@given(
    st.text(st.characters(codec="utf-8", exclude_categories=["Z", "C"]), min_size=4, max_size=40),
    st.sampled_from(ENCODINGS),
    st.sampled_from([" ", "<", '"', "'", "(", "\n"]),
)
def test_no_password_survives(password: str, encode: Callable[[bytes], str], around: str) -> None:
    """Whatever the password is made of, none of its encodings is left in a text."""
    said = encode(password.encode())

    assert said not in mask_of(password).masked(f"no{around}{said}{around}.")


@given(st.text(), st.text(min_size=1))
def test_masking_is_done_once(text: str, secret: str) -> None:
    """A masked text has no form of the secret left, unless the mark itself completes one."""
    mask = mask_of(secret)
    once = mask.masked(text)

    assert "…" in secret or mask.masked(once) == once


def test_a_short_password_is_masked_as_a_word() -> None:
    """A password of one letter would else leave nothing of a text."""
    assert mask_of("a").masked("a bad day: a, YQ== and (a)") == "… bad day: …, … and (…)"


def test_without_a_secret_nothing_is_masked() -> None:
    """No login, no cost."""
    assert mask_of("", "") is NO_SECRETS
    assert NO_SECRETS.masked("as it is") == "as it is"


def test_what_a_login_sent_is_masked() -> None:
    """The name that LOGIN sends in base64, and the proof of CRAM-MD5, in base64 and in hex."""
    login = LoginMask((PASSWORD,))
    digest = binascii.hexlify(b"sixteen octets!!").decode()
    response = base64.b64encode(f"mailer {digest}".encode())
    for sent in (base64.b64encode(b"mailer"), response):
        login.note_sent(sent)

    assert login.mask.masked(f"bWFpbGVy {digest} {response.decode()} mailer") == "… … … mailer"


def test_a_mask_does_not_show_what_it_masks() -> None:
    """Its text in a traceback or a shell has no secret."""
    for mask in (mask_of(PASSWORD), LoginMask((PASSWORD,))):
        assert "pa5s" not in repr(mask)
