"""Pure. Declares a configuration key, with default, limits and help text, next to the code that uses it."""

from __future__ import annotations

from typing import Any

import attrs

from trio_worker.records import frozen

METADATA_KEY = "trio_worker.option"


@frozen
class Option:
    """The properties of a configuration key besides its type.

    ``help_text`` is the sentence printed by the files in ``conf/``, by ``config explain`` and in the docs.
    ``key`` is the name in the file if Python does not allow it (``from``). ``minimum`` and ``maximum`` limit a number,
    both inclusive; ``choices`` are the allowed texts. A ``secret`` is never printed; it may also come from
    ``<key>_file``.
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

    Every record gets its own copy of a mutable default (a dict).
    """
    metadata = {METADATA_KEY: Option(help_text, key, minimum, maximum, choices, secret)}
    if isinstance(default, dict):
        return attrs.field(factory=default.copy, metadata=metadata)
    return attrs.field(default=default, metadata=metadata)


def option_of(attribute: attrs.Attribute[Any]) -> Option:
    """Return the `Option` of one field of an option record; KeyError for a field without one."""
    declared: Option = attribute.metadata[METADATA_KEY]
    return declared
