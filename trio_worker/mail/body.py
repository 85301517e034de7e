"""Pure. The body of a mail, in either flavour: its texts and files, or values and the octets that go around them.

A type whose templates all have skeletons has one for the whole body: heads, boundaries and texts are constant but for
the values and the job's id. It is cut from a body that the general way wrote with marks in their place, so each mail
has the octets that the general way would write.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import product
from typing import TYPE_CHECKING

from attrs import field, frozen

from trio_worker.jobs.message import Attachment
from trio_worker.mail.mime import attachment_entity, multipart_entity, text_entity
from trio_worker.mail.skeleton import Escaping, Placeholder, RenderedText, Skeleton, encode_values

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trio_worker.jobs.strict_json import Json

_JOB_ID = Placeholder("", Escaping.NONE)  # no field has this name
# Between two control characters: a skeleton that is plain has none, so that nothing else can look like a mark. The
# letter beyond ASCII makes the part that the mark stands in 8bit.
_MARK = re.compile(rb"\0([ -~]*)(?:\xc3\xa9)?\0")


@frozen
class Texts:
    """A body whose texts are written: each with its subtype of ``text/``, the best last (RFC 2046, 5.1.4)."""

    parts: tuple[tuple[str, RenderedText], ...]
    attachments: tuple[Attachment, ...] = ()

    def octets(self, header: bytes, job_id: str, *, eight_bit: bool) -> bytes:
        """Return ``header`` and the body, for a relay that offers 8BITMIME or not; boundaries are made of the id."""
        parts = [
            text_entity(subtype, text.octets, eight_bit=eight_bit, is_plain=text.is_plain)
            for subtype, text in self.parts
        ]
        body = parts[0] if len(parts) == 1 else multipart_entity("alternative", f"{job_id}.a", parts)
        if self.attachments:
            files = [attachment_entity(held.name, held.type, held.content) for held in self.attachments]
            body = multipart_entity("mixed", f"{job_id}.m", [body, *files])
        return body.as_bytes(header)

    def texts(self) -> Texts:
        """Return itself."""
        return self


@frozen
class BodySkeleton:
    """What the bodies of one type have alike; made by `find_body_skeleton` of the skeletons of its texts.

    ``placeholders`` are those of all parts, each once. ``wide`` says which parts go beyond ASCII by what is
    constant in them. ``wholes`` are the body for each set of parts that may go beyond ASCII, none if a part always
    needs an encoding; the job's id stands in each of them ``boundaries`` times.
    """

    parts: tuple[tuple[str, Skeleton], ...]
    placeholders: tuple[Placeholder, ...]
    wide: tuple[bool, ...]
    wholes: Mapping[tuple[bool, ...], Skeleton] = field(repr=False)
    boundaries: int

    def fill(self, fields: Mapping[str, Json]) -> Insertion:
        """Return the body of one mail; ``fields`` must hold a line of text for each placeholder."""
        return Insertion(self, encode_values(self.placeholders, fields))

    def wide_with(self, values: Mapping[str, bytes]) -> tuple[bool, ...]:
        """Return which parts go beyond ASCII with these values in them."""
        return tuple(not part.insert(values).isascii() for _, part in self.parts)


@frozen
class Insertion:
    """A body whose values are written but not yet inserted: no octets that all mails have alike are held for it."""

    skeleton: BodySkeleton = field(repr=False)
    values: Mapping[str, bytes] = field(repr=False)

    def octets(self, header: bytes, job_id: str, *, eight_bit: bool) -> bytes:
        """Return what `Texts.octets` returns for the same texts."""
        skeleton, values = self.skeleton, self.values
        said = b"".join(values.values())
        wide = skeleton.wide if said.isascii() else skeleton.wide_with(values)
        whole = skeleton.wholes.get(wide)
        if whole is not None and (eight_bit or True not in wide) and len(said) <= whole.spare_octets:
            seed = job_id.encode("ascii")
            octets = whole.insert({**values, _JOB_ID.key: seed})
            # An id that occurs in the boundaries alone makes a boundary that occurs in no part.
            if octets.count(seed) == skeleton.boundaries:
                return header + octets
        return self.texts().octets(header, job_id, eight_bit=eight_bit)

    def texts(self) -> Texts:
        """Return the body for the general way."""
        return Texts(tuple((subtype, part.text_with(self.values)) for subtype, part in self.skeleton.parts))


def find_body_skeleton(parts: Sequence[tuple[str, Skeleton]]) -> BodySkeleton:
    """Return the skeleton of a body; ``parts`` are as those of `Texts`."""
    skeletons = [part for _, part in parts]
    placeholders = tuple(dict.fromkeys(placeholder for part in skeletons for placeholder in part.placeholders))
    wide = tuple(not b"".join(part.constants).isascii() for part in skeletons)
    spare_octets = min(part.spare_octets for part in skeletons)
    wholes = {}
    if spare_octets >= 0:
        for way in product(*((True,) if is_wide else (False, True) for is_wide in wide)):
            wholes[way] = _cut(_marked(parts, placeholders, way), placeholders, spare_octets)
    boundaries = wholes[wide].placeholders.count(_JOB_ID) if wholes else 0
    return BodySkeleton(tuple(parts), placeholders, wide, wholes, boundaries)


def _marked(
    parts: Sequence[tuple[str, Skeleton]], placeholders: Sequence[Placeholder], wide: tuple[bool, ...]
) -> bytes:
    """Let the general way write a body with marks for the values and the job's id."""
    texts = []
    for (subtype, part), is_wide in zip(parts, wide, strict=True):
        marks = {placeholder.key: f"\0{placeholder.key}{'é' * is_wide}\0".encode() for placeholder in placeholders}
        texts.append((subtype, RenderedText(part.insert(marks), is_plain=True)))
    return Texts(tuple(texts)).octets(b"", f"\0{_JOB_ID.key}\0", eight_bit=True)


def _cut(marked: bytes, placeholders: Sequence[Placeholder], spare_octets: int) -> Skeleton:
    first, *rest = _MARK.split(marked)
    known = {placeholder.key.encode(): placeholder for placeholder in (*placeholders, _JOB_ID)}
    return Skeleton((first, *rest[1::2]), tuple(known[key] for key in rest[::2]), spare_octets)
