"""Templates run nothing: no way to Python's objects, and no sample that hangs who tests it."""

from __future__ import annotations

import time

import pytest

from tests.mail.test_composer import catalogue_of
from trio_worker.jobs.email_type import Catalogue, FieldSpec, TypeSpec
from trio_worker.mail import template
from trio_worker.mail.composer import Composer, ComposerFaults, open_composer
from trio_worker.mail.options import MailOptions


def own(text: str) -> Catalogue:
    """A type with a field of each kind, whose text this is."""
    fields = (
        FieldSpec("email", "recipient", sample="a@b"),
        FieldSpec("word", "line", sample="ann"),
        FieldSpec("stats", "object", sample={"items_sold": 3, "days": [{"name": "Monday", "n": 1}]}),
    )
    return Catalogue({"Own": TypeSpec("Own", fields)}, {"Own/subject.j2": "s", "Own/text.j2": text})


def faults_of(text: str) -> str:
    opened = open_composer(MailOptions(), own(text))
    assert isinstance(opened, ComposerFaults)
    return "; ".join(map(str, opened.faults))


@pytest.mark.parametrize(
    "text",
    [
        "{{ word.__class__ }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ stats.__init__.__globals__ }}",
        "{{ '{0.__class__}'.format(word) }}",
        "{{ self.__init__.__globals__ }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ word|attr('__class__') }}",
        "{{ [word]|map(attribute='__class__')|first }}",
        "{{ stats.pop('days') }}",
        "{{ stats.update(a=1) }}",
        "{{ stats.days.append(1) }}",
        "{{ (1).bit_length() }}",
        "{{ (1).numerator }}",
        "{{ 'x' * 10 ** 9 }}",
        "{{ 9 ** 9 ** 9 }}",
        "{{ word|center(2000000000) }}",
        "{{ word|indent(width=2000000000) }}",
        "{{ [1]|batch(2000000000, 0)|list }}",
        "{{ word.ljust(2000000000) }}",
        "{{ '%999999999d'|format(1) }}",
        "{{ '%999999999d' % 1 }}",
        "{{ '%*d' % (999999999, 1) }}",
        "{{ '{:999999999}'.format(1) }}",
        "{{ '{:{}}'.format(1, 999999999) }}",
        "{{ [word] * 2000000 }}",
        "{{ range(10000000)|list }}",
    ],
)
def test_a_template_has_no_way_out(text: str) -> None:
    """What is no member of a value is refused with its place, as are operations that would take all memory."""
    assert "Own/text.j2:1: fails on the samples" in faults_of(text) or "Own/text.j2:1" in faults_of(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{{ stats.items_sold }} {{ stats.days[0].name }}", "3 Monday"),
        ("{% for k, v in stats.items() %}{{ k }},{% endfor %}", "items_sold,days,"),
        ("{{ stats.get('none', '-') }} {{ stats.keys()|list|length }}", "- 2"),
        ("{{ word.upper() }} {{ word.replace('n', 'm') }} {{ '%s!' % word }}", "ANN amm ann!"),
        ("{{ '%d' % 12345678 }} {{ '%s'|format(12345678) }} {{ '{}'.format(12345678) }}", "12345678 12345678 12345678"),
        ("{{ '100% of 1234567'.upper() }} {{ word|center(5) }}{{ '7'.zfill(3) }}", "100% OF 1234567  ann 007"),
        ("{% for day in stats.days %}{{ loop.index }}{{ loop.last }}{% endfor %}", "1True"),
        (
            "{% set n = namespace(sum=0) %}{% for i in range(3) %}{% set n.sum = n.sum + i %}{% endfor %}{{ n.sum }}",
            "3",
        ),
        (
            "{% macro m(x) %}<{{ x }}>{% endmacro %}{{ m(word) }} {{ 2 * 3 }} {{ '-' * 3 }} {{ 2 ** 8 }}",
            "<ann> 6 --- 256",
        ),
        ("{% block a %}{{ word }}{% endblock %}{{ self.a() }}", "annann"),
    ],
)
def test_what_templates_use_still_works(text: str, said: str) -> None:
    """Members, the usual methods of objects and texts, loops, macros, blocks and arithmetic."""
    composer = open_composer(MailOptions(), own(text))
    assert isinstance(composer, Composer), str(composer)

    rendered = composer.templates["Own"].render(
        {"email": "a@b", "word": "ann", "stats": own("").types["Own"].fields[2].sample}
    )
    assert isinstance(rendered, template.Rendered)
    assert rendered.body.texts().parts[0][1].octets.decode() == f"{said}\r\n"


@pytest.mark.parametrize(
    "text",
    [
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{% for i in range(99999) %}{% for j in range(99999) %}x{% endfor %}{% endfor %}",
        "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}",
    ],
)
def test_a_loop_without_end_is_a_fault_with_its_place(text: str) -> None:
    """Who checks the templates is not hung by them."""
    began = time.perf_counter()
    told = faults_of(text)

    assert "Own/text.j2:1: fails on the samples: does more than 200,000 steps" in told
    assert time.perf_counter() - began < 60


def test_the_shipped_types_are_in_the_sandbox_too() -> None:
    """And pass."""
    faults = open_composer(MailOptions(), catalogue_of(text="{{ email.__class__ }}"))

    assert isinstance(faults, ComposerFaults)
