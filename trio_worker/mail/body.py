"""Pure. The body of a mail, for a relay with or without 8BITMIME: rendered texts and files, or a filled skeleton.

An email type whose templates all have skeletons has one skeleton for the whole body: MIME headers, boundaries and texts
are constant, except for the values and the job's id. It is cut from a body that `Texts` wrote with marks in place of
the values, so a mail made from it has the same octets as one made by `Texts`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import product
from typing import TYPE_CHECKING

from attrs import field

from trio_worker.jobs.attachment import Attachment
from trio_worker.mail.mime import attachment_entity, invitation_entity, multipart_entity, text_entity
from trio_worker.mail.skeleton import Escaping, Placeholder, RenderedText, Skeleton, encode_values
from trio_worker.records import frozen
from trio_worker.typed_frozen import typed_frozen

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trio_worker.jobs.strict_json import Json

_JOB_ID = Placeholder("", Escaping.NONE)  # no field has this name
# A mark stands between two NULs. The constant text of a plain skeleton has no control character, so nothing else can
# look like a mark. The letter beyond ASCII makes the part around the mark 8bit.
_MARK = re.compile(rb"\0([ -~]*)(?:\xc3\xa9)?\0")


@frozen
class Texts:
    """A body of rendered texts, each with its subtype of ``text/``, the best last (RFC 2046, 5.1.4), and files."""

    parts: tuple[tuple[str, RenderedText], ...]
    attachments: tuple[Attachment, ...] = ()

    def octets(self, header: bytes, job_id: str, *, eight_bit: bool) -> bytes:
        """Return ``header`` and the body, for a relay that offers 8BITMIME or not; boundaries are made of the id.

        Inline attachments are related to the HTML text (RFC 2387). An invitation is the best alternative of the text,
        and a file as well, for mail programs that know no calendar.
        """
        inline = [each for each in self.attachments if each.cid is not None]
        files = [each for each in self.attachments if each.cid is None]
        parts = []
        for subtype, text in self.parts:
            part = text_entity(subtype, text.octets, eight_bit=eight_bit, is_plain=text.is_plain)
            if subtype == "html" and inline:
                related = [part, *map(attachment_entity, inline)]
                part = multipart_entity("related", f"{job_id}.r", related, 'type="text/html"')
            parts.append(part)
        parts += [invitation_entity(each) for each in files if each.type.is_invitation]
        body = parts[0] if len(parts) == 1 else multipart_entity("alternative", f"{job_id}.a", parts)
        if files:
            body = multipart_entity("mixed", f"{job_id}.m", [body, *map(attachment_entity, files)])
        return body.as_bytes(header)

    def texts(self) -> Texts:
        """Return itself."""
        return self


@frozen
class BodySkeleton:
    """The octets that all bodies of one email type share; made by `find_body_skeleton` of the skeletons of its texts.

    ``placeholders`` are those of all parts, each once. ``are_eight_bit``: for each part, whether its constant text has
    8-bit octets. ``bodies_by_encoding``: the skeleton of the whole body for each combination of 7-bit and 8-bit parts;
    empty if a part always needs an encoding. In each of them the job's id occurs ``boundaries`` times.
    """

    parts: tuple[tuple[str, Skeleton], ...]
    placeholders: tuple[Placeholder, ...]
    are_eight_bit: tuple[bool, ...]
    bodies_by_encoding: Mapping[tuple[bool, ...], Skeleton] = field(repr=False)
    boundaries: int

    def fill(self, fields: Mapping[str, Json]) -> Insertion:
        """Return the body of one mail; ``fields`` must hold a line of text for each placeholder."""
        return Insertion(self, encode_values(self.placeholders, fields))

    def are_eight_bit_with(self, values: Mapping[str, bytes]) -> tuple[bool, ...]:
        """Return for each part whether it has 8-bit octets with these values in it."""
        return tuple(not part.insert(values).isascii() for _, part in self.parts)


@typed_frozen
class Insertion:
    """A body as its skeleton and the encoded values: the octets shared by all mails are not copied until it is sent."""

    skeleton: BodySkeleton = field(repr=False)
    values: Mapping[str, bytes] = field(repr=False)

    def octets(self, header: bytes, job_id: str, *, eight_bit: bool) -> bytes:
        """Return what `Texts.octets` returns for the same texts."""
        skeleton, values = self.skeleton, self.values
        inserted = b"".join(values.values())
        are_eight_bit = skeleton.are_eight_bit if inserted.isascii() else skeleton.are_eight_bit_with(values)
        whole = skeleton.bodies_by_encoding.get(are_eight_bit)
        if whole is not None and (eight_bit or True not in are_eight_bit) and len(inserted) <= whole.spare_octets:
            seed = job_id.encode("ascii")
            octets = whole.insert({**values, _JOB_ID.key: seed})
            # If the id occurs only in the boundaries, no part holds a boundary.
            if octets.count(seed) == skeleton.boundaries:
                return header + octets
        return self.texts().octets(header, job_id, eight_bit=eight_bit)

    def texts(self) -> Texts:
        """Return the same body as rendered texts."""
        return Texts(tuple((subtype, part.text_with(self.values)) for subtype, part in self.skeleton.parts))


def find_body_skeleton(parts: Sequence[tuple[str, Skeleton]]) -> BodySkeleton:
    """Return the skeleton of a body from those of its texts; ``parts`` have the shape of `Texts.parts`."""
    skeletons = [part for _, part in parts]
    placeholders = tuple(dict.fromkeys(placeholder for part in skeletons for placeholder in part.placeholders))
    are_eight_bit = tuple(not b"".join(part.constants).isascii() for part in skeletons)
    spare_octets = min(part.spare_octets for part in skeletons)
    bodies_by_encoding = {}
    if spare_octets >= 0:
        for encoding in product(*((True,) if is_eight_bit else (False, True) for is_eight_bit in are_eight_bit)):
            bodies_by_encoding[encoding] = _cut(_marked(parts, placeholders, encoding), placeholders, spare_octets)
    boundaries = bodies_by_encoding[are_eight_bit].placeholders.count(_JOB_ID) if bodies_by_encoding else 0
    return BodySkeleton(tuple(parts), placeholders, are_eight_bit, bodies_by_encoding, boundaries)


def _marked(
    parts: Sequence[tuple[str, Skeleton]], placeholders: Sequence[Placeholder], are_eight_bit: tuple[bool, ...]
) -> bytes:
    """Return a body made by `Texts`, with marks in place of the values and the job's id."""
    texts = []
    for (subtype, part), is_eight_bit in zip(parts, are_eight_bit, strict=True):
        marks = {placeholder.key: f"\0{placeholder.key}{'é' * is_eight_bit}\0".encode() for placeholder in placeholders}
        texts.append((subtype, RenderedText(part.insert(marks), is_plain=True)))
    return Texts(tuple(texts)).octets(b"", f"\0{_JOB_ID.key}\0", eight_bit=True)


def _cut(marked: bytes, placeholders: Sequence[Placeholder], spare_octets: int) -> Skeleton:
    first, *rest = _MARK.split(marked)
    known = {placeholder.key.encode(): placeholder for placeholder in (*placeholders, _JOB_ID)}
    return Skeleton((first, *rest[1::2]), tuple(known[key] for key in rest[::2]), spare_octets)
