"""Masking: no address leaves in clear, and different people still look different."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trio_worker.privacy import mask_address, mask_text

local = st.text(
    st.characters(codec="ascii", categories=["Ll", "Nd"], include_characters=".+-_"), min_size=2, max_size=20
)
words = st.text(st.characters(codec="ascii", exclude_characters="@"), max_size=20)


@given(local, st.sampled_from(["<{}>", " {} ", '"{}"', "({})", "to={}, ", "[{}]"]), words, words)
def test_an_address_in_a_text_is_masked_wherever_it_stands(name: str, around: str, before: str, after: str) -> None:
    """In brackets, quotes or bare: its local part is not readable."""
    masked = mask_text(f"{before} {around.format(f'{name}@example.org')} {after}")

    assert f"{name}@example.org" not in masked
    assert "@example.org" in masked


@given(st.text())
def test_masking_never_raises_and_never_invents_an_address(text: str) -> None:
    """A text without @ stays as it is."""
    masked = mask_text(text)
    assert masked.count("@") <= text.count("@")
    if "@" not in text:
        assert masked == text


def test_people_can_be_told_apart_and_domains_read() -> None:
    """First character, and the last of a longer name."""
    assert mask_address("ann@example.org") == "a…@example.org"
    assert mask_address("annabel@example.org") == "a…l@example.org"
    assert mask_address("no address") == "…"


def test_a_quoted_local_part_and_a_link_are_masked_too() -> None:
    """The first may hold commas and spaces, the second carries a token."""
    masked = mask_text('550 <"john, smith"@example.org>: blocked URL http://app.example/#/verify?token=SECRET now')
    assert "smith" not in masked
    assert "SECRET" not in masked
    assert "@example.org" in masked
    assert "http://app.example/… now" in masked
