"""Pure. Skeletons of templates: the octets that all mails of a type share, and placeholders for the values of fields.

A template has a skeleton if its syntax tree shows that values are only inserted: unchanged, escaped for HTML or
percent-encoded. It is rendered once with marks as values, which shows where each value is inserted; then it is
rendered with difficult values, and the skeleton must give the same octets. All other templates are rendered by Jinja
for each mail.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING
from urllib.parse import quote

import jinja2
from attrs import field
from jinja2 import nodes
from markupsafe import escape

from trio_worker.jobs.header import MAX_LINE_OCTETS
from trio_worker.mail.counted_tree import VALUE
from trio_worker.mail.mime import canonical, has_odd_control
from trio_worker.records import frozen
from trio_worker.typed_frozen import typed_frozen

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from trio_worker.jobs.email_type import FieldKind, TypeSpec
    from trio_worker.jobs.strict_json import Json

# Values of these kinds are one line, so each can be encoded by itself.
_LINE_KINDS: frozenset[FieldKind] = frozenset({"recipient", "line", "token"})
# Filters that may be applied to a value: each of them encodes every character independently of the others.
_FILTERS = frozenset({"percent", "escape", "e"})
_MARK = re.compile(r"zQ([0-9]+)x(<|&lt;|%3C)xQz")
_UNRESERVED = re.compile(r"[A-Za-z0-9._~-]*")
_MARKUP = re.compile(r"[&<>'\"]")  # what Jinja escapes
# Values that every field is tested with.
_DIFFICULT = ("", "a", " b ", "<i>&amp;\"'", "%s %(a)b {c} {{ d }}", "_a=_b%3C", "ü€😀\x7f", "zQ0x<xQz")


class Escaping(StrEnum):
    """How a value is escaped where it is inserted."""

    NONE = "none"
    HTML = "html"
    PERCENT = "percent"


def percent(value: object) -> str:
    """Percent-encode all but the unreserved characters (RFC 3986, 2.3), for a token in a link."""
    text = str(value)
    return text if _UNRESERVED.fullmatch(text) else quote(text, safe="")


def escape_html(value: str) -> str:
    """Escape a text for HTML, as Jinja does."""
    return escape(value) if _MARKUP.search(value) else value


_ESCAPING_OF_MARK = {"<": Escaping.NONE, "&lt;": Escaping.HTML, "%3C": Escaping.PERCENT}
_ESCAPE: dict[Escaping, Callable[[str], str]] = {
    Escaping.NONE: str,
    Escaping.HTML: escape_html,
    Escaping.PERCENT: percent,
}


@frozen
class Placeholder:
    """Where the value of the field ``name`` is inserted; ``key`` names its escaped value."""

    name: str
    escaping: Escaping
    key: str = field(init=False, eq=False, repr=False)
    escape: Callable[[str], str] = field(init=False, eq=False, repr=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "key", f"{self.name} {self.escaping}")
        object.__setattr__(self, "escape", _ESCAPE[self.escaping])


def encode_values(placeholders: Iterable[Placeholder], fields: Mapping[str, Json]) -> dict[str, bytes]:
    """Return the octets of each placeholder's value, by its key; ``fields`` must hold a line of text for each."""
    return {
        placeholder.key: placeholder.escape(str(fields[placeholder.name])).encode("utf-8", "replace")
        for placeholder in placeholders
    }


@typed_frozen
class RenderedText:
    """A text in canonical octets (`mime.canonical`); ``is_plain``: it surely has no line that needs an encoding."""

    octets: bytes
    is_plain: bool = False


