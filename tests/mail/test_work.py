"""What a template may do for one mail is counted: a producer's values make no mail that holds the others up."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_worker.jobs.address import Mailbox
from trio_worker.jobs.email_type import Catalogue, FieldSpec, TypeSpec
from trio_worker.jobs.job import Job, Malformed, Templated
from trio_worker.mail.composer import Composer, Mail, open_composer
from trio_worker.mail.options import MailOptions
from trio_worker.mail.template import Rendered
from trio_worker.mail.work import MAX_CHARACTERS, MAX_STEPS, TooMuchError, begin_count, size_of

if TYPE_CHECKING:
    from trio_worker.jobs.strict_json import Json

FIELDS = (
    FieldSpec("email", "recipient", sample="a@b"),
    FieldSpec("n", "number", sample=1),
    FieldSpec("text", "text", sample="a b"),
    FieldSpec("word", "line", sample="ann"),
    FieldSpec("stats", "object", sample={"rows": [{"name": "a", "value": 1}], "list": [1]}),
)
ROWS: list[Json] = [{"name": f"name {number}", "value": number} for number in range(1_500)]
STEPS = "does more than 200,000 steps"
CHARACTERS = "more than 4,000,000 characters"
LONG = "ab " * 20_000
EACH = "{%% for row in stats.rows %%}%s{%% endfor %%}"
SUM = "{% set ns = namespace(l=[]) %}"
LINE = "{% macro line(a, b) %}{{ a }}={{ b }};{% endmacro %}"


def composer_of(text: str, **others: str) -> Composer:
    """A composer of one type, whose text this is; ``others`` are further templates by the first part of their name."""
    sources = {"Own/subject.j2": "s", "Own/text.j2": text, **{f"{name}.j2": other for name, other in others.items()}}
    composer = open_composer(MailOptions(), Catalogue({"Own": TypeSpec("Own", FIELDS)}, sources))
    assert isinstance(composer, Composer), str(composer)
    return composer


def values_of(**fields: Json) -> dict[str, Json]:
    stats: Json = {"rows": ROWS, "list": [*range(3_000)]}
    return {"email": "a@b.example", "n": 99_999, "text": LONG, "word": "ann", "stats": stats, **fields}


def composed(composer: Composer, **fields: Json) -> Mail | Malformed:
    return composer.compose(Job("Own", Templated(Mailbox("", "a", "b.example"), values_of(**fields))), "id", 0.0)


def refusal(composer: Composer, **fields: Json) -> str:
    """What is said of a mail that is refused, which takes no longer than any other."""
    began = time.thread_time()
    refused = composed(composer, **fields)
    assert time.thread_time() - began < 1
    assert isinstance(refused, Malformed), "a mail was made"
    assert refused.reason == "template"
    return str(refused)


def body(composer: Composer, **fields: Json) -> str:
    rendered = composer.templates["Own"].render(values_of(**fields))
    assert isinstance(rendered, Rendered), str(rendered)
    return rendered.body.texts().parts[0][1].octets.decode().replace("\r\n", "\n")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("{% for i in range(n) %}x{% endfor %}", STEPS),
        ("{% for i in range(n) %}{% for j in range(n) %}{% endfor %}{% endfor %}", STEPS),
        ("{% for i in stats.list %}{{ text|upper|length }}{% endfor %}", STEPS),
        ("{% for i in stats.list %}{{ text.upper()|length }}{% endfor %}", STEPS),
        ("{% for i in stats.list %}{% if word in text %}{% endif %}{% endfor %}", STEPS),
        ("{% for i in stats.list %}{% if text is in text %}{% endif %}{% endfor %}", STEPS),
        ("{% for i in stats.list %}{{ text[1:]|length }}{% endfor %}", STEPS),
        ("{% for i in stats.list %}{{ text }}{% endfor %}", CHARACTERS),
        ("{% for i in range(n)|map('string') %}{{ i }}{% endfor %}", STEPS),
        ("{% set x %}{% for i in stats.list %}{{ text }}{% endfor %}{% endset %}{{ x }}", STEPS),
        ("{% macro m() %}{% for i in stats.list %}{{ text }}{% endfor %}{% endmacro %}{{ m() }}", STEPS),
        ("{% macro m(k) %}{% if k %}{{ m(k - 1) }}{{ m(k - 1) }}{% endif %}{% endmacro %}{{ m(n // 5000) }}", STEPS),
        ("{% for i in stats.list %}{% include 'other.j2' %}{% endfor %}", CHARACTERS),
        ("{% for i in range(n) %}{{ self.a() }}{% endfor %}{% block a %}{{ word }}{% endblock %}", STEPS),
        ("{% for r in stats.rows recursive %}{{ loop(stats.rows) if n > 1 }}{% endfor %}", "RecursionError"),
        ("{{ range(n)|map('center', 99999)|join|length }}", STEPS),
        ("{{ range(n)|list|length }}", STEPS),
        ("{{ text|replace('a', text) }}", CHARACTERS),
        ("{{ text.replace('a', text) }}", CHARACTERS),
        ("{{ stats.list|join(text) }}", CHARACTERS),
        ("{{ text.join(stats.list|map('string')|list) }}", CHARACTERS),
        ("{{ (text|replace(' ', '\\n'))|indent(n) }}", CHARACTERS),
        ("{{ (text|replace(' ', '\\t')).expandtabs(n) }}", CHARACTERS),
        ("{{ text.translate({97: text}) }}", CHARACTERS),
        ("{{ text|wordwrap(60, wrapstring=text) }}", CHARACTERS),
        ("{{ text|wordwrap([n, 1]|min) }}", STEPS),
        ("{{ text|urlize }}", STEPS),
        ("{{ text[:6000]|urlize(rel=text) }}", CHARACTERS),
        ("{{ stats|tojson(indent=n) }}", CHARACTERS),
        ("{{ stats.list|slice(n)|list|length }}", STEPS),
        ("{{ ('%s' * n)|format(*([text] * n)) }}", CHARACTERS),
        ("{{ ('%s' * n) % text }}", CHARACTERS),
        ("{{ ('{0}' * n).format(text) }}", CHARACTERS),
        ("{{ ('{a}' * n).format_map({'a': text}) }}", CHARACTERS),
        ("{{ text * n }}", CHARACTERS),
        ("{{ n * [text] }}", CHARACTERS),
        ("{{ 1.5|round(n) }}", "300 decimals"),
        ("{{ [[1], [2]]|sum(start=stats.list)|length }}", "sum is for numbers"),
        ("{{ lipsum(n) }}", "lipsum"),
    ],
)
def test_what_a_producer_can_make_too_long_is_a_dead_letter(text: str, what: str) -> None:
    """Loops, and calls whose cost or size is a product, end before they are made: at their line, without a value."""
    composer = composer_of(f"{{% if n > 1 %}}\n{text}\n{{% endif %}}", other="{{ text }}")

    said = refusal(composer)
    assert said.startswith("template: Own/text.j2:2: fails: ")
    assert what in said
    assert "ab ab" not in said
    # The same type with a usual job: each mail has its own count.
    assert isinstance(composed(composer, n=1, text="a"), Mail)


@pytest.mark.parametrize(
    ("grow", "first"),
    [
        ("{% set ns.x = ns.x ~ ns.x %}", "'ab'"),
        ("{% set ns.x = ns.x + ns.x %}", "'ab'"),
        ("{% set ns.x %}{{ ns.x }}{{ ns.x }}{% endset %}", "'ab'"),
        ("{% set ns.x %}{% filter upper %}{{ ns.x }}{{ ns.x }}{% endfilter %}{% endset %}", "'ab'"),
        ("{% set ns.x = [ns.x, ns.x] %}", "[1]"),
        ("{% set ns.x = {'a': ns.x, 'b': ns.x} %}", "{}"),
        ("{% set ns.x = (ns.x, ns.x) %}", "(1,)"),
        ("{% set ns.x = ns.x + [ns.x, ns.x] %}", "[1]"),
        ("{% set ns.x = dict(a=ns.x, b=[ns.x]) %}", "{}"),
        ("{% set ns.x = ns.x * ns.x %}", "3"),
    ],
)
def test_what_doubles_in_each_round_ends(grow: str, first: str) -> None:
    """A text of a terabyte, a list that holds itself a million million times, and a number of as many digits."""
    loop = f"{{% set ns = namespace(x={first}) %}}{{% for i in range(n) %}}{grow}{{% endfor %}}{{{{ ns.x }}}}"

    said = refusal(composer_of(loop), n=60)
    assert "Own/text.j2:1: fails: " in said
    assert CHARACTERS in said or "20,000 bits" in said


def test_namespaces_that_hold_each_other_have_a_short_text() -> None:
    """Only their members have texts."""
    grow = "{% for i in range(n) %}{% set ns.x = namespace(a=ns.x, b=ns.x) %}{% endfor %}{{ ns.x }}"

    assert body(composer_of("{% set ns = namespace(x=1) %}" + grow), n=60) == "<Namespace>\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (EACH % "{{ row.name }}: {{ row.value }}\n", "name 1499: 1499\n"),
        (EACH % "{{ loop.index }} of {{ stats.rows|length }}{{ ', ' if not loop.last }}", "1500 of 1500"),
        ("{% for row in stats.rows|sort(attribute='value') if row.value > 1498 %}{{ row.name }}{% endfor %}", "e 1499"),
        ("{% for same in stats.rows|groupby('value') %}{{ same.grouper }}:{{ same.list|length }},{% endfor %}", ":1,"),
        (SUM + EACH % "{% set ns.l = ns.l + [row.value * 2] %}" + "{{ ns.l|sum }}", "2248500"),
        (LINE + EACH % "{{ line(row.name, row.value) }}", "name 1499=1499;"),
        ("{{ stats.rows|map(attribute='name')|join(', ') }}", "name 1498, name 1499"),
        ("{{ text|wordwrap(60)|upper|trim|replace('AB', 'c') }}", "c c c"),
        ("{{ stats.rows|tojson(indent=2) }}", '    "value": 1499\n  }\n]'),
        ("{{ '%s, %5.2f, %s' % (word, 1.5, text|length) }}", "ann,  1.50, 60000"),
        ("{{ '{0} {0:>5}'.format(word) }}", "ann   ann"),
    ],
)  # fmt: skip
def test_large_mails_are_made(text: str, said: str) -> None:
    """A thousand rows and more, with what templates usually do for each."""
    assert body(composer_of(text)).rstrip("\n").endswith(said.rstrip("\n"))


def test_the_limit_is_the_same_however_fast_the_machine_is() -> None:
    """A count has an exact end, and nothing is left of it for the next mail, nor for another thread."""
    composer = composer_of("{% for i in range(n) %}{% endfor %}{% for i in range(n) %}{% endfor %}")
    most, more = MAX_STEPS // 2 - 1_000, MAX_STEPS // 2  # a round without a body has one step, and a call has some

    for _ in range(2):
        assert isinstance(composed(composer, n=most), Mail)
        assert isinstance(composed(composer, n=more), Malformed)
    with ThreadPoolExecutor(4) as threads:
        made = list(threads.map(lambda n: composed(composer, n=n), [most] * 16))
    assert all(isinstance(each, Mail) for each in made)


def test_the_place_is_that_of_the_template_whose_line_it_is() -> None:
    """Also of one that is included."""
    composer = composer_of("\n{% include 'other.j2' %}", other="\n\n{% for i in range(n) %}x{% endfor %}")

    assert refusal(composer).startswith(f"template: other.j2:3: fails: {STEPS}")


def test_a_text_that_is_too_long_in_all_is_told_with_its_template() -> None:
    """Though none of its lines makes it so."""
    composer = composer_of("{{ text * 60 }}{{ text * 60 }}")

    assert refusal(composer) == f"template: Own/text.j2: fails: makes a text of {CHARACTERS}"


def test_joining_texts_keeps_a_skeleton() -> None:
    """Counting costs nothing where there is nothing to count."""
    composer = composer_of("{% set link = word ~ '/' ~ word|percent %}{{ link }}")

    assert composer.templates["Own"].text.skeleton is not None
    assert body(composer, word="a b") == "a b/a%20b\n"


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.floats(allow_nan=False) | st.text(max_size=30),
        lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=5),
        max_leaves=30,
    )
)
def test_no_value_is_longer_as_text_than_a_few_times_its_size(value: Json) -> None:
    """So a bound on sizes is one on all texts that Python makes of values."""
    begin_count()
    size = size_of(value)

    assert len(str(value)) <= 10 * size + 10
    assert size_of([value, value]) >= 2 * size
    begin_count()
    with pytest.raises(TooMuchError):
        size_of([[value] * 1000, "x" * (MAX_CHARACTERS + 1)])
