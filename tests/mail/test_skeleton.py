"""Skeletons: what is filled in must be what Jinja would have rendered, for any value."""

from __future__ import annotations

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from trio_worker.jobs.catalogue import read_catalogue
from trio_worker.jobs.email_type import Catalogue, FieldKind, FieldSpec, TypeSpec
from trio_worker.jobs.strict_json import Json
from trio_worker.mail.composer import Composer, open_composer
from trio_worker.mail.mime import canonical, encode_body
from trio_worker.mail.options import MailOptions
from trio_worker.mail.skeleton import Skeleton
from trio_worker.mail.template import Part, Rendered, Templates, compile_templates

LINES = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=40)
TYPES = ("Registration", "ResetPassword", "EmailChange")


def composer() -> Composer:
    catalogue = read_catalogue([])
    assert isinstance(catalogue, Catalogue)
    opened = open_composer(MailOptions(), catalogue)
    assert isinstance(opened, Composer)
    return opened


COMPOSER = composer()


def rendered_by_jinja(templates: Templates) -> Templates:
    """The same templates without their skeletons."""
    html = None if templates.html is None else evolve(templates.html, skeleton=None)
    return evolve(
        templates,
        subject=evolve(templates.subject, skeleton=None),
        text=evolve(templates.text, skeleton=None),
        html=html,
    )


def octets_of(rendered: Rendered) -> dict[str, bytes]:
    return {subtype: text.octets for subtype, text in rendered.body.texts().parts}


def part(source: str, *, name: str = "text.j2", kind: FieldKind = "line", more: dict[str, str] | None = None) -> Part:
    """The part that a template of one's own becomes; it has the fields email and word."""
    fields = (FieldSpec("email", "recipient", sample="a@example.com"), FieldSpec("word", kind, sample="w"))
    sources = {"T/subject.j2": "s", "T/text.j2": "t", f"T/{name}": source, **(more or {})}
    catalogue = Catalogue({"T": TypeSpec("T", fields)}, sources)
    compiled, faults = compile_templates(catalogue, {"product": "P", "frontend_url": "http://x"})
    assert not faults
    found = {"subject.j2": compiled["T"].subject, "text.j2": compiled["T"].text, "html.j2": compiled["T"].html}[name]
    assert found is not None
    return found


@pytest.mark.parametrize("email_type", TYPES)
def test_the_types_with_links_have_skeletons(email_type: str) -> None:
    """Nothing of these mails is rendered one by one."""
    templates = COMPOSER.templates[email_type]

    assert all(each is not None and each.skeleton for each in (templates.subject, templates.text, templates.html))


@pytest.mark.parametrize("email_type", TYPES)
@given(username=LINES, token=LINES)
def test_what_is_filled_in_is_what_jinja_renders(email_type: str, username: str, token: str) -> None:
    """For any line of text in the name and in the token."""
    templates = COMPOSER.templates[email_type]
    fields = {"email": "a@example.com", "username": username, "token": token}
    filled, rendered = templates.render(fields), rendered_by_jinja(templates).render(fields)

    assert isinstance(filled, Rendered)
    assert isinstance(rendered, Rendered)
    assert filled.subject == rendered.subject
    assert octets_of(filled) == octets_of(rendered)


@given(word=st.one_of(LINES, st.integers(900, 1100).map("x".__mul__)))
def test_what_is_called_plain_needs_no_encoding(word: str) -> None:
    """Octets that are called plain are found so by a full check."""
    filled = part("{{ word }} and {{ word }}:\n{{ word }}").fill({"email": "", "word": word})

    assert not filled.is_plain or encode_body(filled.octets, eight_bit=True).encoding != "quoted-printable"


def test_a_line_that_is_too_long_is_not_plain() -> None:
    """A constant line over RFC 5322's 998 octets needs an encoding in each mail, a control character too."""
    assert not part("x" * 999).fill({"email": "", "word": "w"}).is_plain
    assert not part("a\x01").fill({"email": "", "word": "w"}).is_plain
    assert part("x" * 998).fill({"email": "", "word": "w"}).is_plain


