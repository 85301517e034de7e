"""Pure. One configuration key: its default, its bounds and its sentence, kept beside the module that obeys it."""

from __future__ import annotations

from typing import Any

import attrs
from attrs import frozen

METADATA_KEY = "trio_worker.option"


@frozen
class Option:
    """What the settings need to know of a key beyond its type.

    ``help_text`` is the sentence printed by the files in ``conf/``, by ``config explain`` and in the docs.
    ``key`` is the name in the file where Python forbids it (``from``). ``minimum`` and ``maximum`` bound a number, both
    inclusive; ``choices`` bounds a word. A ``secret`` is never printed; it may also come from ``<key>_file``.
    """

    help_text: str
    key: str = ""
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    secret: bool = False


def option(
    default: Any,
    help_text: str,
    *,
    key: str = "",
    minimum: float | None = None,
    maximum: float | None = None,
    choices: tuple[str, ...] = (),
    secret: bool = False,
) -> Any:
    """Declare one attrs field of an option record together with its `Option`.

    A mutable default (a dict) is given to every record as a fresh copy.
    """
    metadata = {METADATA_KEY: Option(help_text, key, minimum, maximum, choices, secret)}
    if isinstance(default, dict):
        return attrs.field(factory=default.copy, metadata=metadata)
    return attrs.field(default=default, metadata=metadata)


def option_of(attribute: attrs.Attribute[Any]) -> Option:
    """Return the `Option` of one field of an option record; a field declared without one is a bug (KeyError)."""
    declared: Option = attribute.metadata[METADATA_KEY]
    return declared