@frozen
class Skeleton:
    """A template whose values are only inserted: constant octets, with a placeholder between every two of them.

    ``spare_octets``: how long each value may be so that no line exceeds the 998 octets of RFC 5322; below 0 if the
    constant octets themselves are not plain.
    """

    constants: tuple[bytes, ...] = field(repr=False)
    placeholders: tuple[Placeholder, ...]
    spare_octets: int
    _pieces: list[bytes] = field(init=False, repr=False, eq=False)  # constants, with empty pieces for the values
    _keys: tuple[str, ...] = field(init=False, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        pieces = [b""] * (len(self.constants) + len(self.placeholders))
        pieces[::2] = self.constants
        object.__setattr__(self, "_pieces", pieces)
        object.__setattr__(self, "_keys", tuple(placeholder.key for placeholder in self.placeholders))

    def fill(self, fields: Mapping[str, Json]) -> RenderedText:
        """Return the text of one mail; ``fields`` must hold a line of text for each placeholder."""
        return self.text_with(encode_values(self.placeholders, fields))

    def text_with(self, values: Mapping[str, bytes]) -> RenderedText:
        """Return the text with the values that `encode_values` returned; there may be more values than placeholders."""
        return RenderedText(self.insert(values), max(map(len, values.values()), default=0) <= self.spare_octets)

    def insert(self, values: Mapping[str, bytes]) -> bytes:
        """Return the octets of the text with these values."""
        pieces = self._pieces.copy()
        pieces[1::2] = map(values.__getitem__, self._keys)
        return b"".join(pieces)


def find_skeleton(
    trees: Iterable[nodes.Template], spec: TypeSpec, render: Callable[[Mapping[str, Json]], str]
) -> Skeleton | None:
    """Return the skeleton of a template, or None if it has none.

    ``trees`` are the template and all that it extends; ``render`` renders it with the fields of a mail.
    """
    lines = [each.name for each in spec.fields if each.required and each.kind in _LINE_KINDS]
    others = {each.name for each in spec.fields} - set(lines)
    if not all(_only_inserts(node, others) for tree in trees for node in tree.iter_child_nodes()):
        return None
    plain: dict[str, Json] = {each.name: "a" if each.name in lines else None for each in spec.fields}
    try:
        marked = render({**plain, **{name: f"zQ{number}x<xQz" for number, name in enumerate(lines)}})
    except jinja2.TemplateError:
        return None  # the composer finds the same error with the samples, and reports it
    skeleton = _cut(canonical(marked), lines)
    for difficult in _difficult_fields(plain, lines):
        if skeleton.fill(difficult).octets != canonical(render(difficult)):
            return None
    return skeleton


def _difficult_fields(plain: Mapping[str, Json], lines: Sequence[str]) -> Iterator[Mapping[str, Json]]:
    """Yield fields that are all empty, then fields with every difficult value, different in the first eight fields."""
    yield {**plain, **dict.fromkeys(lines, "")}
    for start in range(len(_DIFFICULT)):
        yield {**plain, **{name: _DIFFICULT[(start + place) % len(_DIFFICULT)] for place, name in enumerate(lines)}}


def _only_inserts(node: nodes.Node, others: set[str]) -> bool:
    """Whether a node writes only constants and values of one line; ``others`` are the fields of other kinds."""
    match node:
        case nodes.Name():
            return node.name not in others
        case nodes.Test():
            return node.name in {"defined", "undefined"} and isinstance(node.node, nodes.Name)
        case nodes.If():
            branches = (*node.body, *node.elif_, *node.else_)
            return _is_constant(node.test) and all(_only_inserts(child, others) for child in branches)
        case nodes.Filter():
            is_known = node.name in _FILTERS | {VALUE} and not (
                node.args or node.kwargs or node.dyn_args or node.dyn_kwargs
            )
            return is_known and node.node is not None and _only_inserts(node.node, others)
        case nodes.Extends():
            return isinstance(node.template, nodes.Const)
        case nodes.Output() | nodes.TemplateData() | nodes.Const() | nodes.Concat() | nodes.Assign() | nodes.Block():
            return all(_only_inserts(child, others) for child in node.iter_child_nodes())
        case _:
            return False


def _is_constant(test: nodes.Node) -> bool:
    """Whether a condition has the same result for all values; every field is always defined."""
    match test:
        case nodes.Test():
            return _only_inserts(test, set())
        case nodes.Not():
            return _is_constant(test.node)
        case nodes.And() | nodes.Or():
            return _is_constant(test.left) and _is_constant(test.right)
        case _:
            return isinstance(test, nodes.Const)


def _cut(marked: bytes, lines: list[str]) -> Skeleton:
    """Split a text with marks into constants and placeholders."""
    # re.split returns the constants, and two groups for each mark between them.
    first, *rest = _MARK.split(marked.decode())
    constants = [piece.encode() for piece in (first, *rest[2::3])]
    placeholders = [
        Placeholder(lines[int(number)], _ESCAPING_OF_MARK[middle])
        for number, middle in zip(rest[::3], rest[1::3], strict=True)
    ]
    is_odd = any(map(has_odd_control, constants))
    return Skeleton(tuple(constants), tuple(placeholders), -1 if is_odd else _spare_octets(constants))


def _spare_octets(constants: list[bytes]) -> int:
    """Return how long each value may be so that no line is too long; the values are between the ``constants``."""
    spare = MAX_LINE_OCTETS
    for line in b"\0".join(constants).split(b"\r\n"):
        values = line.count(b"\0")
        room = MAX_LINE_OCTETS - (len(line) - values)
        spare = min(spare, room // values if values else spare if room >= 0 else -1)
    return spare