@pytest.mark.parametrize(
    "source",
    [
        "{% if word %}yes{% endif %}",
        "{% if word == 'a' %}yes{% endif %}",
        "{% for letter in word %}{{ letter }}-{% endfor %}",
        "{{ word|upper }}",
        "{{ word|length }}",
        "{{ word[0:1] }}",
        "{{ word.title() }}",
        "{{ word ~ word|upper }}",
        "{% set long = word|length > 3 %}{{ long }}",
        "{% macro hello(name) %}{{ name }}{% endmacro %}{{ hello(word) }}",
        "{{ word|e|percent }}",
        "{{ 'w' in word }}",
        "{% filter upper %}{{ word }}{% endfilter %}",
        "{{ word|default('x', true) }}",
    ],
)
@pytest.mark.parametrize("word", ["a", "word", "<x y>"])
def test_a_template_that_decides_by_a_value_is_rendered_for_each_mail(source: str, word: str) -> None:
    """It has no skeleton, and says what Jinja says."""
    found = part(source)
    rendered = canonical(found.template.render(email="e", word=word, product="P", frontend_url="http://x"))

    assert found.skeleton is None
    assert found.fill({"email": "e", "word": word}).octets == rendered


def test_a_template_that_chooses_its_parent_is_rendered_for_each_mail() -> None:
    """What only one of the parents decides by a value must not be overlooked."""
    choosing = "{% if product is undefined %}{% extends '_a.j2' %}{% else %}{% extends '_b.j2' %}{% endif %}"
    parents = {"_a.j2": "{{ word }}", "_b.j2": "{% if word == 'rare' %}no{% else %}{{ word }}{% endif %}"}
    found = part(choosing, more=parents)

    assert found.skeleton is None
    assert found.fill({"email": "e", "word": "rare"}).octets == b"no\r\n"


@pytest.mark.parametrize(("kind", "sample"), [("text", "t"), ("number", 1), ("object", {})])
def test_a_field_that_is_no_line_makes_no_hole(kind: FieldKind, sample: Json) -> None:
    """A value of several lines could end where a line of the template does."""
    fields = (FieldSpec("email", "recipient", sample="a@example.com"), FieldSpec("word", kind, sample=sample))
    catalogue = Catalogue({"T": TypeSpec("T", fields)}, {"T/subject.j2": "s", "T/text.j2": "{{ word }}"})
    compiled, faults = compile_templates(catalogue, {"product": "P", "frontend_url": "http://x"})

    assert not faults
    assert compiled["T"].text.skeleton is None


def test_a_text_whose_last_line_may_be_empty_is_rendered_for_each_mail() -> None:
    """Without values it ends where the line before does; a skeleton would add an empty line."""
    found = part("Hello\n{{ email }}{{ word }}")

    assert found.skeleton is None
    assert found.fill({"email": "", "word": ""}).octets == b"Hello\r\n"


def test_what_is_inserted_may_be_named_inherited_and_joined_first() -> None:
    """Variables of the template, blocks of a parent and conditions that no value decides are constant."""
    parent = "{% if link is defined %}<{{ link }}|{{ word }}>{% endif %}{% block body %}{% endblock %}"
    child = (
        "{% extends '_p.html.j2' %}{% set link = 'http://x/' ~ word|percent %}"
        "{% block body %}100 % {{ word }}{% endblock %}"
    )
    found = part(child, name="html.j2", more={"_p.html.j2": parent})

    assert isinstance(found.skeleton, Skeleton)
    assert (
        found.fill({"email": "e", "word": "<& ü"}).octets
        == "<http://x/%3C%26%20%C3%BC|&lt;&amp; ü>100 % &lt;&amp; ü\r\n".encode()
    )
