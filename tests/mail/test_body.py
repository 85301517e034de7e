"""The bodies of mails: what is inserted at once must be, octet for octet, what the general way writes."""

from __future__ import annotations

from functools import cache

import pytest
from attrs import evolve
from hypothesis import example, given
from hypothesis import strategies as st

from trio_worker.jobs.address import has_control_character
from trio_worker.jobs.email_type import Catalogue, FieldSpec, TypeSpec
from trio_worker.jobs.fault import Fault
from trio_worker.mail.body import Insertion, Texts
from trio_worker.mail.template import Rendered, Templates, compile_templates

JOB_ID = "01JD4Y6T8Q"
SPEC = TypeSpec(
    "Own",
    (
        FieldSpec("email", "recipient", sample="a@example.com"),
        FieldSpec("word", "line", sample="w"),
        FieldSpec("token", "token", sample="t"),
    ),
)
TEXT, LINK = "100 % {{ word }}!\n", '<a href="http://x/?{{ token|percent }}">{{ word }} {{ token }}</a>'
SOURCES = {
    "two parts": {"text.j2": TEXT, "html.j2": LINK},
    "a text alone": {"text.j2": TEXT + "{{ token }}{{ word }}."},
    "no value": {"text.j2": "Hello\n", "html.j2": "<p>Hello</p>"},
    "a text beyond ASCII": {"text.j2": "Grüße, " + TEXT, "html.j2": LINK},
    "nothing within ASCII": {"text.j2": "Grüße, " + TEXT, "html.j2": "<b>Grüße</b>" + LINK},
    "a line that is nearly full": {"text.j2": "x" * 950 + "{{ word }}", "html.j2": LINK},
    "a line that is too long": {"text.j2": TEXT, "html.j2": "x" * 999 + LINK},
    "a control character": {"text.j2": "\0word as it is\0" + TEXT, "html.j2": LINK},
    "one value in one part": {"text.j2": "Hello\n", "html.j2": "<p>{{ word }}</p>"},
    "values that touch": {"text.j2": "=_{{ word }}{{ token }}.a\n", "html.j2": "={{ word }}"},
    "a boundary": {"text.j2": f"--=_{JOB_ID}.a\n" + TEXT, "html.j2": LINK},
    "what looks like a mark": {"text.j2": "%(word as it is)b %b {0} " + TEXT, "html.j2": LINK},
}
# The pieces of difficult values: parts of a boundary, what is escaped, long words, controls, half a surrogate pair.
PIECES = ["a", " ", "=", "_", JOB_ID, ".a", f"=_{JOB_ID}.a", "--", "<&>\"'", "%s", "é", "€😀", "\x0b", "\0", "\ud800"]
VALUE = st.one_of(
    st.lists(st.sampled_from([*PIECES, "x" * 40, "x" * 430, "x" * 998]), max_size=6).map("".join),
    st.text(st.characters(exclude_characters="\r\n"), max_size=9),
)


@cache
def templates_of(name: str) -> Templates:
    sources = {f"Own/{part}": source for part, source in {"subject.j2": "s", **SOURCES[name]}.items()}
    compiled, faults = compile_templates(
        Catalogue({"Own": SPEC}, sources), {"product": "P", "frontend_url": "http://x"}
    )
    assert not faults
    return compiled["Own"]


def without_skeletons(templates: Templates) -> Templates:
    html = None if templates.html is None else evolve(templates.html, skeleton=None)
    return evolve(templates, text=evolve(templates.text, skeleton=None), html=html)


@pytest.mark.parametrize("name", SOURCES)
@given(word=VALUE, token=VALUE, job_id=st.sampled_from([JOB_ID, "a", "_", "x" * 56]))
@example(word="Ann Cee", token="2f1c9a7e54b8", job_id=JOB_ID)
@example(word=JOB_ID, token="x", job_id=JOB_ID)
@example(word=f"=_{JOB_ID}.a", token="x", job_id=JOB_ID)
@example(word="\x0b", token="x" * 998, job_id=JOB_ID)
def test_an_inserted_body_is_what_is_written_part_by_part(name: str, word: str, token: str, job_id: str) -> None:
    """For any values in any templates, before a relay that takes 8bit and before one that does not."""
    templates = templates_of(name)
    fields = {"email": "a@example.com", "word": word, "token": token}
    inserted, rendered = templates.render(fields), without_skeletons(templates).render(fields)

    if isinstance(rendered, Fault):
        assert isinstance(inserted, Fault)
        return
    assert isinstance(inserted, Rendered)
    assert isinstance(inserted.body, Insertion)
    assert isinstance(rendered.body, Texts)
    for eight_bit in (True, False):
        octets = inserted.body.octets(b"Subject: s\r\n", job_id, eight_bit=eight_bit)
        assert octets == inserted.body.texts().octets(b"Subject: s\r\n", job_id, eight_bit=eight_bit)
        if not has_control_character(word + token):  # no line has one, so that a skeleton does not look for any
            assert octets == rendered.body.octets(b"Subject: s\r\n", job_id, eight_bit=eight_bit)


@pytest.mark.parametrize(
    ("name", "word", "flavours"),
    [
        ("two parts", "Ann", [True, False]),
        ("a text alone", "Ann", [True, False]),
        ("two parts", "Änne", [True]),
        ("a text alone", "中", [True]),
        ("a text beyond ASCII", "Ann", [True]),
        ("a text beyond ASCII", "Änne", [True]),
        ("nothing within ASCII", "Ann", [True]),
        ("nothing within ASCII", "Änne", [True]),
    ],
)
def test_a_usual_body_is_inserted_at_once(
    name: str, word: str, flavours: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no value needs an encoding, nothing is written part by part."""
    rendered = templates_of(name).render({"email": "a@example.com", "word": word, "token": "t"})
    assert isinstance(rendered, Rendered)
    monkeypatch.delattr(Insertion, "texts")

    for eight_bit in flavours:
        assert rendered.body.octets(b"", JOB_ID, eight_bit=eight_bit)


@pytest.mark.parametrize("name", ["a control character", "a line that is too long"])
def test_a_body_that_always_needs_an_encoding_is_never_inserted(name: str) -> None:
    """The constant octets themselves are not plain, and a control character could be taken for a mark."""
    rendered = templates_of(name).render({"email": "a@example.com", "word": "w", "token": "t"})

    assert isinstance(rendered, Rendered)
    assert isinstance(rendered.body, Insertion)
    assert not rendered.body.skeleton.bodies_by_encoding
