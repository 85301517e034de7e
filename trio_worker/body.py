"""Pure. The body of a mail, in either flavour: its texts and files, or values and the octets that go around them.

A type whose templates all have skeletons has one for the whole body: heads, boundaries and both texts are constant but
for the values and the job's id. It is cut from a body that the general way wrote with marks in their place, so each
mail has the octets that the general way would write.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from attrs import field, frozen

from trio_worker.message import Attachment
from trio_worker.mime import attachment_entity, multipart_entity, text_entity
from trio_worker.skeleton import Filled, Hole, Skeleton, Written, written

if TYPE_CHECKING:
    from trio_worker.strict_json import Json

_JOB_ID = Hole("", Written.AS_IT_IS)  # no field has this name
# A control character: a skeleton that is plain has none, so that nothing else can look like a mark.
_MARK = re.compile(rb"\0([^\0]*)\0")


@frozen
class Texts:
    """A body whose texts are written; at least one of ``text`` and ``html`` is given."""

    text: Filled | None
    html: Filled | None
    attachments: tuple[Attachment, ...] = ()

    def texts(self) -> Texts:
        """Return itself."""
        return self

    def octets(self, header: bytes, job_id: str, *, eight_bit: bool) -> bytes:
        """Return ``header`` and the body, for a relay that offers 8BITMIME or not; boundaries are made of the id."""
        parts = [
            text_entity(subtype, text.octets, eight_bit=eight_bit, is_plain=text.is_plain)
            for subtype, text in (("plain", self.text), ("html", self.html))
            if text is not None
        ]
        body = parts[0] if len(parts) == 1 else multipart_entity("alternative", f"{job_id}.a", parts)
        if self.attachments:
            files = [attachment_entity(held.name, held.type, held.content) for held in self.attachments]
            body = multipart_entity("mixed", f"{job_id}.m", [body, *files])
        return body.as_bytes(header)


@frozen
class BodySkeleton:
    """What the bodies of one type have alike; made of the skeletons of its texts."""

    text: Skeleton
    html: Skeleton | None
    holes: tuple[Hole, ...] = field(init=False)
    """Each way in which the value of a field is written, once."""
    whole: Skeleton | None = field(init=False, repr=False)
    """The body if all its values are ASCII and the relay takes its constant octets; None if these are not plain."""
    boundaries: int = field(init=False)
    """How often the job's id occurs in the whole."""
    is_ascii: bool = field(init=False)
    """Whether any relay takes the constant octets."""

    def __attrs_post_init__(self) -> None:
        parts = [part for part in (self.text, self.html) if part is not None]
        object.__setattr__(self, "holes", tuple(dict.fromkeys(hole for part in parts for hole in part.holes)))
        object.__setattr__(self, "whole", self._find_whole(min(part.spare_octets for part in parts)))
        object.__setattr__(self, "boundaries", 0 if self.whole is None else self.whole.holes.count(_JOB_ID))
        object.__setattr__(self, "is_ascii", all(b"".join(part.constants).isascii() for part in parts))

    def _find_whole(self, spare_octets: int) -> Skeleton | None:
        if spare_octets < 0:
            return None
        holes = {hole.key: hole for hole in (*self.holes, _JOB_ID)}
        marks = {key: f"\0{key}\0" for key in holes}
        marked = Insertion(self, {key: mark.encode() for key, mark in marks.items()}).texts()
        first, *rest = _MARK.split(marked.octets(b"", marks[_JOB_ID.key], eight_bit=True))
        return Skeleton((first, *rest[1::2]), tuple(holes[key.decode()] for key in rest[::2]), spare_octets)

    def fill(self, fields: Mapping[str, Json]) -> Insertion:
        """Return the body of one mail; ``fields`` must hold a line of text for each hole."""
        return Insertion(self, written(self.holes, fields))


@frozen
class Insertion:
    """A body whose values are written but not yet inserted: no octets that all mails have alike are held for it."""

    skeleton: BodySkeleton = field(repr=False)
    values: Mapping[str, bytes] = field(repr=False)

    def octets(self, header: bytes, job_id: str, *, eight_bit: bool) -> bytes:
        """Return what `Texts.octets` returns for the same texts."""
        skeleton, values = self.skeleton, self.values
        whole = skeleton.whole
        said = b"".join(values.values())
        is_usual = said.isascii() and (eight_bit or skeleton.is_ascii)
        if whole is not None and is_usual and len(said) <= whole.spare_octets:
            seed = job_id.encode("ascii")
            octets = whole.insert({**values, _JOB_ID.key: seed})
            # An id that occurs in the boundaries alone makes a boundary that occurs in no part.
            if octets.count(seed) == skeleton.boundaries:
                return header + octets
        return self.texts().octets(header, job_id, eight_bit=eight_bit)

    def texts(self) -> Texts:
        """Return the body for the general way."""
        html = self.skeleton.html
        return Texts(
            self.skeleton.text.filled_with(self.values), None if html is None else html.filled_with(self.values)
        )
